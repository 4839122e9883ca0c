# Bootstraps what bootsplice needs, says what it does, and hands over to `invoke` (see tasks.py).
#
#   make images     build the bootable images of every recipe in kernels/
#   make test       run the test suite
#
# What is missing is installed: a virtual environment in .venv, and Debian packages through apt
# (with sudo if you are not root).

PYTHON ?= python3
VENV   := .venv
INVOKE := $(VENV)/bin/invoke

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help images test lint contract bench clean nasm qemu ld

help:
	@echo 'make images     build the bootable images of every recipe in kernels/ (build/images/)'
	@echo 'make test       run the test suite'
	@echo 'make lint       check style and types'
	@echo 'make contract   hold every source in asm/ to its contract (seconds)'
	@echo 'make bench      measure speed (not yet)'
	@echo 'make clean      remove what was built, and .venv'
	@echo
	@echo 'More, and finer: $(INVOKE) --list'

images: $(VENV)/.runtime nasm
	@$(INVOKE) images

test: $(VENV)/.dev nasm qemu ld
	@$(INVOKE) test

contract: $(VENV)/.dev nasm
	@$(INVOKE) contract

lint: $(VENV)/.dev
	@$(INVOKE) lint

bench: $(VENV)/.runtime nasm qemu
	@$(INVOKE) bench

clean:
	rm -rf build $(VENV)

nasm:
	@$(call need,nasm,nasm)

qemu:
	@$(call need,qemu-system-x86_64,qemu-system-x86)

ld:
	@$(call need,ld,binutils)

# need PROGRAM,PACKAGE: installs a Debian package if its program is not on PATH.
need = command -v $(1) >/dev/null 2>&1 || { $(call install,$(1),$(2)); }

# install WHAT,PACKAGE: says what is missing and installs it, or names what to install.
install = \
	if ! command -v apt-get >/dev/null 2>&1; then \
		echo "make: $(1) is missing and there is no apt-get here; install it ($(2) in Debian)" >&2; \
		exit 1; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif command -v sudo >/dev/null 2>&1; then sudo=sudo; \
	else \
		echo "make: $(1) is missing and you are not root; have 'apt-get install $(2)' run" >&2; \
		exit 1; \
	fi; \
	echo "make: $(1) is missing: installing the Debian package $(2)"; \
	$$sudo apt-get -qq update; \
	$$sudo env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install -y --no-install-recommends $(2) >/dev/null

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$($(PYTHON) --version) is too old, bootsplice needs 3.11;" \
		"try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call install,Python's venv,python3-venv); }
	@echo "make: making a virtual environment in $(VENV)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/pip
	@echo "make: installing bootsplice and what it needs into $(VENV)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	@echo "make: installing bootsplice and what its tests need into $(VENV)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.runtime
