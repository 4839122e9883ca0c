"""A flat binary beside its source: each byte once, in order, with the line that it comes from.

What the linker has done is in it, as opposed to NASM's listing: the offsets are final, and a field
that is open stands there by its symbol's name, `<src>`; bound, with its bytes: `<src=00 00 20 00>`.
"""

import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice, pairwise
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from pybuild import contract, numbers
from pybuild.assembler import Tree
from pybuild.errors import InputError
from pybuild.flat import BASE_SYMBOL, FlatBinary, Relocation
from pybuild.lines import Line, Lines, load
from pybuild.lint import asmtext

_ROW: Final = 8  # bytes of data in a row
_MOST: Final = 12  # and of an instruction with its fields
_REPEATED: Final = 16  # equal bytes that are shown as one with a count
_WIDTH: Final = 32  # characters of the column of bytes, unless a field's name is longer


class Piece(NamedTuple):
    """Some bytes of a row.

    Attributes:
        data: the bytes; of a field that is open, zeros.
        symbol: what it is a field for, with the addend; "" if it is none.
        bound: whether its bytes are known.
        times: how often the bytes come.
    """

    data: bytes
    symbol: str = ""
    bound: bool = True
    times: int = 1

    @property
    def size(self) -> int:
        """How many bytes of the binary it stands for."""
        return len(self.data) * self.times

    def __str__(self) -> str:
        text = self.data.hex(" ")
        if self.symbol:
            return f"<{self.symbol}={text}>" if self.bound else f"<{self.symbol}>"
        return f"{text} * {self.times}" if self.times > 1 else text


@dataclass(frozen=True)
class Row:
    """A line of the listing.

    Attributes:
        offset: of its first byte, or where the line stands.
        pieces: its bytes; none of a line that is only source, or a symbol.
        line: of the source; None where nothing is known, or the line above goes on.
        text: the source line, or the exported symbol that is here.
    """

    offset: int
    pieces: tuple[Piece, ...] = ()
    line: Line | None = None
    text: str = ""


def address(text: str) -> int:
    """The physical address of `--base`.

    Raises:
        InputError: it is no number.
    """
    try:
        return numbers.parse(text)
    except ValueError as error:
        raise InputError(f"--base: {error}") from error


def of_source(
    tree: Tree, name: str, symbols: Mapping[str, int], base: int | None
) -> Iterator[list[tuple[str, str]]]:
    """The listing of a source that has been built, as render() has it, behind a line of sizes.

    Raises:
        InputError: no source or more than one has this name, or it has no such symbol.
        BuildError: what was built is missing, or a value does not fit its field.
    """
    known = {source.name: source for source in tree.sources()}
    fitting = [name] if name in known else [n for n in known if n.endswith(f"/{name}")]
    if len(fitting) != 1:
        found = f"is {' or '.join(fitting)}: say which" if fitting else "is no source; there are "
        raise InputError(f"'{name}' {found}{'' if fitting else ', '.join(known)}")
    source = known[fitting[0]]
    binary = tree.load(source.name)
    table = load(tree.build / source.name)
    texts = {line.file: (tree.root / line.file).read_text() for line in table.lines}
    rows = make(binary, table, texts, symbols, base)
    main = source.path.relative_to(tree.root).as_posix()
    limit = contract.read(source.path).limit
    yield [(f"{main}: {len(binary.code)} bytes, limit {limit}", "bold")]
    yield from render(rows, main, base)


def make(
    binary: FlatBinary,
    lines: Lines,
    texts: Mapping[str, str],
    symbols: Mapping[str, int],
    base: int | None,
) -> list[Row]:
    """The rows of a flat binary's listing.

    Args:
        binary: the binary.
        lines: its source lines.
        texts: the text of each source that `lines` names.
        symbols: values of undefined symbols; those that are missing stay open.
        base: physical address of the first byte; without it stays open what depends on it.

    Raises:
        InputError: a symbol is none of the binary's.
        BuildError: a value does not fit its field.
    """
    for name in symbols:
        if name not in binary.undefined:
            raise InputError(
                f"{binary.name} has no symbol '{name}' to set; it has: "
                + (", ".join(sorted(binary.undefined)) or "none")
            )
    fields = [
        (r.offset, _field(binary, r, symbols, base))
        for r in sorted(binary.relocations, key=lambda r: r.offset)
    ]
    inside = {at for offset, piece in fields for at in range(offset + 1, offset + piece.size)}
    sources = {name: text.split("\n") for name, text in texts.items()}
    exported = sorted((offset, name) for name, offset in binary.symbols.items())
    reader = _Reader(lines, sources)
    rows: list[Row] = []
    named = 0  # how many of `exported` are in it
    starts = {0, *(line.offset for line in lines.lines), *(at for at, _ in exported)}
    starts = (starts | {len(binary.code)}) - inside
    for start, end in pairwise(sorted(starts)):
        line = lines.at(start)
        if line is not None and line.offset < start:
            line = None  # it goes on
        text = ""
        if line is not None:
            rows += reader.before(line)
            text = reader.text(line)
        for at, name in exported[named:]:
            if at <= start:
                rows.append(Row(start, text=f"global {name}"))
                named += 1
        for offset, pieces in _rows(_parts(binary.code, fields, start, end), start):
            rows.append(Row(offset, pieces, line, text))
            line, text = None, ""
    return [*rows, *(Row(at, text=f"global {name}") for at, name in exported[named:])]


