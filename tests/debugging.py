"""Runs the real `bootsplice debug` with the real gdb."""

import os
import re
import subprocess
import sys
from pathlib import Path

from pybuild import paths

SECONDS = 120  # many times what it takes, for a machine that is busy
COMMAND = (sys.executable, "-m", "pybuild.cli", "debug")
SMALL = ("--memory", "64", "--", "-nic", "none")


def gdb(
    file: Path, at: str, *commands: str, qemu: tuple[str, ...] = (), temporary: str | None = None
) -> str:
    """Stops there and gives gdb these commands; what both of them say."""
    environment = {**os.environ, **({"TMPDIR": temporary} if temporary else {})}
    done = subprocess.run(
        [*COMMAND, file, "--at", at, *SMALL, *qemu],
        env=environment,
        input="".join(f"{command}\n" for command in commands),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.replace("(gdb) ", "")


def show(*names: str) -> str:
    """A command that shows registers, or what else gdb has a value of."""
    form = " ".join(f"{name}=%#lx" for name in names)
    return f'printf "{form}\\n", ' + ", ".join(f"(unsigned long) ${name}" for name in names)


def line(source: str, text: str) -> int:
    """The number of the first line of a source that is this instruction."""
    lines = (paths.ROOT / "asm" / source).read_text().splitlines()
    return next(n for n, each in enumerate(lines, 1) if each.partition(";")[0].strip() == text)


def stopped_at(said: str, source: str, text: str) -> bool:
    """We say so, and so does gdb."""
    number = line(source, text)
    ours = re.search(rf"stopped at .*: asm/{re.escape(source)}:{number}\n", said)
    gdbs = re.search(rf" at asm/{re.escape(source)}:{number}\n{shown(source, text)}", said)
    return bool(ours and gdbs)


def shown(source: str, text: str) -> str:
    """A regular expression: gdb shows this line of a source."""
    return rf"\b{line(source, text)}\t    {re.escape(text)}\b"
