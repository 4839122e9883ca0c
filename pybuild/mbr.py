"""A disk's own part of its boot sector: the disk signature and the partition table (MBR).

The form is that of the UEFI specification 2.10, section 5.2, tables 5-1 and 5-2.
"""

import struct
from dataclasses import dataclass
from typing import Final

from pybuild import loadtable
from pybuild.splice import DISK_OWN

ACTIVE: Final = 0x80
# "Non-FS data" to fdisk: there is no file system in it, and no system offers to format it as it
# does with types that it knows, or mounts it.
NON_FS_DATA: Final = 0xDA

ENTRY: Final = struct.Struct("<B3sB3sII")  # boot indicator, first CHS, type, last CHS, LBA, sectors
_HEAD: Final = struct.Struct("<IH")  # disk signature, reserved
_LAST_CYLINDER: Final = 1023  # that ten bits hold
_MOST_SECTORS: Final = 0xFFFFFFFF

SIZE: Final = DISK_OWN.stop - DISK_OWN.start  # bytes of a boot sector that are the disk's


@dataclass(frozen=True, slots=True)
class Geometry:
    """How CHS addresses count: heads a cylinder, sectors a track."""

    heads: int
    sectors: int

    @property
    def cylinder(self) -> int:
        """Sectors of a cylinder."""
        return self.heads * self.sectors


# What ATA disks say of themselves, and what a BIOS makes of it ("LBA assist") when the cylinders
# would be too many for int 13h. QEMU and USB BIOSes take a disk's geometry from where its
# partitions end, so they have to end with a cylinder of one of these.
SMALL: Final = Geometry(16, 63)
LARGE: Final = Geometry(255, 63)


@dataclass(frozen=True, slots=True)
class Partition:
    """An entry of the partition table.

    Attributes:
        kind: the partition's type.
        start: its first sector.
        end: the first sector behind it.
    """

    kind: int
    start: int
    end: int


def geometry(sectors: int) -> Geometry:
    """The geometry of a disk of so many sectors."""
    return SMALL if sectors <= (_LAST_CYLINDER + 1) * SMALL.cylinder else LARGE


def chs(lba: int, of: Geometry) -> bytes:
    """A sector's CHS address as the table stores it; the highest that there is if it has none."""
    cylinder, rest = divmod(lba, of.cylinder)
    head, sector = divmod(rest, of.sectors)
    if cylinder > _LAST_CYLINDER:
        cylinder, head, sector = _LAST_CYLINDER, of.heads - 1, of.sectors - 1
    return bytes((head, (sector + 1) | cylinder >> 2 & 0xC0, cylinder & 0xFF))


def own_part(signature: int, partition: Partition, sectors: int) -> bytes:
    """The bytes of a boot sector that are the disk's: one active partition.

    Args:
        signature: the disk signature; not 0, which means that there is none.
        partition: the partition. Where it ends within a cylinder the address that it is given is
            still of that cylinder's last sector: see the geometries.
        sectors: of the disk.
    """
    disk = geometry(sectors)
    last = -(-partition.end // disk.cylinder) * disk.cylinder - 1
    entry = ENTRY.pack(
        ACTIVE,
        chs(partition.start, disk),
        partition.kind,
        chs(last, disk),
        partition.start,
        min(partition.end - partition.start, _MOST_SECTORS),
    )
    return (_HEAD.pack(signature, 0) + entry).ljust(SIZE, b"\0")


def signature(unique: bytes) -> int:
    """A disk signature made from what is the same for the same disk; never 0, which means none."""
    return loadtable.checksum([unique]) or 1
