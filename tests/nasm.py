"""What the assembler chain is held to: NASM and GNU ld by themselves, LIEF, pyelftools."""

import re
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_RELOC_TYPE_i386, ENUM_RELOC_TYPE_x64
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from missing import missing

from pybuild import linker
from pybuild.assembler import Tree
from pybuild.flat import BASE_SYMBOL, FlatBinary
from pybuild.regions import align_up

ARCH = {
    bits: f'bits = {bits}\nformat = "{form}"\nenter = "{enter}"\nrelocations = "{table}"\n'
    for bits, form, enter, table in (
        (16, "elf32", "real16", "i386"),
        (32, "elf32", "protected32", "i386"),
        (64, "elf64", "long64", "x86_64"),
    )
}
CONTRACT = """\
; enter     protected32             by a test
; leaves    0x1000
; limit     4096
"""

_EMULATION = {"elf32": "elf_i386", "elf64": "elf_x86_64"}
# pybuild.linker's order of sections, in words that GNU ld understands. It fills gaps between
# sections of code with NOPs unless told otherwise.
_SCRIPT = """\
SECTIONS {{
  .flat {base:#x} : {{
    *(.text .text.*) *(.rodata .rodata.*) *(.data .data.*) *(.bss .bss.*)
  }} =0
}}
"""


def tool(name: str) -> str:
    """Where a program is that only tests need.

    Without it the test is skipped, but fails in CI.
    """
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed (Debian: apt-get install binutils)")
    return found


def assemble(directory: Path, source: str, output_format: str = "elf32") -> Path:
    """The object, or the flat binary for `bin`, that NASM makes from a source text."""
    path = directory / "t.asm"
    path.write_text(source)
    return assemble_file(path, directory, output_format)


def assemble_file(
    source: Path, directory: Path, output_format: str, include: Iterable[Path] = ()
) -> Path:
    """What NASM makes from a source file."""
    output = directory / ("t.bin" if output_format == "bin" else "t.o")
    command = ["nasm", "-f", output_format, *(f"-I{path}/" for path in include)]
    run = subprocess.run(
        [*command, "-o", str(output), str(source)], capture_output=True, text=True, check=False
    )
    assert not run.returncode, run.stderr
    return output


def link(directory: Path, source: str, output_format: str = "elf32") -> FlatBinary:
    """A source text, assembled and linked by the project."""
    return linker.link(assemble(directory, source, output_format), "t/t")


def with_constants(source: str, values: Mapping[str, int], base: int) -> str:
    """An ELF source as one for `nasm -f bin`: each extern is a constant, nothing is exported."""
    text = re.sub(r"(?m)^global .*$", "", source)
    for name, value in values.items():
        text, found = re.subn(rf"(?m)^extern {name}$", f"{name} equ {value}", text)
        assert found == 1, name
    assert not re.search(r"(?m)^extern", text)
    return f"org {base}\n{text}"


def gnu_ld(
    target: Path, values: Mapping[str, int], base: int, output_format: str = "elf32"
) -> bytes | None:
    """The flat binary that GNU ld makes from an object; None if it refuses to."""
    script, output = target.with_suffix(".ld"), target.with_suffix(".flat")
    script.write_text(_SCRIPT.format(base=base))
    command = [tool("ld"), "-m", _EMULATION[output_format], "-T", str(script), "-e", "0"]
    command += ["--oformat", "binary", "-o", str(output), str(target)]
    command += [f"--defsym={name}={value:#x}" for name, value in values.items()]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        assert "truncated to fit" in run.stderr, run.stderr
        return None
    return output.read_bytes()


@dataclass(frozen=True)
class Sections:
    """How an object's sections make a flat binary."""

    offsets: dict[int, int]  # by the section's index
    size: int
    alignment: int  # of the load address


def sections(target: Path) -> Sections:
    """What GNU ld does by _SCRIPT: by kind, those of a kind as the object has them."""
    offsets, end, alignment = {}, 0, 1
    with target.open("rb") as stream:
        elf = ELFFile(stream)
        for kind in (".text", ".rodata", ".data", ".bss"):
            for index, section in enumerate(elf.iter_sections()):
                if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section.name.startswith(kind):
                    own = max(int(section["sh_addralign"]), 1)
                    offsets[index] = align_up(end, own)
                    end = offsets[index] + int(section["sh_size"])
                    alignment = max(alignment, own)
    return Sections(offsets, end, alignment)


def _relocations(elf: ELFFile) -> RelocationSection:
    """The object's relocation table for .text."""
    tables = (s for s in elf.iter_sections() if isinstance(s, RelocationSection))
    return next(s for s in tables if elf.get_section(s["sh_info"]).name == ".text")


