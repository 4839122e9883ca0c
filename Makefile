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
.PHONY: help images test soak lint contract bench clean nasm qemu tools peers browser

help:
	@echo 'make images     build the bootable images of every recipe in kernels/ (build/images/)'
	@echo 'make test       run the test suite'
	@echo 'make soak       run it with the tests that take long, too'
	@echo 'make lint       check style and types'
	@echo 'make contract   hold every source in asm/ to its contract (under a minute)'
	@echo 'make bench      measure speed beside other loaders (under 10 minutes)'
	@echo 'make clean      remove what was built, and .venv'
	@echo
	@echo 'More, and finer: $(INVOKE) --list'

images: $(VENV)/.runtime nasm
	@$(INVOKE) images

test soak: $(VENV)/.dev nasm qemu tools peers
	@$(INVOKE) $@

soak: browser

contract: $(VENV)/.dev nasm
	@$(INVOKE) contract

lint: $(VENV)/.dev
	@$(INVOKE) lint

bench: $(VENV)/.runtime nasm qemu peers
	@$(INVOKE) bench

clean:
	rm -rf build $(VENV)

nasm:
	@$(call need,nasm,nasm)

qemu:
	@$(call need,qemu-system-x86_64,qemu-system-x86)

# What the tests compare with: other people's linker, partition tools, ISO readers, emulator and
# debugger; and cpio, which the tutorial uses.
tools:
	@$(call need,ld,binutils)
	@$(call need,qemu-img,qemu-utils)
	@$(call need,sfdisk,fdisk)
	@$(call need,sgdisk,gdisk)
	@$(call need,xorriso,xorriso)
	@$(call need,isoinfo,genisoimage)
	@$(call need,gdb,gdb)
	@$(call need,cpio,cpio)
	@$(call need,bochs,bochs bochs-term bochsbios vgabios)

# What measures the text in the pictures that `bootsplice plan` draws.
browser:
	@$(call need,chromium,chromium)

PEERS := grub-common grub-pc-bin syslinux syslinux-common isolinux xorriso genisoimage mtools
PEER_FILES := /usr/bin/grub-mkimage /usr/lib/grub/i386-pc/boot.img /usr/bin/syslinux \
	/usr/lib/syslinux/mbr/mbr.bin /usr/lib/ISOLINUX/isolinux.bin \
	/usr/lib/syslinux/modules/bios/ldlinux.c32 /usr/bin/xorriso /usr/bin/genisoimage /usr/bin/mformat

# "-": a peer that cannot be installed is left out of the benchmark and of the tests, which say so.
peers:
	-@ls $(PEER_FILES) >/dev/null 2>&1 || { $(call install,another boot loader,$(PEERS)); }

# need PROGRAM,PACKAGES: installs Debian packages if their program is not there; some of them are in
# /usr/sbin, where only root's PATH looks.
need = PATH="$$PATH:/usr/sbin:/sbin" command -v $(1) >/dev/null 2>&1 || { $(call install,$(1),$(2)); }

# install WHAT,PACKAGES: says what is missing and installs it, or names what to install.
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
	echo "make: $(1) is missing: installing from Debian: $(2)"; \
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
