"""Runs a command whose standard error is a terminal."""

import os
import pty
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Of the colours, and not bold or dim: ECMA-48 8.3.117 (SGR).
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m")


@dataclass(frozen=True)
class Ran:
    """What came of it; `screen` is all that was sent to the terminal."""

    status: int
    screen: str


def run(
    command: Sequence[str | Path],
    folder: Path,
    *,
    output: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Runs a command, its standard output on the terminal, too, if there is no `output` file."""
    ours, theirs = pty.openpty()
    dumb = {"TERM", "NO_COLOR", "FORCE_COLOR"}
    kept = {name: value for name, value in os.environ.items() if name not in dumb}
    with (output or Path(os.devnull)).open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, "TERM": "xterm", "COLUMNS": "100", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=file if output else theirs,
            stderr=theirs,
        )
    os.close(theirs)
    screen = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            screen += chunk
    except OSError:  # EIO: nobody has the terminal open any more
        pass
    os.close(ours)
    return Ran(process.wait(60), screen.decode(errors="replace"))
