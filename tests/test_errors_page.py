"""docs/errors.md has every message that the tools on the host end with, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import documented
import pytest

from pybuild.paths import ROOT

PAGE: Final = ROOT / "docs/errors.md"
# What takes the text of a message, by its name in the source.
_RAISED: Final = ("InputError", "BuildError", "Unavailable", "UsageError", "refuse", "_fail")
# A message with fewer letters of its own is somebody else's words, and the page cannot have it.
_LETTERS: Final = 5
_HOLE: Final = "\0"


class Template(NamedTuple):
    """A message in the sources, its first line, with a hole for each value."""

    where: str
    text: str

    @property
    def pattern(self) -> str:
        return ".+".join(map(re.escape, _plain(self.text).split(_HOLE)))

    @property
    def has_own_words(self) -> bool:
        return len(re.findall("[A-Za-z]", self.text)) >= _LETTERS

    def __str__(self) -> str:
        return f"{self.where}: {self.text.replace(_HOLE, '...')}"


def _plain(text: str) -> str:
    """Without what Markdown adds."""
    return text.replace("`", "").replace("\\|", "|").removeprefix("bootsplice: ").strip()


def forms(node: ast.expr) -> list[str]:
    """The texts that an expression may have."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            found = [""]
            for value in values:
                found = [left + right for left in found for right in forms(value)]
            return found
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [one + two for one in forms(left) for two in forms(right)]
        case ast.IfExp(body=body, orelse=other):
            return forms(body) + forms(other)
    return [_HOLE]


def templates(source: Path, text: str) -> Iterator[Template]:
    """Every message in a source."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[message, *_]
            ) if name in _RAISED:
                for form in forms(message):
                    first = form.partition("\n")[0]
                    yield Template(f"{source.relative_to(ROOT)}:{node.lineno}", first)


MESSAGES: Final = [
    template
    for source in [*sorted((ROOT / "pybuild").rglob("*.py")), ROOT / "tasks.py"]
    for template in templates(source, source.read_text())
    if template.has_own_words
]


def rows() -> list[str]:
    """The messages on the page: the first cell of each row, which shows nothing but code."""
    found = []
    tokens = documented.tokens(PAGE)
    for row, cell, token in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if (row.type, cell.type) == ("tr_open", "td_open"):
            (code,) = token.children or []
            assert code.type == "code_inline", token.content
            found.append(_plain(code.content))
    return found


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 200
    assert {Path(message.where.partition(":")[0]).parts[0] for message in MESSAGES} == {
        "pybuild",
        "tasks.py",
    }


def test_each_is_on_the_page() -> None:
    shown = rows()
    missing = [
        str(message)
        for message in MESSAGES
        if not any(re.fullmatch(message.pattern, row) for row in shown)
    ]
    assert not missing, "docs/errors.md has no row for:\n" + "\n".join(missing)


def test_the_page_has_no_other() -> None:
    patterns = [message.pattern for message in MESSAGES]
    strange = [row for row in rows() if not any(re.fullmatch(each, row) for each in patterns)]
    assert not strange, "no source has these messages:\n" + "\n".join(strange)


def test_no_message_is_there_twice() -> None:
    assert len(rows()) == len(set(rows()))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise InputError('just this text')", ["just this text"]),
        ("raise BuildError(f'{a}: is missing; give {b}')", ["\0: is missing; give \0"]),
        ("return refuse(f'cut' + f' off: {size!r} {x:#x}')", ["cut off: \0 \0"]),
        (
            "raise errors.InputError(('one' if a else f'two {b}') + why) from e",
            ["one\0", "two \0\0"],
        ),
        ("raise BuildError(f'nasm says:\\n{text}')", ["nasm says:"]),
        ("raise ValueError('another')\nraise InputError", []),
    ],
)
def test_messages_are_found_in_a_source(source: str, found: list[str]) -> None:
    assert [each.text for each in templates(ROOT / "a.py", source)] == found


def test_a_message_is_recognised() -> None:
    pattern = Template("a.py:1", "\0: `x` has \0 bytes; give \0").pattern
    assert re.fullmatch(pattern, "FILE: x has 5 bytes; give another")
    assert not re.fullmatch(pattern, "FILE: x has bytes; give another")
