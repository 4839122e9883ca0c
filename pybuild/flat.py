"""Flat binaries with relocations: guest code that is complete but for the values of its symbols.

A flat binary is two files, `<name>.bin` (the code, every relocated field zero) and
`<name>.rel.json` (its relocations and exported symbols). Binding needs these two only: no
assembler, no object file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from pybuild.errors import BuildError
from pybuild.files import write_file
from pybuild.relocations import BY_NAME, RelocationType

# The symbol of relocations against the binary's own start, where it will lie in memory: NASM's
# name for "the beginning of the current section". No identifier in a source can clash with it.
BASE_SYMBOL: Final = "$$"


@dataclass(frozen=True, slots=True)
class Relocation:
    """A field whose value is still open.

    Attributes:
        offset: bytes from the binary's start.
        type: the ABI's name of the relocation type.
        symbol: the undefined symbol, or BASE_SYMBOL.
        addend: added to the symbol's value.
    """

    offset: int
    type: str
    symbol: str
    addend: int

    @property
    def kind(self) -> RelocationType:
        """The type's rule."""
        return BY_NAME[self.type]


@dataclass(frozen=True)
class FlatBinary:
    """Code whose relocations are open.

    Attributes:
        name: where it comes from, for messages: `i386/relocator`.
        code: the bytes; relocated fields are zero.
        relocations: by offset.
        symbols: exported symbols, as offsets from the start.
        stem: what its files are called but for their suffixes; None if it was read from none.
    """

    name: str
    code: bytes
    relocations: tuple[Relocation, ...]
    symbols: Mapping[str, int] = field(default_factory=dict)
    stem: Path | None = field(default=None, compare=False)

    @property
    def undefined(self) -> frozenset[str]:
        """The symbols that bind() must be given."""
        return frozenset(r.symbol for r in self.relocations) - {BASE_SYMBOL}

    @property
    def needs_base(self) -> bool:
        """Whether the bytes depend on where the binary is loaded."""
        return any(r.symbol == BASE_SYMBOL or r.kind.pc_relative for r in self.relocations)

    def bind(self, symbols: Mapping[str, int], base: int | None = None) -> bytes:
        """Fills every open field.

        Args:
            symbols: the value of each undefined symbol; no more and no fewer.
            base: physical address of the binary's first byte, where needs_base.

        Raises:
            BuildError: a symbol is left open, or given and not used, or a value doesn't fit.
        """
        self._check_symbols(symbols)
        if base is None and self.needs_base:
            raise BuildError(f"{self.name}: its bytes depend on its load address; none was given")
        start = base or 0
        values = {**symbols, BASE_SYMBOL: start}
        code = bytearray(self.code)
        for r in self.relocations:
            code[r.offset : r.offset + r.kind.size] = self.encode(r, values[r.symbol], start)
        return bytes(code)

    def encode(self, r: Relocation, value: int, start: int) -> bytes:
        """The bytes of an open field.

        Args:
            r: one of the relocations.
            value: of its symbol.
            start: physical address of the binary's first byte; only a PC-relative field needs it.

        Raises:
            BuildError: the value doesn't fit.
        """
        value += r.addend
        if r.kind.pc_relative:
            value -= start + r.offset
        return r.kind.encode(value, f"{self.name}: offset {r.offset:#x}: symbol '{r.symbol}'")

    def unbind(self, data: bytes, base: int | None = None) -> dict[str, int] | None:
        """Reads back what this binary was bound to.

        Args:
            data: the bytes.
            base: as of `bind`.

        Returns:
            The value of each undefined symbol, the least that is not negative where a field can
            stand for two; None if `bind` makes these bytes of no values.

        Raises:
            BuildError: as of `bind`, if there is no base.
        """
        if len(data) != len(self.code):
            return None
        start = base or 0
        possible = {BASE_SYMBOL: frozenset((start,))}
        for r in self.relocations:
            place = start + r.offset if r.kind.pc_relative else 0
            stored = r.kind.decode(data[r.offset : r.offset + r.kind.size])
            values = frozenset(value - r.addend + place for value in stored)
            possible[r.symbol] = values & possible.get(r.symbol, values)
        if not all(possible.values()):
            return None
        del possible[BASE_SYMBOL]
        symbols = {
            name: min(values, key=lambda value: (value < 0, abs(value)))
            for name, values in possible.items()
        }
        return symbols if self.bind(symbols, base) == data else None

    def _check_symbols(self, symbols: Mapping[str, int]) -> None:
        for r in self.relocations:
            if r.symbol != BASE_SYMBOL and r.symbol not in symbols:
                low, high = r.kind.bounds()
                raise BuildError(
                    f"{self.name}: offset {r.offset:#x}: symbol '{r.symbol}' is left open, "
                    f"expected a value that {r.type} can hold ({low:#x}..{high:#x})"
                )
        for name, value in sorted(symbols.items()):
            if name not in self.undefined:
                wanted = ", ".join(sorted(self.undefined)) or "none"
                raise BuildError(
                    f"{self.name}: symbol '{name}' (value {value:#x}) is given but never used; "
                    f"it has relocations for: {wanted}"
                )

    def save(self, stem: Path) -> None:
        """Writes `stem`.bin and `stem`.rel.json."""
        table = {
            "relocations": [
                {"offset": r.offset, "type": r.type, "symbol": r.symbol, "addend": r.addend}
                for r in self.relocations
            ],
            "symbols": dict(sorted(self.symbols.items())),
        }
        write_file(binary_path(stem), [self.code])
        write_file(table_path(stem), [json.dumps(table, indent=1).encode() + b"\n"])


