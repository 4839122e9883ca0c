"""The commands in README.md and in docs/ do what the page says, and there are no others.

Each page is run in a copy of the project where its reader has some files. What a reader does and a
test must not is in INSTEAD; the blocks that are not always run are in ONLY.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import booting
import click
import documented
import pytest
import yaml
from copied import copy_project, environment
from documented import commands, tokens

import tasks
from pybuild import cli
from pybuild.material import Workshop
from pybuild.paths import ROOT

# The recipes in a reader's kernels/, that `make images` takes no minute.
RECIPES: Final = {"docs/tutorial.md": ("debian-bzimage",), "docs/new-architecture.md": ()}
USUAL_RECIPES: Final = ("probe-2.10",)

# What the reader has: the kernels of these recipes, and (in `reader`) an initrd and two USB sticks.
KERNELS: Final = {"bzImage": "probe-64", "memtest86+x64.bin": "memtest86+x64"}

INSTEAD: Final = {
    "sudo apt-get ": "true ",  # `make test` has installed it
    "sudo ": "",
    "/dev/sdX": "stick.img",
    "/dev/sdY": "full-stick.img",
    "make contract": "make -n contract",  # a part of `make test`, which runs now
    "make bench": "make -n bench",  # takes 10 minutes
    "invoke lint": "invoke --help lint",  # CI runs it
    "invoke watch": "invoke --help watch",  # never ends: test_editloop.py runs it
}

ONLY: Final = {
    "soak": "takes too long for `make test`",
    "dom0": "needs a host that is a dom0 of Xen",
    "kexec": "replaces the kernel that runs",
    "ubuntu": "is for readers who have not got what Debian has",
}

_STICK: Final = 64 << 20
_COMMAND: Final = re.compile(
    r"(?:\$ |sudo |\.venv/bin/)*(?:bootsplice|invoke|make|pytest|xl|dd|qemu-system-\w+|kexec) "
)
_INLINE: Final = re.compile(r"(?:\.venv/bin/)?(bootsplice|invoke|make) ([a-z]+)\b(.*)")
_FENCES: Final = ("fence", "code_block")
_RUN: Final = ("sh", "console")


def pages() -> dict[str, Path]:
    """Every page, by its name."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return {str(path.relative_to(ROOT)): path for path in sorted(found)}


def with_commands(only: str) -> list[str]:
    """The pages that have a block with this mark; "" is none."""
    return [n for n, page in pages().items() if any(c.only == only for c in commands(page))]


@pytest.fixture
def reader(tmp_path: Path, shop: Workshop) -> Callable[[str], Path]:
    """Makes a copy of the project with what a page's reader has."""

    def tree(name: str) -> Path:
        root = copy_project(tmp_path / "tree", RECIPES.get(name, USUAL_RECIPES), built=True)
        for file, recipe in KERNELS.items():
            shutil.copy(booting.parts(booting.named(recipe), shop)[0], root / file)
        shutil.copy(ROOT / "LICENSE", root / "initrd.img")
        (root / "bootsplice").symlink_to(root)  # a checkout beside the reader's own project
        for stick in ("stick.img", "full-stick.img"):
            with (root / stick).open("wb") as stream:
                stream.truncate(_STICK)
        sfdisk = ["sfdisk", "--quiet", str(root / "full-stick.img")]
        subprocess.run(sfdisk, input="2048,,c,*\n", text=True, check=True)
        return root

    return tree


@pytest.mark.parametrize("name", with_commands(""))
def test_every_command_of_a_page(name: str, reader: Callable[[str], Path]) -> None:
    tree = reader(name)
    documented.hold(ROOT / name, tree, environment(tree), instead=INSTEAD)


@pytest.mark.soak
@pytest.mark.usefixtures("xen")
@pytest.mark.parametrize("name", with_commands("soak"))
def test_and_those_that_take_long(name: str, reader: Callable[[str], Path]) -> None:
    tree = reader(name)
    documented.hold(ROOT / name, tree, environment(tree), asked={"soak"}, instead=INSTEAD)


def test_there_are_pages_with_commands() -> None:
    assert {"README.md", "docs/tutorial.md", "docs/howto/kexec.md"} < set(with_commands(""))
    assert sum(len(list(commands(page))) for page in pages().values()) > 100


@pytest.mark.parametrize("name", pages())
def test_no_command_stands_where_it_is_not_run(name: str) -> None:
    for token in tokens(pages()[name]):
        if token.type in _FENCES and token.info.split()[:1] not in [[mark] for mark in _RUN]:
            assert token.map is not None
            found = [line for line in token.content.splitlines() if _COMMAND.match(line)]
            assert not found, f"{name}:{token.map[0] + 1}: mark the block sh or console"
    assert {command.only for command in commands(pages()[name])} <= {"", *ONLY}


def inline(name: str) -> list[re.Match[str]]:
    """The commands in a page's text."""
    codes = [
        child.content
        for token in tokens(pages()[name])
        for child in token.children or []
        if child.type == "code_inline"
    ]
    return [match for code in codes if (match := _INLINE.fullmatch(code))]


@pytest.mark.parametrize("name", pages())
def test_commands_in_the_text_exist(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {word for line in re.findall(r"(?m)^([a-z ]+):", makefile) for word in line.split()}
    of_invoke = {getattr(task, "name", "") for task in vars(tasks).values()}
    for program, command, rest in (match.groups() for match in inline(name)):
        where = f"{name}: `{program} {command}{rest}`"
        if program == "make":
            assert {command, *rest.split()} <= targets, where
        elif program == "invoke":
            assert command in of_invoke, where
        else:
            assert command in cli.cli.commands, where
            has = {"--help"} | {
                option
                for parameter in cli.cli.commands[command].params
                if isinstance(parameter, click.Option)
                for option in (*parameter.opts, *parameter.secondary_opts)
            }
            assert {o.partition("=")[0] for o in re.findall(r"--[a-z][\w-]*", rest)} <= has, where


def test_links_lead_somewhere() -> None:
    for name, page in pages().items():
        for token in tokens(page):
            for child in token.children or []:
                link = str(child.attrs.get("href", child.attrs.get("src", "")))
                if link and "://" not in link:
                    assert (page.parent / link.partition("#")[0]).exists(), f"{name}: {link}"


def test_the_workflow_runs_what_the_page_runs() -> None:
    page = pages()["docs/howto/github-actions.md"]
    (workflow,) = [token.content for token in tokens(page) if token.info == "yaml"]
    steps = yaml.safe_load(workflow)["jobs"]["boot"]["steps"]
    run = [step["run"].strip() for step in steps if "run" in step]
    shown = "".join(command.script for command in commands(page))
    assert len(run) > 2
    assert all(line in shown for line in run)
