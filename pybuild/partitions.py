"""Reads a disk's partition table: MBR with logical partitions, and GPT.

It numbers partitions as Linux does and goes by Linux's rules (block/partitions/msdos.c and efi.c),
but where Linux makes the best of a damaged table this refuses it: somebody is about to write.
All positions are LBAs of 512-byte sectors.
"""

import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pybuild import gpt, mbr
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.rawdisk import BOOT_SIGNATURE, BOOT_SIGNATURE_BYTES, Disk
from pybuild.regions import Region

FIRST_LOGICAL: Final = 5  # in an MBR, the number of the first logical partition

_MBR_ENTRIES: Final = slice(0x1BE, 0x1FE)
_INDICATORS: Final = (0x00, 0x80)
_EXTENDED: Final = (0x05, 0x0F, 0x85)
_MOST_PARTITIONS: Final = 255  # Linux's DISK_MAX_PARTS less the disk itself

_GPT_CRC: Final = slice(16, 20)  # of the header
_GPT_PRIMARY: Final = 1
_MOST_ENTRY_BYTES: Final = 4 << 20  # Linux's KMALLOC_MAX_SIZE
_UNUSED: Final = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    Attributes:
        number: Linux's.
        start: its first LBA.
        sectors: how many.
        type: as sfdisk writes it: hexadecimal digits in an MBR, a GUID in upper case in a GPT.
        active: whether an MBR says that it is what the BIOS boots.
        extended: whether it only holds logical partitions.
    """

    number: int
    start: int
    sectors: int
    type: str
    active: bool = False
    extended: bool = False

    @property
    def region(self) -> Region:
        """Its LBAs."""
        return Region(f"partition {self.number}", self.start, self.start + self.sectors)


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table.

    Attributes:
        scheme: which kind.
        partitions: by number; those of no sectors are left out.
        own: the LBAs that hold the table itself; the first of them begins at 0.
    """

    scheme: Literal["mbr", "gpt"]
    partitions: tuple[Partition, ...]
    own: tuple[Region, ...]

    def partition(self, number: int) -> Partition | None:
        """The partition of this number, if there is one."""
        return next((each for each in self.partitions if each.number == number), None)

    @property
    def gap(self) -> Region:
        """What lies between the table and the first partition; nothing if there is no partition."""
        start = self.own[0].end
        end = min((partition.start for partition in self.partitions), default=start)
        return Region("the gap before the first partition", start, max(start, end))


class _DamagedGptError(Exception):
    """What is wrong with one of the two headers."""


def read(disk: Disk) -> Table:
    """Reads a disk's partition table.

    Raises:
        InputError: there is none, or it is damaged.
    """
    sector = disk.read(0, 1)
    entries = _entries(sector)
    for slot, (indicator, *_) in enumerate(entries, 1):
        if indicator not in _INDICATORS:
            raise InputError(
                f"{disk.name}: no partition table: entry {slot} in sector 0 has a boot indicator "
                f"of {indicator:#04x}, expected 0x00 or 0x80"
            )
    protective = [start for _, kind, start, _ in entries if kind == gpt.PROTECTIVE]
    if not protective:
        return _read_mbr(disk, entries)
    if _GPT_PRIMARY not in protective:
        raise InputError(
            f"{disk.name}: damaged partition table: the protective partition (type ee) in sector "
            f"0 begins at sector {protective[0]}, expected {_GPT_PRIMARY}"
        )
    return _read_gpt(disk)


def damaged_copies(disk: Disk) -> list[str]:
    """What is wrong with either of a GPT's two copies, of which `read` needs one."""
    found = []
    for name, lba in (("GPT", _GPT_PRIMARY), ("GPT's backup", disk.sectors - 1)):
        try:
            _gpt_by_header(disk, lba)
        except _DamagedGptError as error:
            found.append(f"{name}, header at sector {lba}: {error}")
    return found


def _entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """Boot indicator, type, first LBA and sectors of the four entries of a boot record."""
    found = mbr.ENTRY.iter_unpack(sector[_MBR_ENTRIES])
    return [(indicator, kind, lba, size) for indicator, _, kind, _, lba, size in found]


def _read_mbr(disk: Disk, entries: Iterable[tuple[int, int, int, int]]) -> Table:
    primary = [
        Partition(slot, start, size, f"{kind:x}", indicator == mbr.ACTIVE, kind in _EXTENDED)
        for slot, (indicator, kind, start, size) in enumerate(entries, 1)
        if size
    ]
    for partition in primary:
        _check_end(disk, partition)
    own, logical = [Region("the partition table", 0, 1)], list[Partition]()
    extended = [partition for partition in primary if partition.extended]
    if len(extended) > 1:
        raise InputError(
            f"{disk.name}: damaged partition table: partitions {extended[0].number} and "
            f"{extended[1].number} are both extended, and there can be one"
        )
    if extended:
        logical, records = _read_logical(disk, extended[0].region)
        own += records
    return Table("mbr", (*primary, *logical), tuple(own))