def load(name: str, stem: Path) -> FlatBinary:
    """Reads a flat binary from `stem`.bin and `stem`.rel.json.

    Raises:
        BuildError: a file is missing, or the table is damaged.
    """
    try:
        code = binary_path(stem).read_bytes()
        table = json.loads(table_path(stem).read_text())
        relocations, symbols = _parse(table, len(code))
    except OSError as error:
        raise BuildError(f"{error.filename}: {error.strerror}; run `invoke build`") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(
            f"{table_path(stem)}: not a relocation table: {error}; run `invoke build`"
        ) from error
    return FlatBinary(name, code, relocations, symbols, stem)


def _parse(table: object, size: int) -> tuple[tuple[Relocation, ...], dict[str, int]]:
    match table:
        case {"relocations": list(entries), "symbols": dict(symbols)}:
            relocations = tuple(_relocation(entry, size) for entry in entries)
        case _:
            raise ValueError("expected a list `relocations` and an object `symbols`")
    for first, second in pairwise(sorted(relocations, key=lambda r: r.offset)):
        if second.offset < first.offset + first.kind.size:
            raise ValueError(f"two relocations overlap at offset {second.offset:#x}")
    for name, offset in symbols.items():
        if type(offset) is not int or not 0 <= offset <= size:
            raise ValueError(f"symbol '{name}' at {offset!r} is outside the {size} bytes of code")
    return relocations, symbols


def _relocation(entry: object, size: int) -> Relocation:
    match entry:
        case {"offset": int(at), "type": str(kind), "symbol": str(symbol), "addend": int(addend)}:
            r = Relocation(at, kind, symbol, addend)
        case _:
            raise ValueError(f"not a relocation: {entry!r}")
    if bool in (type(r.offset), type(r.addend)) or not r.symbol:
        raise ValueError(f"not a relocation: {entry!r}")
    if r.type not in BY_NAME:
        raise ValueError(f"unknown relocation type '{r.type}'")
    if not 0 <= r.offset <= size - r.kind.size:
        raise ValueError(f"{r.type} at offset {r.offset:#x} is outside the {size} bytes of code")
    return r


def binary_path(stem: Path) -> Path:
    """Where the code of a flat binary is kept."""
    return stem.with_name(stem.name + ".bin")


def table_path(stem: Path) -> Path:
    """Where its relocation table is kept."""
    return stem.with_name(stem.name + ".rel.json")
