"""The load table: what the loader reads, where from, where to, and how it knows that it is right.

It lies behind the loader's code, and `asm/include/loadtable.inc` has the same structures for the
loader; a test proves the two equal.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

ALIGNMENT: Final = 16  # of the table, behind the loader's code
NEEDS_LONG_MODE: Final = 0x01
_HEADER: Final = struct.Struct("<IIQ")  # load_table: entries, needs, total
_NAME_SIZE: Final = 12  # with its NUL
_ENTRY: Final = struct.Struct(
    f"<QQQI{_NAME_SIZE}s"
)  # load_entry: lba, size, address, checksum, name
SUM_ROTATE: Final = 13  # bits
SUM_FACTOR: Final = 0x9E3779B5
_DWORD: Final = struct.Struct("<I")

# What marks a boot sector as ours: struc boot_id, at BOOT_ID_AT.
BOOT_ID: Final = struct.Struct("<4sQIHB")  # magic, loader_lba, _sum, _sectors, sector_shift
BOOT_ID_AT: Final = 4
BOOT_ID_MAGIC: Final = b"Bspt"
_DWORD_MASK: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes:
        name: for the loader's messages; at most 11 ASCII characters.
        lba: where it begins, in sectors of 512 bytes from the start of the disk; 0 if nothing is
            read, and it only has to be RAM.
        size: bytes.
        address: physical, where it goes.
        checksum: of its bytes, as `Checksum` makes it.
    """

    name: str
    lba: int
    size: int
    address: int
    checksum: int = 0


class Checksum:
    """The checksum of a part: XXH32 with seed 0.

    It sees swapped, repeated and missing sectors (each word's place counts) and any change within
    four bytes for certain. It is chosen for its cost in the guest; docs/performance.md has that
    measured beside CRC-32.
    """

    def __init__(self) -> None:
        self._state = xxhash.xxh32()

    def update(self, chunk: bytes | memoryview) -> None:
        """Takes in the next bytes."""
        self._state.update(chunk)

    @property
    def value(self) -> int:
        """The checksum of all bytes so far."""
        return self._state.intdigest()


def checksum(chunks: Iterable[bytes | memoryview]) -> int:
    """The checksum of these bytes, one behind the other."""
    state = Checksum()
    for chunk in chunks:
        state.update(chunk)
    return state.value


def size(entries: int) -> int:
    """Bytes of a table with so many entries."""
    return _HEADER.size + entries * _ENTRY.size


def encode(entries: Sequence[Entry], *, long_mode: bool) -> bytes:
    """The table's bytes.

    Args:
        entries: in the order in which they are read.
        long_mode: whether the kernel is a 64-bit one.
    """
    total = sum(entry.size for entry in entries if entry.lba)
    table = [_HEADER.pack(len(entries), NEEDS_LONG_MODE if long_mode else 0, total)]
    for e in entries:
        if len(e.name) >= _NAME_SIZE:
            raise AssertionError(f"{e.name!r} is too long a name for a part")
        table.append(_ENTRY.pack(e.lba, e.size, e.address, e.checksum, e.name.encode("ascii")))
    return b"".join(table)


def decode(data: bytes) -> tuple[Entry, ...] | None:
    """The entries of a table: what `encode` made `data` begin with; None if that is no table."""
    try:
        count, _, total = _HEADER.unpack_from(data)
        raw = [_ENTRY.unpack_from(data, size(n)) for n in range(count)]
        entries = tuple(
            Entry(_name(name), lba, size, address, checksum)
            for lba, size, address, checksum, name in raw
        )
    except (struct.error, ValueError):
        return None
    return entries if total == sum(entry.size for entry in entries if entry.lba) else None


def find(loader: bytes) -> tuple[Entry, ...] | None:
    """The entries of the table behind a loader's code, whatever the code's size.

    Args:
        loader: its bytes with the table, and only zeros behind that.

    Returns:
        None if there is no table that ends where the zeros begin.
    """
    for at in range(0, len(loader), ALIGNMENT):
        entries = decode(loader[at:])
        if entries and not any(loader[at + size(len(entries)) :]):
            return entries
    return None


def _name(field: bytes) -> str:
    name, end, rest = field.partition(b"\0")
    if not name or not end or any(rest) or not name.decode("ascii").isprintable():
        raise ValueError(f"{field!r} is no name")
    return name.decode("ascii")


def loader_sum(loader: bytes) -> int:
    """What the boot sector holds the loader to: simple enough to compute in a few instructions.

    Args:
        loader: its bytes with the table, a multiple of 4.
    """
    total = 0
    for (word,) in _DWORD.iter_unpack(loader):
        total = (total + word) & _DWORD_MASK
        total = (total << SUM_ROTATE | total >> 32 - SUM_ROTATE) * SUM_FACTOR & _DWORD_MASK
    return total
