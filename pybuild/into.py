"""Puts a kernel onto a disk that has something on it already, and takes it off again.

The disk boots what it booted before until its sector 0 is written, which is the last step and one
sector: a run that is killed at any moment changes nothing that anybody sees. So what the disk boots
now is never written over; a new payload goes beside the old one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import installed, partitions, rawdisk, saved
from pybuild.block import Block
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.partitions import FIRST_LOGICAL, Table
from pybuild.plan import Plan
from pybuild.progress import Meter
from pybuild.rawdisk import Disk
from pybuild.regions import Region, clash
from pybuild.saved import Saved
from pybuild.splice import DISK_OWN, Parts, keep_disk_own

_CHUNK: Final = 2048  # sectors read at a time


@dataclass(frozen=True, slots=True)
class _Old:
    """What is on the disk before we write.

    Attributes:
        sector: sector 0.
        original: the boot sector to keep for `restore`.
        kept: our payloads that the disk boots, now or after `restore`.
    """

    sector: bytes
    original: bytes
    kept: tuple[Region, ...]


def put(
    path: Path, number: int | None, plan: Plan, parts: Parts, meter: Meter | None = None
) -> tuple[str, ...]:
    """Puts a payload onto a disk and makes the disk boot it; all else stays as it was.

    Args:
        path: a raw disk image or a block device.
        number: the partition to put it into, whose contents are lost; None for the gap between
            the partition table and the first partition.
        plan: the plan, of a target with a loader.
        parts: the payload's parts.
        meter: is told how much of them is written.

    Returns:
        What the user may want to know, a line each.

    Raises:
        InputError: the disk is none, is in use, is damaged, or has no room.
    """
    with rawdisk.opened(path) as disk:
        table = partitions.read(disk)
        if not table.partitions:
            raise InputError(
                f"{path}: has no partitions, so nothing says which sectors are free; make one and "
                "give it with --partition, or make a new image with -o"
            )
        old = _read_old(disk, table)
        if number is None:
            room, leftovers = _gap(disk, table)
        else:
            room, leftovers = _partition(disk, table, old, number), []
        block = _place(disk, room, old, lambda lba: Block(plan, parts, lba))
        own = Region("payload", block.lba, block.end)
        record = Saved(old.original, own, _claim(own, leftovers, room)).encode()

        # First of all the mark that what follows is ours, if it should remain half-written.
        disk.write(block.lba * SECTOR, record)
        disk.flush()
        with disk.named():
            written = block.write(disk.descriptor, saved=record, onto_zeros=False, meter=meter)
        disk.flush()
        disk.write(0, keep_disk_own(written.boot_sector, old.sector))
        disk.flush()
    notes = [f"{path}: the payload is in sectors {own.start} to {own.end - 1}, in {room.name}"]
    if table.scheme == "mbr" and not any(each.active for each in table.partitions):
        notes.append(
            f"{path}: no partition is active, and some BIOSes boot no such disk; "
            f"`sfdisk --activate {path} N` makes one active"
        )
    return tuple(notes)


def restore(path: Path) -> None:
    """Puts back the boot sector that the first `put` found; the partition table stays as it is.

    Raises:
        InputError: the disk's boot sector is not ours, or the saved one is not intact.
    """
    with rawdisk.opened(path) as disk:
        sector = disk.read(0, 1)
        if not installed.is_ours(sector):
            raise InputError(f"{path}: sector 0 is not bootsplice's: there is nothing to put back")
        try:
            record = installed.record(disk, sector)
        except saved.DamagedError as error:
            raise InputError(
                f"{path}: the saved boot sector is damaged: {error}; sector 0 stays as it is"
            ) from error
        if record is None:
            raise InputError(f"{path}: no boot sector was saved: bootsplice made the whole image")
        disk.write(0, keep_disk_own(record.sector, sector))
        disk.flush()


def _read_old(disk: Disk, table: Table) -> _Old:
    """What there is; our own payloads are not held to their checksums, and kept if damaged, too.

    Raises:
        InputError: nobody knows how far a payload of ours extends.
    """
    sector = disk.read(0, 1)
    original, kept = sector, list[Region]()
    try:
        if installed.is_ours(sector) and (record := installed.record(disk, sector)):
            original = record.sector
            kept.append(record.own)
        if installed.is_ours(original):  # bootsplice made the whole image, this is its first one
            whole = installed.partition(original, table)
            if whole is None:
                raise saved.DamagedError("its payload is in no partition")
            kept.append(whole)
    except saved.DamagedError as error:
        raise InputError(
            f"{disk.name}: sector 0 is bootsplice's, but {error}, so nobody knows which sectors "
            "its payload takes; to give that up, clear the boot code, the disk's first "
            f"{DISK_OWN.start} bytes"
        ) from error
    return _Old(sector, original, tuple(kept))


def _gap(disk: Disk, table: Table) -> tuple[Region, list[Region]]:
    """The gap before the first partition, and where older payloads have left something in it.

    Raises:
        InputError: somebody else's data is in it.
    """
    gap = table.gap
    leftovers: list[Region] = []
    for lba in range(gap.start, gap.end, _CHUNK):
        found = saved.search(disk.read(lba, min(_CHUNK, gap.end - lba)), lba)
        leftovers += [record.claimed for record in found]
    lba = gap.start
    while (lba := _first_used(disk, lba, gap.end)) < gap.end:
        ends = [region.end for region in leftovers if region.contains(lba)]
        if not ends:
            raise InputError(
                f"{disk.name}: sector {lba}, in {gap.name}, is in use (by a boot loader?); "
                "give a partition with --partition"
            )
        lba = max(ends)
    return gap, leftovers


def _first_used(disk: Disk, lba: int, end: int) -> int:
    """The first sector from `lba` on that isn't all zeros, or `end`."""
    while lba < end:
        chunk = disk.read(lba, min(_CHUNK, end - lba))
        blank = len(chunk) - len(chunk.lstrip(b"\0"))
        lba += blank // SECTOR
        if blank < len(chunk):
            break
    return lba


