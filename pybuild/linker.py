"""Links one ELF object into a flat binary: lays its sections out and resolves what can be.

pyelftools reads the object; the relocation rules are pybuild/relocations.py's own, because
pyelftools' (made for DWARF) lack the 8- and 16-bit types and wrap in silence.

What stays open: relocations against undefined symbols, and those whose value depends on where
the binary will lie. A PC-relative relocation between two places of the binary is resolved here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import Relocation as ElfRelocation
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, Symbol, SymbolTableSection

from pybuild.errors import BuildError
from pybuild.flat import BASE_SYMBOL, FlatBinary, Relocation
from pybuild.relocations import MACHINES, TABLES, RelocationType

# The order of sections in a flat binary; within each, the object's own order. A flat binary has
# no loader that would clear .bss, so its bytes are there, as zeros.
_ORDER: Final = ("code", "read-only data", "data", "zero-filled data")


@dataclass(frozen=True)
class _Placed:
    """A section and its offset in the flat binary."""

    name: str
    offset: int
    data: bytes


def link(
    path: Path, name: str, relocations: str | None = None, *, shown: Path | None = None
) -> FlatBinary:
    """Links an object file.

    Args:
        path: an ELF32 or ELF64 relocatable object for x86.
        name: the binary's name in messages, `i386/relocator`.
        relocations: the one of relocations.TABLES that it must be for; None is any.
        shown: what messages name in place of an object that is gone by then.

    Raises:
        BuildError: it is no such object, or has a relocation or symbol that a flat binary
            cannot have; the message names object, section, offset, symbol, value and range.
    """
    try:
        with path.open("rb") as stream:
            return _link(ELFFile(stream), shown or path, name, relocations)
    except (ELFError, OSError) as error:
        raise BuildError(f"{path}: not a readable ELF object: {error}") from error


def _link(elf: ELFFile, path: Path, name: str, relocations: str | None) -> FlatBinary:
    machines = [TABLES[relocations]] if relocations else list(MACHINES)
    machine = elf["e_machine"]
    if elf["e_type"] != "ET_REL" or machine not in machines:
        raise BuildError(
            f"{path}: {elf['e_type']} for {machine}, expected a relocatable object (ET_REL) "
            f"for {' or '.join(machines)}"
        )
    placed = place_sections(elf)
    names = {index: section.name for index, section in enumerate(elf.iter_sections())}
    code = bytearray(max((s.offset + len(s.data) for s in placed.values()), default=0))
    for section in placed.values():
        code[section.offset : section.offset + len(section.data)] = section.data
    symbols = [
        symbol
        for section in elf.iter_sections()
        if isinstance(section, SymbolTableSection)
        for symbol in section.iter_symbols()
    ]
    open_relocations: list[Relocation] = []
    for table in elf.iter_sections():
        if isinstance(table, RelocationSection) and table["sh_info"] in placed:
            target = placed[table["sh_info"]]
            for entry in table.iter_relocations():
                fixup = _Fixup(path, machine, code, placed, names, target, symbols, entry)
                fixup.apply(open_relocations)
    open_relocations.sort(key=lambda r: r.offset)
    exports = _exports(path, symbols, placed, names)
    return FlatBinary(name, bytes(code), tuple(open_relocations), exports)


def place_sections(elf: ELFFile) -> dict[int, _Placed]:
    """Lays the allocated sections out, by section index."""
    groups: dict[str, list[tuple[int, Section]]] = {group: [] for group in _ORDER}
    for index, section in enumerate(elf.iter_sections()):
        flags = section["sh_flags"]
        if flags & SH_FLAGS.SHF_ALLOC:
            groups[_group(section, flags)].append((index, section))
    placed: dict[int, _Placed] = {}
    offset = 0
    for group in _ORDER:
        for index, section in groups[group]:
            alignment = max(section["sh_addralign"], 1)
            offset += -offset % alignment
            data = bytes(section["sh_size"]) if group == _ORDER[-1] else section.data()
            placed[index] = _Placed(section.name, offset, data)
            offset += len(data)
    return placed


def debug_relocations(
    elf: ELFFile, section: str
) -> Iterator[tuple[RelocationSection, int, ElfRelocation, int]]:
    """The relocations of a section of debugging information, of an object that link() takes.

    Yields:
        The table, each entry's number in it and the entry, and the offset in the flat binary of
        the section that it is against; 0 if that is no part of it.
    """
    placed = place_sections(elf)
    for table in elf.iter_sections():
        if not isinstance(table, RelocationSection):
            continue
        if elf.get_section(table["sh_info"]).name != section:
            continue
        symbols = elf.get_section(table["sh_link"])
        assert isinstance(symbols, SymbolTableSection)  # noqa: S101  ELF says so
        for number, entry in enumerate(table.iter_relocations()):
            against = placed.get(symbols.get_symbol(entry["r_info_sym"])["st_shndx"])
            yield table, number, entry, against.offset if against else 0


def _group(section: Section, flags: int) -> str:
    if section["sh_type"] == "SHT_NOBITS":
        return "zero-filled data"
    if flags & SH_FLAGS.SHF_EXECINSTR:
        return "code"
    return "data" if flags & SH_FLAGS.SHF_WRITE else "read-only data"


def _exports(
    path: Path, symbols: list[Symbol], placed: dict[int, _Placed], names: dict[int, str]
) -> dict[str, int]:
    exports: dict[str, int] = {}
    for symbol in symbols:
        section = symbol["st_shndx"]
        if symbol["st_info"]["bind"] == "STB_LOCAL" or section == "SHN_UNDEF":
            continue
        if section not in placed:
            raise BuildError(
                f"{path}: symbol '{symbol.name}' (value {symbol['st_value']:#x}) is exported from "
                f"{names.get(section, section)}; a flat binary exports only labels in its sections "
                "(put a constant into an include file instead)"
            )
        exports[symbol.name] = placed[section].offset + symbol["st_value"]
    return exports


@dataclass(frozen=True)
class _Fixup:
    """One entry of a relocation table, with all that its value depends on."""

    path: Path
    machine: str
    code: bytearray
    placed: dict[int, _Placed]
    names: dict[int, str]
    section: _Placed
    symbols: list[Symbol]
    entry: ElfRelocation

    def apply(self, still_open: list[Relocation]) -> None:
        """Resolves the entry in `code`, or adds it to the relocations that stay open."""
        kind, symbol = self._kind(), self._symbol()
        place = self.section.offset + self.entry["r_offset"]
        field = slice(place, place + kind.size)
        if self.entry["r_offset"] + kind.size > len(self.section.data):
            raise BuildError(f"{self._where(symbol)}: {kind.name} lies outside the section")
        addend = (
            self.entry["r_addend"]
            if self.entry.is_RELA()
            else int.from_bytes(self.code[field], "little", signed=True)
        )
        self.code[field] = bytes(kind.size)
        if self.entry["r_info_sym"] == 0:
            raise BuildError(
                f"{self._at()}: {kind.name} against an absolute address, which a flat binary "
                "cannot have; give it a name by `extern` and its value when binding"
            )
        if symbol["st_shndx"] == "SHN_UNDEF":
            still_open.append(Relocation(place, kind.name, symbol.name, addend))
            return
        if symbol["st_shndx"] not in self.placed:
            raise BuildError(
                f"{self._where(symbol)}: {kind.name} against "
                f"{self.names.get(symbol['st_shndx'], symbol['st_shndx'])}, "
                "expected an undefined symbol or a label in a section with contents"
            )
        offset = self.placed[symbol["st_shndx"]].offset + symbol["st_value"] + addend
        if kind.pc_relative:
            self.code[field] = kind.encode(offset - place, self._where(symbol))
        else:
            still_open.append(Relocation(place, kind.name, BASE_SYMBOL, offset))

    def _kind(self) -> RelocationType:
        number = self.entry["r_info_type"]
        kind = MACHINES[self.machine].get(number)
        if kind is None:
            known = ", ".join(k.name for k in MACHINES[self.machine].values())
            raise BuildError(
                f"{self._where(self._symbol())}: unknown relocation type "
                f"{number} of {self.machine}, expected one of {known}"
            )
        return kind

    def _where(self, symbol: Symbol) -> str:
        name = symbol.name or self.names.get(symbol["st_shndx"], "?")
        return f"{self._at()}: symbol '{name}'"

    def _at(self) -> str:
        return f"{self.path}: {self.section.name}+{self.entry['r_offset']:#x}"

    def _symbol(self) -> Symbol:
        index: int = self.entry["r_info_sym"]
        if index >= len(self.symbols):
            raise BuildError(f"{self._at()}: symbol {index} of {len(self.symbols)}")
        return self.symbols[index]
