"""Completion in shells: what `bootsplice completion` prints, and what it then offers."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command import run


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH, with the command in it."""
    command = tmp_path / "bin/bootsplice"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pybuild.cli "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return command.parent


def offered(*words: str) -> list[str]:
    """What completes the last word, by click's protocol; "file" if it is a file."""
    environment = {
        **os.environ,
        "_BOOTSPLICE_COMPLETE": "bash_complete",
        "COMP_WORDS": shlex.join(["bootsplice", *words]),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-m", "pybuild.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    pairs = [line.split(",", 1) for line in done.stdout.splitlines() if line]
    return [kind if kind == "file" else value for kind, value in pairs]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("bu",), ["build"]),
        (("build", "--ini"), ["--initrd"]),
        (("build", "--verb"), ["--verbose"]),
        (("build", "bz"), ["file"]),
        (("build", "k", "--initrd", "i"), ["file"]),
        (("build", "k", "--machine", "x"), ["xen-hvm"]),
        (("build", "k", "--machine", ""), ["base", "pc", "xen-hvm"]),
        (("build", "k", "--machine", "./m"), ["file"]),
        (("build", "k", "--target", "i"), ["iso"]),
        (("build", "k", "--move", "h"), ["hook"]),
        (("build", "k", "--gp"), ["--gpt"]),
        (("boot", "i", "--drive", "c"), ["cdrom"]),
        (("boot", "i", "--screenshot", "s"), ["file"]),
        (("debug", "i", "--at", "h"), ["hook"]),
        (("completion", "f"), ["fish"]),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_offered(words: tuple[str, ...], expected: list[str]) -> None:
    found = offered(*words)
    assert set(found) >= {"pc", "xen-hvm"} if "" in words else found == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_command(room: Path, shell: str) -> None:
    done = run(room, "completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_BOOTSPLICE_COMPLETE={shell}_complete" in done.stdout
    assert "bootsplice" in done.stdout


def test_in_bash(programs: Path, tmp_path: Path) -> None:
    """The script is read by a real bash, whose function then completes a command line."""
    script = """
    set -e
    eval "$(bootsplice completion bash)"
    complete -p bootsplice
    COMP_WORDS=(bootsplice build kernel --machine x) COMP_CWORD=4
    compopt() { echo "compopt $*"; }
    _bootsplice_completion bootsplice
    echo "${COMPREPLY[@]}"
    """
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    registered, reply = done.stdout.splitlines()
    assert registered == "complete -o nosort -F _bootsplice_completion bootsplice"
    assert reply == "xen-hvm"