def render(rows: list[Row], main: str, base: int | None) -> Iterator[list[tuple[str, str]]]:
    """The rows as text, each in parts with the name of a style that rich knows; "" is plain.

    Args:
        rows: the rows.
        main: the source; lines of another one, an include file, are marked with its name.
        base: physical address of the first byte; then there is a column of addresses.
    """
    places = [_place(row.line, main) for row in rows]
    most = max(map(len, places), default=0)
    for row, place in zip(rows, places, strict=True):
        start = f"{row.offset:04x}  " + (f"{base + row.offset:08x}  " if base is not None else "")
        parts = [(start if row.pieces else " " * len(start), "")]
        for piece in row.pieces:
            style = "" if not piece.symbol else "bold green" if piece.bound else "bold yellow"
            parts += [(str(piece), style), (" ", "")]
        width = sum(len(str(piece)) + 1 for piece in row.pieces)
        included = row.line is not None and row.line.file != main
        parts.append((" " * (_WIDTH - width) + " ", ""))
        parts.append((place.rjust(most), "cyan" if included else "dim"))
        parts.append((f"  {row.text}", "" if row.line else "bold"))
        while not parts[-1][0].strip():
            parts.pop()
        text, style = parts.pop()
        yield [*parts, (text.rstrip(), style)]


def _place(line: Line | None, main: str) -> str:
    if line is None:
        return ""
    name = "" if line.file == main else f"{PurePosixPath(line.file).name}:"
    return f"{name}{line.number}"


class _Reader:
    """Goes through the sources as the binary does, and has what stands between two lines of it."""

    def __init__(self, lines: Lines, sources: Mapping[str, list[str]]) -> None:
        self._sources = sources
        self._shown: dict[str, int] = {}  # the last line of each file
        self._main = lines.lines[0].file if lines.lines else ""
        self._file = self._main
        self._lines = lines.lines

    def text(self, line: Line) -> str:
        """The text of a line; "" if the file has become shorter."""
        lines = self._sources[line.file]
        return lines[line.number - 1].rstrip() if line.number <= len(lines) else ""

    def before(self, line: Line) -> list[Row]:
        """The source lines without bytes that come before a line, as rows; it is the next one."""
        rows = []
        if self._file == self._main != line.file:  # into an include file, or a macro of one
            rows += self._up_to(Line(line.offset, self._main, self._last_statement(line.offset)))
        rows += self._up_to(Line(line.offset, line.file, line.number - 1))
        self._file = line.file
        self._shown[line.file] = max(line.number, self._shown.get(line.file, 0))
        return rows

    def _last_statement(self, offset: int) -> int:
        """The main file's last statement before its next one with bytes, from an offset on."""
        first = bisect.bisect_left(self._lines, offset, key=lambda line: line.offset)
        to_come = (line for line in islice(self._lines, first, None) if line.file == self._main)
        goes_on = next(to_come, None)
        shown = self._shown.get(self._main, 0)
        gap = self._sources[self._main][shown : goes_on.number - 1 if goes_on else None]
        found = [s.number for s in asmtext.parse("\n".join(gap)) if s.mnemonic]
        return shown + found[-1] if found else shown

    def _up_to(self, last: Line) -> list[Row]:
        lines = self._sources[last.file]
        if last.file not in self._shown:  # what stands above it without an empty line between
            first = last.number
            while 0 < first <= len(lines) and lines[first - 1].strip():
                first -= 1
            self._shown[last.file] = first
        shown = self._shown[last.file]
        self._shown[last.file] = max(shown, last.number)
        return [
            Row(line.offset, (), line, self.text(line))
            for number in range(shown + 1, last.number + 1)
            for line in (Line(last.offset, last.file, number),)
        ]


def _field(
    binary: FlatBinary, r: Relocation, symbols: Mapping[str, int], base: int | None
) -> Piece:
    name = r.symbol + (f"{'+' if r.addend > 0 else '-'}{abs(r.addend):#x}" if r.addend else "")
    values = dict(symbols) if base is None else {**symbols, BASE_SYMBOL: base}
    if r.symbol not in values or (r.kind.pc_relative and base is None):
        return Piece(bytes(r.kind.size), name, bound=False)
    return Piece(binary.encode(r, values[r.symbol], base or 0), name)


def _rows(parts: Iterable[Piece], start: int) -> Iterator[tuple[int, tuple[Piece, ...]]]:
    """Pieces as rows, each with its offset."""
    row: list[Piece] = []
    for part in parts:
        length = sum(piece.size for piece in row)
        most = _MOST if any(piece.symbol for piece in (*row, part)) else _ROW
        if row and length + part.size > most:
            yield start, tuple(row)
            start += length
            row = []
        row.append(part)
    if row:
        yield start, tuple(row)


def _parts(code: bytes, fields: list[tuple[int, Piece]], start: int, end: int) -> Iterator[Piece]:
    """What lies between two offsets, neither of which is inside a field."""
    first = bisect.bisect_left(fields, start, key=lambda field: field[0])
    for offset, piece in islice(fields, first, None):
        if offset >= end:
            break
        yield from _cut(code[start:offset])
        yield piece
        start = offset + piece.size
    yield from _cut(code[start:end])


def _cut(data: bytes) -> Iterator[Piece]:
    """Bytes in pieces of up to a row; many equal ones are one piece."""
    plain = b""
    for byte, group in groupby(data):
        count = len(list(group))
        if count >= _REPEATED:
            yield from _short(plain)
            plain = b""
            yield Piece(bytes([byte]), times=count)
        else:
            plain += bytes([byte]) * count
    yield from _short(plain)


def _short(data: bytes) -> Iterator[Piece]:
    for at in range(0, len(data), _ROW):
        yield Piece(data[at : at + _ROW])
