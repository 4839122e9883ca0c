"""The commands in a document, run in order, and held to what the document shows of their output.

A document has them in fenced blocks. One marked `sh` is a script, run by bash up to the first
command that fails. One marked `console` is a session: a line that begins with `$ ` is a command,
and with `> ` goes on with it. What follows is its output, where `...` stands for anything, or as a
whole line for any lines. A command must succeed; but the last of a block whose mark goes on with
`status=1` or the like, which readers don't get to see, must end with that.
"""

import itertools
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

_PROMPT: Final = "$ "
_GOES_ON: Final = "> "
_ANYTHING: Final = "..."


@dataclass(frozen=True)
class Command:
    """What to run: a script, what it prints (None is anything), and how it ends."""

    where: str
    script: str
    expected: str | None
    status: int


def commands(document: Path) -> Iterator[Command]:
    """The commands of a document, in its order."""
    for token in MarkdownIt().parse(document.read_text(encoding="utf-8")):
        if token.type != "fence" or token.map is None:
            continue
        language, *options = token.info.split() or [""]
        status = int(dict(option.split("=") for option in options).get("status", 0))
        line = token.map[0] + 1
        if language == "sh":
            yield Command(f"{document.name}:{line}", token.content, None, status)
        elif language == "console":
            head, *parts = re.split(rf"(?m)^{re.escape(_PROMPT)}", token.content)
            assert not head, f"{document.name}:{line}: the block does not begin with a command"
            for left, part in zip(reversed(range(len(parts))), parts, strict=True):
                first, *rest = part.splitlines(keepends=True)
                more = list(itertools.takewhile(lambda text: text.startswith(_GOES_ON), rest))
                script = first + "".join(text.removeprefix(_GOES_ON) for text in more)
                where = f"{document.name}:{line}: {first.rstrip()}"
                yield Command(where, script, "".join(rest[len(more) :]), 0 if left else status)


def fits(expected: str, found: str) -> bool:
    """Whether an output is what a document shows; blanks at the end of a line don't matter."""
    pattern = ""
    for line in expected.rstrip().splitlines():
        text = ".*".join(map(re.escape, line.rstrip().split(_ANYTHING)))
        pattern += r"(?:.*\n)*" if line.rstrip() == _ANYTHING else rf"{text}\n"
    printed = "".join(f"{line.rstrip()}\n" for line in found.rstrip().splitlines())
    return re.fullmatch(pattern, printed) is not None


def hold(document: Path, directory: Path, environment: Mapping[str, str]) -> int:
    """Runs a document's commands in a directory, one after the other; says how many there are.

    Raises:
        AssertionError: one does not end, or does not print, as the document shows it.
    """
    found = list(commands(document))
    for command in found:
        ran = subprocess.run(
            ["bash", "-euc", command.script],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = f"{command.where}: ends with {ran.returncode}, and prints:\n{ran.stdout}"
        assert ran.returncode == command.status, told
        if command.expected is not None:
            assert fits(command.expected, ran.stdout), f"{told}\nexpected:\n{command.expected}"
    return len(found)
