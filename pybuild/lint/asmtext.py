"""NASM sources as statements: what stands in each line, nothing more.

Nothing is expanded and nothing evaluated: what a `%if` leaves out is read, too, and so is a macro's
body. Any text at all has a reading; it need not be one that NASM takes.
"""

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<string>"[^"]*"|'[^']*'|`(?:\\.|[^`\\])*`)
    |(?P<comment>;.*)
    |(?P<word>[%.$\w?@][%.$\w?@\#~]*)
    |(?P<blank>\s+)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER: Final = re.compile(r"0x[0-9a-f_]+|\$0[0-9a-f_]*|[0-9][0-9a-f_]*h|[0-9_]+d?", re.I)


def names(text: str) -> frozenset[str]:
    """The words of a text, as a set: how tables of mnemonics are written here."""
    return frozenset(text.split())


DATA: Final = frozenset(f"{kind}{size}" for kind in ("d", "res") for size in "bwdqtoyz")
_PREFIXES: Final = names("rep repe repz repne repnz lock o16 o32 o64 a16 a32 a64 es cs ss ds fs gs")


@dataclass(frozen=True, slots=True)
class Statement:
    """A line of a source.

    Attributes:
        number: of the line, from 1.
        label: without its colon; "" if there is none.
        mnemonic: in lower case: an instruction's, a directive or a macro's name; "" if there is
            none. Prefixes are not part of it.
        prefix: the last prefix, `rep` say; "" if there is none.
        operands: as they are written.
        comment: from its semicolon on.
    """

    number: int
    label: str = ""
    mnemonic: str = ""
    prefix: str = ""
    operands: tuple[str, ...] = ()
    comment: str = ""

    @property
    def words(self) -> list[str]:
        """The names and numbers of its operands."""
        return [word for operand in self.operands for word in words(operand)]

    @property
    def is_global(self) -> bool:
        """Whether its label is no other label's."""
        return bool(self.label) and not self.label.startswith((".", "%%"))


def parse(text: str) -> list[Statement]:
    """The statements of a source, one for each line.

    Of lines that are joined by a backslash it is the first's; comments alone stay as they are.
    """
    statements: list[Statement] = []
    lines = text.split("\n")
    while len(statements) < len(lines):
        first = end = len(statements)
        is_comment = lines[first].startswith(";")
        while not is_comment and lines[end].endswith("\\") and end < len(lines) - 1:
            end += 1
        line = "".join([*(part[:-1] for part in lines[first:end]), lines[end]])
        statements.append(_statement(first + 1, line))
        statements += [Statement(number) for number in range(first + 2, end + 2)]
    return statements


def words(text: str) -> list[str]:
    """The names and numbers in an operand; what stands in quotes is neither."""
    return [match.group() for match in _TOKEN.finditer(text) if match.lastgroup == "word"]


def value(word: str) -> int | None:
    """A number as NASM reads it, in base 10 or 16; None if it is none."""
    if not _NUMBER.fullmatch(word):
        return None
    digits = word.lower().replace("_", "")
    hexadecimal = digits.startswith(("0x", "$")) or digits.endswith("h")
    digits = digits.removeprefix("0x").lstrip("$").rstrip("h" if hexadecimal else "d")
    return int(digits, 16 if hexadecimal else 10) if digits else None


def _statement(number: int, line: str) -> Statement:
    found = list(_TOKEN.finditer(line))
    comment = found.pop().group() if found and found[-1].lastgroup == "comment" else ""
    tokens = [match for match in found if match.lastgroup != "blank"]
    label = ""
    if len(tokens) > 1 and tokens[0].lastgroup == "word":
        colon = tokens[1].group() == ":"
        if colon or tokens[1].group().lower() in ("equ", *DATA):
            label = tokens[0].group()
            tokens = tokens[2 if colon else 1 :]
    prefix = ""
    while len(tokens) > 1 and tokens[0].group().lower() in _PREFIXES:
        prefix = tokens.pop(0).group().lower()
    if not tokens:
        return Statement(number, label, prefix=prefix, comment=comment)
    operands = _operands(line, tokens[1:])
    return Statement(number, label, tokens[0].group().lower(), prefix, operands, comment)


def _operands(line: str, tokens: list[re.Match[str]]) -> tuple[str, ...]:
    if not tokens:
        return ()
    cuts, depth = [tokens[0].start()], 0
    for token in tokens:
        depth += (token.group() in ("(", "[")) - (token.group() in (")", "]"))
        if token.group() == "," and depth <= 0:
            cuts += [token.start(), token.end()]
    cuts.append(tokens[-1].end())
    return tuple(line[a:b].strip() for a, b in zip(cuts[::2], cuts[1::2], strict=True))