def patch_relocation(
    target: Path, *, kind: int | None = None, offset: int | None = None, symbol: int | None = None
) -> None:
    """Changes the first relocation of an object in place."""
    with target.open("rb") as stream:
        elf = ELFFile(stream)
        table = _relocations(elf)
        at, entry = table["sh_offset"], table.get_relocation(0)
        wide = elf.elfclass == 64
    kind = entry["r_info_type"] if kind is None else kind
    symbol = entry["r_info_sym"] if symbol is None else symbol
    offset = entry["r_offset"] if offset is None else offset
    fields = struct.pack(
        "<QQ" if wide else "<II", offset, symbol << 32 | kind if wide else symbol << 8 | kind
    )
    code = bytearray(target.read_bytes())
    code[at : at + len(fields)] = fields
    target.write_bytes(code)


Row = tuple[int, str, str | int, int]


def by_lief(target: Path) -> list[Row]:
    """An object's relocations: offset, type, symbol, addend.

    Where the addend lies in the code (REL), LIEF gives 0 for it. A section's symbol has no name.
    """
    import lief  # slow

    read = lief.ELF.parse(str(target))
    assert read is not None
    rows: list[Row] = []
    for entry in read.relocations:
        assert entry.symbol is not None
        if entry.section is None or "debug" in entry.section.name:
            continue
        name = f"R_{entry.type.name}"
        if not name.startswith("R_X86_64_"):
            name = name.replace("X86", "386")
        symbol = str(entry.symbol.name) or entry.symbol.shndx
        rows.append((entry.address, name, symbol, entry.addend))
    return sorted(rows)


def by_elftools(target: Path) -> tuple[list[Row], list[Row]]:
    """The same by pyelftools, and what of it must stay open, with the addends that REL hides."""
    rows: list[Row] = []
    still_open: list[Row] = []
    with target.open("rb") as stream:
        elf = ELFFile(stream)
        names = ENUM_RELOC_TYPE_x64 if elf.elfclass == 64 else ENUM_RELOC_TYPE_i386
        by_number = {number: name for name, number in names.items()}
        table = _relocations(elf)
        code = elf.get_section(table["sh_info"]).data()
        symbols = elf.get_section(table["sh_link"])
        assert isinstance(symbols, SymbolTableSection)
        offsets = sections(target).offsets
        for entry in table.iter_relocations():
            offset, name = entry["r_offset"], by_number[entry["r_info_type"]]
            symbol = symbols.get_symbol(entry["r_info_sym"])
            size = int(name.rpartition("_")[2].removeprefix("PC").removesuffix("S")) // 8
            hidden = int.from_bytes(code[offset : offset + size], "little", signed=True)
            addend = entry["r_addend"] if entry.is_RELA() else 0
            rows.append((offset, name, symbol.name or symbol["st_shndx"], addend))
            addend = addend if entry.is_RELA() else hidden
            if symbol["st_shndx"] == "SHN_UNDEF":
                still_open.append((offset, name, symbol.name, addend))
            elif "PC" not in name:
                place = offsets[symbol["st_shndx"]] + symbol["st_value"]
                still_open.append((offset, name, BASE_SYMBOL, place + addend))
    return sorted(rows), sorted(still_open)


def make_tree(root: Path, files: Mapping[str, str]) -> Tree:
    """A source tree with these files below asm/; each .asm gets a contract at its head."""
    for name, text in files.items():
        path = root / "asm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_long = files.get(f"{name.partition('/')[0]}/arch.toml") == ARCH[64]
        terms = CONTRACT.replace("protected32", "long64") if is_long else CONTRACT
        path.write_text(terms + text if name.endswith(".asm") else text)
    return Tree(root, root / "build")


class NasmLog:
    """A `nasm` that notes each call and then lets the real one do it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory / "calls"
        self._real = shutil.which("nasm")
        directory.mkdir()
        self.script("")

    def script(self, before: str = "", after: str = "") -> None:
        """Writes it anew, with shell commands to run before and after NASM's own work."""
        path = self.directory / "nasm"
        path.unlink(missing_ok=True)
        path.write_text(
            f'#!/bin/sh\necho "$*" >>{self._log}\n{before}\n{self._real} "$@"\n'
            f"status=$?\n{after}\nexit $status\n"
        )
        path.chmod(0o755)

    def take(self) -> list[str]:
        """The calls since the last time: each one's source, or "-v"."""
        calls = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return [call.rpartition(" ")[2].removeprefix("asm/") for call in calls]
