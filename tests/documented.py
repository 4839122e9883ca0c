"""The commands in a document, run in order, and held to what the document shows of their output.

A document has them in fenced blocks. One marked `sh` is a script, run by bash up to the first
command that fails. One marked `console` is a session: a line that begins with `$ ` is a command,
and with `> ` goes on with it. What follows is its output, where `...` stands for anything, or as a
whole line for any lines, and a time, as in `9.1 s`, for any time. The loader's progress is left
out: only where the machine is busy it shows any. A command must succeed; but the last of a block
whose mark goes on with `status=1` or the like, which readers don't get to see, must end with that.
A block marked `only=NAME` is run where NAME is asked for; elsewhere bash only reads it.
"""

import itertools
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PROMPT: Final = "$ "
_GOES_ON: Final = "> "
_ANYTHING: Final = "..."
_TIME: Final = re.compile(r"\d+\\\.\d\\ s\b")  # in what re.escape() makes of an output
_ANY_TIME: Final = r"\\d+\\.\\d s"
_PROGRESS: Final = re.compile(r"^\n*(?:bootsplice: loading \d+%\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """What to run: a script, what it prints (None is anything), how it ends, and where only."""

    where: str
    script: str
    expected: str | None
    status: int
    only: str = ""


def tokens(document: Path) -> list[Token]:
    """What a document is made of."""
    return MarkdownIt().enable("table").parse(document.read_text(encoding="utf-8"))


def commands(document: Path) -> Iterator[Command]:
    """The commands of a document, in its order."""
    for token in tokens(document):
        if token.type != "fence" or token.map is None:
            continue
        language, *marks = token.info.split() or [""]
        options = dict(mark.split("=") for mark in marks)
        status, only = int(options.get("status", 0)), options.get("only", "")
        line = token.map[0] + 1
        if language == "sh":
            yield Command(f"{document.name}:{line}", token.content, None, status, only)
        elif language == "console":
            head, *parts = re.split(rf"(?m)^{re.escape(_PROMPT)}", token.content)
            assert not head, f"{document.name}:{line}: the block does not begin with a command"
            for left, part in zip(reversed(range(len(parts))), parts, strict=True):
                first, *rest = part.splitlines(keepends=True)
                more = list(itertools.takewhile(lambda text: text.startswith(_GOES_ON), rest))
                script = first + "".join(text.removeprefix(_GOES_ON) for text in more)
                where = f"{document.name}:{line}: {first.rstrip()}"
                printed = "".join(rest[len(more) :])
                yield Command(where, script, printed, 0 if left else status, only)


def fits(expected: str, found: str) -> bool:
    """Whether an output is what a document shows; blanks at the end of a line don't matter."""
    pattern = ""
    for line in expected.rstrip().splitlines():
        text = ".*".join(map(re.escape, line.rstrip().split(_ANYTHING)))
        text = _TIME.sub(_ANY_TIME, text)
        pattern += r"(?:.*\n)*" if line.rstrip() == _ANYTHING else rf"{text}\n"
    printed = "".join(f"{line.rstrip()}\n" for line in found.rstrip().splitlines())
    return re.fullmatch(pattern, _PROGRESS.sub("", printed)) is not None


def hold(
    document: Path,
    directory: Path,
    environment: Mapping[str, str],
    *,
    asked: Collection[str] = (),
    instead: Mapping[str, str] = {},
) -> int:
    """Runs a document's commands in a directory, one after the other; says how many there are.

    Args:
        document: a Markdown file.
        directory: where they run.
        environment: what they run with.
        asked: of the blocks with `only=NAME`, the names of those that are run.
        instead: what a test does in place of what a reader does: old words with the new ones.

    Raises:
        AssertionError: one does not end, or does not print, as the document shows it.
    """
    found = list(commands(document))
    for command in found:
        script, expected = command.script, command.expected
        for old, new in instead.items():
            script = script.replace(old, new)
            expected = expected and expected.replace(old, new)
        is_run = not command.only or command.only in asked
        ran = subprocess.run(
            ["bash", "-euc" if is_run else "-nc", script],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = f"{command.where}: ends with {ran.returncode}, and prints:\n{ran.stdout}"
        assert ran.returncode == (command.status if is_run else 0), told
        if is_run and expected is not None:
            assert fits(expected, ran.stdout), f"{told}\nexpected:\n{expected}"
    return len(found)
