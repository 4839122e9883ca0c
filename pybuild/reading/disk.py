"""Reads a disk, a floppy, or what `build --into` made of somebody else's disk."""

from pybuild import installed, partitions, saved
from pybuild.errors import InputError
from pybuild.partitions import Table
from pybuild.rawdisk import Disk
from pybuild.reading import code, payload
from pybuild.reading.code import Binaries
from pybuild.reading.found import Image
from pybuild.saved import Saved

_MARK = "sector 0 is a boot sector of bootsplice's"


def read(disk: Disk, binaries: Binaries, size: int) -> Image:
    """What is on a disk that boots a payload of ours.

    Args:
        disk: the disk.
        binaries: the flat binaries.
        size: of its file, bytes.
    """
    sector = disk.read(0, 1)
    first = payload.sector_part(binaries, "boot sector", 0, sector)
    found = payload.read(disk, binaries, sector)
    damage: list[str] = []
    return Image(
        path=disk.name,
        size=size,
        kind="disk",
        mark=_MARK,
        parts=code.suspect((first, *found.parts), payload.TOGETHER),
        kernel=found.kernel,
        changes=found.changes,
        cmdline=found.text,
        table=table(disk, damage),
        record=_record(disk, sector, damage),
        damage=tuple(damage),
    )


def table(disk: Disk, damage: list[str]) -> Table | None:
    """The partition table; what is wrong with it is added to `damage`."""
    try:
        found = partitions.read(disk)
    except InputError as error:
        damage.append(str(error).removeprefix(f"{disk.name}: "))
        return None
    if found.scheme == "gpt":
        damage += partitions.damaged_copies(disk)
    return found


def _record(disk: Disk, sector: bytes, damage: list[str]) -> Saved | None:
    try:
        return installed.record(disk, sector)
    except saved.DamagedError as error:
        damage.append(f"the saved boot sector: {error}")
        return None
