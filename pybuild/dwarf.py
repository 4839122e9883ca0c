"""Puts right what NASM's DWARF says of an object that has code in more than one section.

Its compilation unit goes from the first section that the source puts code into over the size of
all sections. The linker may put another one first (`.text` before `.text.identity`), and gdb then
finds no line of that. So the unit is said to begin where the flat binary does.
"""

import struct
from pathlib import Path
from typing import Final

from elftools.elf.elffile import ELFFile

from pybuild import linker

_ADDEND_AT: Final = 16  # in an entry of an ELF64 relocation table with addends
_QWORD: Final = struct.Struct("<q")
_DWORD: Final = struct.Struct("<I")


def correct(path: Path) -> None:
    """Changes the addresses in an object's .debug_info, which the linker must take."""
    with path.open("r+b") as stream:
        elf = ELFFile(stream)
        changes: dict[int, bytes] = {}
        for table, number, entry, back in linker.debug_relocations(elf, ".debug_info"):
            if entry.is_RELA():
                at = table["sh_offset"] + number * table["sh_entsize"] + _ADDEND_AT
                changes[at] = _QWORD.pack(entry["r_addend"] - back)
            else:
                information = elf.get_section(table["sh_info"])
                at = entry["r_offset"]
                (addend,) = _DWORD.unpack_from(information.data(), at)
                changes[information["sh_offset"] + at] = _DWORD.pack(addend - back & 0xFFFFFFFF)
        for at, data in changes.items():
            stream.seek(at)
            stream.write(data)
