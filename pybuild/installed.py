"""What a disk boots: a payload of ours, or somebody else's code."""

import struct
from typing import Final

from pybuild import saved
from pybuild.loadtable import BOOT_ID, BOOT_ID_AT, BOOT_ID_MAGIC
from pybuild.partitions import Table
from pybuild.rawdisk import BOOT_SIGNATURE, BOOT_SIGNATURE_BYTES, Disk
from pybuild.regions import Region
from pybuild.saved import Saved
from pybuild.splice import DISK_OWN

# GRUB's boot.img: its include/grub/i386/pc/boot.h, GRUB_BOOT_MACHINE_KERNEL_SECTOR.
_GRUB_CORE: Final = struct.Struct("<Q")
_GRUB_CORE_AT: Final = 0x5C
_GRUB_TEXT: Final = b"GRUB \0Geom\0Hard Disk\0Read\0 Error"


def is_ours(sector: bytes) -> bool:
    """Whether this is a boot sector of ours."""
    return sector.startswith(BOOT_ID_MAGIC, BOOT_ID_AT)


def record(disk: Disk, sector: bytes) -> Saved | None:
    """What `--into` saved for a boot sector of ours.

    Returns:
        None if nothing was saved, since the image was made whole.

    Raises:
        saved.DamagedError: what is there is no such record.
    """
    lba = _record_lba(sector)
    if not 0 < lba < disk.sectors:
        raise saved.DamagedError(f"sector {lba} is none of the disk's")
    found = disk.read(lba, 1)
    return saved.decode(found, lba) if any(found) else None


def partition(sector: bytes, table: Table) -> Region | None:
    """The partition that the payload of a boot sector of ours is in; None if it is in none."""
    lba = _record_lba(sector)
    regions = (each.region for each in table.partitions if not each.extended)
    return next((region for region in regions if region.contains(lba)), None)


def _record_lba(sector: bytes) -> int:
    """The record is in the sector before the loader."""
    _, loader, *_ = BOOT_ID.unpack_from(sector, BOOT_ID_AT)
    return int(loader) - 1


def others(disk: Disk, sector: bytes, table: Table) -> Region | None:
    """What somebody else's code in sector 0 goes on with: its first sector, named for a message.

    It is None if there is no such code, and for code that nobody here knows.
    """
    code = sector[: DISK_OWN.start]
    if is_ours(sector) or not any(code):
        return None
    if _GRUB_TEXT in code:
        (lba,) = _GRUB_CORE.unpack_from(code, _GRUB_CORE_AT)
        return Region("GRUB's core.img", lba, lba + 1)
    for partition in table.partitions:
        start = partition.start
        if partition.active and disk.read(start, 1)[BOOT_SIGNATURE] == BOOT_SIGNATURE_BYTES:
            return Region("the active partition's boot sector", start, start + 1)
    return None
