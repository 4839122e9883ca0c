"""The headers of a PE file: what they say, and where each field is, so that it can be written.

Source: Microsoft's PE Format. LIEF reads them as well, but doesn't tell where a field is; and what
it writes has zeros in place of a kernel's setup header, up to SizeOfHeaders.
"""

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

Bytes: TypeAlias = bytes | bytearray

# PE Format, "Optional Header": magic numbers, and where each has its data directories, or rather
# the count of them in the 4 bytes before.
_DIRECTORIES: Final = {0x10B: 96, 0x20B: 112}  # PE32, PE32+
CODE_SIZE: Final = 4
DATA_SIZE: Final = 8
ENTRY_POINT: Final = 16
CODE_BASE: Final = 20
DATA_BASE: Final = 24  # PE32 only
SECTION_ALIGNMENT: Final = 32
FILE_ALIGNMENT: Final = 36
IMAGE_SIZE: Final = 56
HEADERS_SIZE: Final = 60
CHECKSUM: Final = 64
CERTIFICATES, BASE_RELOCATIONS, DEBUG = 4, 5, 6  # data directories
_MOST_DIRECTORIES: Final = 16

# PE Format, "Section Table": name, VirtualSize, VirtualAddress, SizeOfRawData, PointerToRawData,
# PointerToRelocations, PointerToLinenumbers, their numbers, Characteristics.
_SECTION: Final = struct.Struct("<8sIIIIIIHHI")
IS_CODE: Final = 0x20


class HeadersError(Exception):
    """The PE headers cannot be kept right: a phrase that says why, whose "they" are the headers."""


@dataclass(frozen=True, slots=True)
class Section:
    """A line of the section table.

    Attributes:
        line: the file offset of it.
        name: with its zeros.
        size: VirtualSize, bytes in memory.
        rva: its address in memory.
        stored: SizeOfRawData, bytes in the file.
        at: its file offset.
        refers: whether it has relocations or line numbers of its own.
        flags: Characteristics.
    """

    line: int
    name: bytes
    size: int
    rva: int
    stored: int
    at: int
    refers: bool
    flags: int

    @property
    def loaded(self) -> int:
        """Bytes that come from the file."""
        return min(self.size or self.stored, self.stored)

    @property
    def end(self) -> int:
        """The RVA behind it."""
        return self.rva + (self.size or self.stored)

    def __str__(self) -> str:
        name = self.name.rstrip(b"\0").decode("ascii", "backslashreplace")
        return f"section {name or 'without a name'}"


class Headers:
    """A PE file's headers, read as they are.

    Attributes:
        sections: the section table, in its order.
        end: the file offset behind the section table.
        has_data_base: whether there is the field DATA_BASE.

    Raises:
        HeadersError: they are of another kind than a kernel's.
        struct.error: they end too early, as from the other methods.
    """

    def __init__(self, data: Bytes) -> None:
        self._data = data
        pe_offset = get(data, 0x3C)
        count, _, symbols, _, size = struct.unpack_from("<HIIIH", data, pe_offset + 6)
        self._optional = pe_offset + 24
        magic = struct.unpack_from("<H", data, self._optional)[0]
        if magic not in _DIRECTORIES:
            raise HeadersError(f"they say neither PE32 nor PE32+: {magic:#x}")
        if symbols:
            raise HeadersError("they have a symbol table")
        self.has_data_base = magic == 0x10B
        self._directories = self._optional + _DIRECTORIES[magic]
        table = self._optional + size
        self.end = table + count * _SECTION.size
        self.sections = [self._section(at) for at in range(table, self.end, _SECTION.size)]

    def _section(self, line: int) -> Section:
        name, size, rva, stored, at, relocations, lines, *_, flags = _SECTION.unpack_from(
            self._data, line
        )
        return Section(line, name, size, rva, stored, at, bool(relocations or lines), flags)

    def offset(self, field: int) -> int:
        """The file offset of a field of the optional header."""
        return self._optional + field

    def __getitem__(self, field: int) -> int:
        return get(self._data, self.offset(field))

    def directory(self, index: int) -> int:
        """The file offset of a data directory, which need not be there."""
        return self._directories + 8 * index

    def directories(self) -> dict[int, tuple[int, int]]:
        """The data directories that aren't empty: address and size by index."""
        count = min(get(self._data, self._directories - 4), _MOST_DIRECTORIES)
        found = {n: struct.unpack_from("<II", self._data, self.directory(n)) for n in range(count)}
        return {n: (address, size) for n, (address, size) in found.items() if size}

    def offset_of(self, rva: int, size: int) -> int:
        """The file offset of what is loaded to an RVA."""
        for section in self.sections:
            if section.rva <= rva and rva + size <= section.rva + section.loaded:
                return section.at + rva - section.rva
        if rva + size <= self[HEADERS_SIZE]:
            return rva
        raise HeadersError(f"they name {size} bytes at {rva:#x}, which no section holds")


def get(data: Bytes, at: int) -> int:
    """The 32 bits at an offset."""
    value: int = struct.unpack_from("<I", data, at)[0]
    return value