def _partition(disk: Disk, table: Table, old: _Old, number: int) -> Region:
    """A partition that may be written over.

    Raises:
        InputError: there is none, it holds another or the partition table, or it may be what the
            disk boots from.
    """
    wanted = table.partition(number)
    if wanted is None:
        there = ", ".join(str(each.number) for each in table.partitions)
        raise InputError(f"{disk.name}: no partition {number}; there are: {there}")
    region = wanted.region
    if wanted.extended:
        raise InputError(
            f"{disk.name}: partition {number} is extended: it holds the logical ones; "
            "give one of those"
        )
    is_logical = number >= FIRST_LOGICAL and table.scheme == "mbr"
    taken = [
        each.region
        for each in table.partitions
        if each is not wanted and not (is_logical and each.extended)
    ]
    shared = clash([region], [*taken, *table.own])
    if shared is not None:
        raise InputError(
            f"{disk.name}: damaged partition table: partition {number} and {shared[1].name} "
            "have sectors in common"
        )
    boots = installed.others(disk, old.original, table)
    if boots is not None and region.contains(boots.start):
        raise InputError(
            f"{disk.name}: partition {number} has {boots.name} in sector {boots.start}, which the "
            "disk boots now or after `bootsplice restore`; give another partition"
        )
    return region


def _claim(own: Region, leftovers: Sequence[Region], room: Region) -> Region:
    """The sectors that later runs may take for ours, by the record at the new payload's start.

    The payload replaces the records where it lies; what those claimed behind it would look like
    somebody else's data.
    """
    end = max([own.end, *(each.end for each in leftovers if each.overlaps(own))])
    return Region("payloads", own.start, min(end, room.end))


def _place(disk: Disk, room: Region, old: _Old, make: Callable[[int], Block]) -> Block:
    """A place for the payload that has nothing in common with what has to be kept.

    Raises:
        InputError: there is none.
    """
    blocks = [make(lba) for lba in (room.start, *(each.end for each in old.kept))]
    regions = [Region("payload", block.lba, block.end) for block in blocks]
    for block, region in zip(blocks, regions, strict=True):
        inside = room.start <= region.start and region.end <= room.end
        if inside and clash([region], old.kept) is None:
            return block
    line = f"{disk.name}: the payload needs {regions[0].size} sectors, {room.name} has {room.size}"
    if regions[0].end > room.end:
        raise InputError(f"{line}; give a larger partition with --partition")
    used = (f"{each.start} to {each.end - 1}" for each in old.kept if each.overlaps(room))
    instead = "make the image anew with -o"
    if not installed.is_ours(old.original):
        instead = f"give up the old one first: bootsplice restore {disk.name}"
    raise InputError(
        f"{line}, of which {' and '.join(used)} hold what the disk boots until the new one is "
        f"complete; give another partition with --partition, or {instead}"
    )