def _read_logical(disk: Disk, extended: Region) -> tuple[list[Partition], list[Region]]:
    """The logical partitions, and the extended boot records that say where they are.

    A record has an entry for one logical partition, its start relative to the record, and one for
    the next record, its start relative to the extended partition.
    """
    found: list[Partition] = []
    records: dict[int, Region] = {}
    lba = extended.start
    while True:
        where = f"{disk.name}: damaged partition table: extended boot record at sector {lba}"
        if lba in records:
            raise InputError(f"{where}: the chain of records comes back to it")
        if not extended.contains(lba):
            raise InputError(
                f"{where}: outside its partition, {extended.start} to {extended.end - 1}"
            )
        sector = disk.read(lba, 1)
        if sector[BOOT_SIGNATURE] != BOOT_SIGNATURE_BYTES:
            raise InputError(f"{where}: does not end with {BOOT_SIGNATURE_BYTES.hex()}")
        records[lba] = Region(f"the extended boot record {lba}", lba, lba + 1)
        used = [entry for entry in _entries(sector) if entry[3]]
        links = [start for _, kind, start, _ in used if kind in _EXTENDED]
        data = [entry for entry in used if entry[1] not in _EXTENDED]
        if len(links) > 1 or len(data) > 1:  # nobody agrees on how those would be numbered
            raise InputError(
                f"{where}: has {len(data)} logical partitions and {len(links)} next records, "
                "expected at most one of each"
            )
        for indicator, kind, start, size in data:
            number = FIRST_LOGICAL + len(found)
            partition = Partition(number, lba + start, size, f"{kind:x}", indicator == mbr.ACTIVE)
            if number > _MOST_PARTITIONS:
                raise InputError(f"{where}: more than {_MOST_PARTITIONS} partitions")
            if partition.region.end > extended.end:
                raise InputError(
                    f"{where}: partition {number} ends at sector {partition.region.end - 1}, "
                    f"outside the extended partition, which ends at {extended.end - 1}"
                )
            found.append(partition)
        if not links:
            return found, [*records.values()]
        lba = extended.start + links[0]


def _read_gpt(disk: Disk) -> Table:
    """The table by the first header, or by the backup in the last sector if that is damaged."""
    try:
        return _gpt_by_header(disk, _GPT_PRIMARY)
    except _DamagedGptError as error:
        primary = error
    try:
        return _gpt_by_header(disk, disk.sectors - 1)
    except _DamagedGptError as backup:
        raise InputError(
            f"{disk.name}: damaged partition table: GPT header at sector {_GPT_PRIMARY}: "
            f"{primary}; backup at sector {disk.sectors - 1}: {backup}"
        ) from backup


def _gpt_by_header(disk: Disk, lba: int) -> Table:
    if lba >= disk.sectors:
        raise _DamagedGptError("behind the disk's end")
    sector = disk.read(lba, 1)
    (signature, _, size, crc, _, own_lba, _, first, last, _, entries, count, entry, entries_crc) = (
        gpt.HEADER.unpack_from(sector)
    )
    if signature != gpt.SIGNATURE:
        raise _DamagedGptError("no header")
    if not gpt.HEADER.size <= size <= SECTOR:
        raise _DamagedGptError(f"a header of {size} bytes")
    blanked = sector[: _GPT_CRC.start] + bytes(4) + sector[_GPT_CRC.stop : size]
    if zlib.crc32(blanked) != crc:
        raise _DamagedGptError("the header's checksum is wrong")
    if own_lba != lba:
        raise _DamagedGptError(f"the header says that it is at sector {own_lba}")
    if entry != gpt.ENTRY.size or not 0 < count * entry <= _MOST_ENTRY_BYTES:
        raise _DamagedGptError(f"{count} entries of {entry} bytes")
    end = entries + -(-count * entry // SECTOR)
    usable = Region("usable sectors", first, last + 1)
    if not (0 < first <= last < disk.sectors and entries > _GPT_PRIMARY and end <= disk.sectors):
        raise _DamagedGptError(f"usable sectors {first} to {last}, entries at sector {entries}")
    if usable.overlaps(Region("entries", entries, end)) or usable.contains(lba):
        raise _DamagedGptError(f"usable sectors {first} to {last} hold the table itself")
    array = disk.read(entries, end - entries)[: count * entry]
    if zlib.crc32(array) != entries_crc:
        raise _DamagedGptError("the entries' checksum is wrong")

    # What lies between the table and the first usable sector is free only by the header there.
    table_end = end if lba == _GPT_PRIMARY else first
    own = (
        Region("the partition table", 0, table_end),
        Region("the backup of the partition table", last + 1, disk.sectors),
    )
    return Table("gpt", tuple(_gpt_partitions(disk, array, usable)), own)


def _gpt_partitions(disk: Disk, array: bytes, usable: Region) -> Iterable[Partition]:
    for number, (kind, _, first, last, *_) in enumerate(gpt.ENTRY.iter_unpack(array), 1):
        guid = uuid.UUID(bytes_le=kind)
        if guid == _UNUSED:
            continue
        if not usable.start <= first <= last < usable.end:
            raise InputError(
                f"{disk.name}: damaged partition table: partition {number} is at sectors {first} "
                f"to {last}, outside the usable ones, {usable.start} to {usable.end - 1}"
            )
        yield Partition(number, first, last - first + 1, str(guid).upper())


def _check_end(disk: Disk, partition: Partition) -> None:
    if partition.region.end > disk.sectors:
        raise InputError(
            f"{disk.name}: damaged partition table: partition {partition.number} ends at sector "
            f"{partition.region.end - 1}, but the disk has {disk.sectors} sectors; was it cut off?"
        )
