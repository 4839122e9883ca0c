"""A GUID partition table with one partition, its copy at the disk's end, and the MBR before it.

The form is that of the UEFI specification 2.10: 5.2.3 (protective MBR), 5.3.2 (header), 5.3.3
(entries), appendix A (GUIDs).
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pybuild import mbr
from pybuild.bootproto import SECTOR

# A BIOS boot partition: GRUB's manual, "BIOS installation". It is for a boot loader's own data.
BIOS_BOOT: Final = UUID("21686148-6449-6E6F-744E-656564454649")
NAME: Final = "bootsplice"

PROTECTIVE: Final = 0xEE
# Signature, revision, header's size, CRC, reserved, LBA of this one and of the other, first and
# last usable LBA, disk's GUID, LBA of the entries, how many, bytes of each, their CRC.
HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
SIGNATURE: Final = b"EFI PART"
_REVISION: Final = 0x00010000
ENTRY: Final = struct.Struct("<16s16sQQQ72s")  # type, GUID, first and last LBA, attributes, name
_ENTRIES: Final = 128  # 16 KiB of them: the least that 5.3.1 allows
_ENTRY_SECTORS: Final = _ENTRIES * ENTRY.size // SECTOR
_MBR_SECTORS: Final = 1
_HEADER_SECTORS: Final = 1

FIRST_USABLE: Final = _MBR_SECTORS + _HEADER_SECTORS + _ENTRY_SECTORS
SECTORS_BEHIND: Final = _ENTRY_SECTORS + _HEADER_SECTORS  # at the disk's end


@dataclass(frozen=True, slots=True)
class Table:
    """What is written where.

    Attributes:
        mbr: the bytes of the boot sector that are the disk's.
        primary: for LBA 1.
        backup: for the disk's last `SECTORS_BEHIND` sectors.
    """

    mbr: bytes
    primary: bytes
    backup: bytes


def table(disk: UUID, partition: UUID, start: int, end: int, sectors: int) -> Table:
    """The table of a disk with one BIOS boot partition.

    Args:
        disk: the disk's GUID.
        partition: the partition's.
        start: its first sector.
        end: the first sector behind it.
        sectors: of the disk.
    """
    last = sectors - 1
    name = NAME.encode("utf-16-le")
    entries = ENTRY.pack(BIOS_BOOT.bytes_le, partition.bytes_le, start, end - 1, 0, name)
    entries += bytes(_ENTRY_SECTORS * SECTOR - len(entries))

    def header(own: int, other: int, entries_at: int) -> bytes:
        crc = 0
        for _ in range(2):  # it is computed with its own field 0
            packed = HEADER.pack(
                *(SIGNATURE, _REVISION, HEADER.size, crc, 0, own, other),
                *(FIRST_USABLE, last - SECTORS_BEHIND, disk.bytes_le),
                *(entries_at, _ENTRIES, ENTRY.size, zlib.crc32(entries)),
            )
            crc = zlib.crc32(packed)
        return packed + bytes(SECTOR - len(packed))

    # 5.2.3 wants the protective entry not active, and that UEFI firmware ignores it if it is. A
    # BIOS may want one active entry before it boots a disk: the same is in the MBR without GPT.
    protective = mbr.Partition(PROTECTIVE, _MBR_SECTORS, sectors)
    return Table(
        mbr=mbr.own_part(0, protective, sectors),  # 5.2.3: the signature is unused, 0
        primary=header(1, last, _MBR_SECTORS + _HEADER_SECTORS) + entries,
        backup=entries + header(last, 1, last - _ENTRY_SECTORS),
    )
