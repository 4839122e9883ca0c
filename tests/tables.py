"""Partition tables: made by hand, read by us and by sfdisk."""

import contextlib
import json
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from disks import patch, tool

from pybuild import partitions, rawdisk
from pybuild.bootproto import SECTOR
from pybuild.partitions import Table

MIB = 1 << 20
DISK_SECTORS = 200 * MIB // SECTOR
ENTRY = struct.Struct("<B3xB3xII")
EBR_AT = 0x1BE
EXTENDED, EXTENDED_END = 2048, 100_000


def as_sfdisk_reads(path: Path) -> list[tuple[int, int, int, str]]:
    """Number, first LBA, sectors and type of each partition."""
    command = [tool("sfdisk"), "--json", str(path)]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(dump[dump.index("{") :])["partitiontable"].get("partitions", [])
    return [
        (int(p["node"].removeprefix(str(path))), p["start"], p["size"], p["type"])
        for p in found
        if p["size"]  # it shows the last one of a chain of empty records; Linux doesn't
    ]


def read(path: Path) -> Table:
    with rawdisk.opened(path) as disk:
        return partitions.read(disk)


def as_we_read(path: Path) -> list[tuple[int, int, int, str]]:
    return [(p.number, p.start, p.sectors, p.type) for p in read(path).partitions]


@contextlib.contextmanager
def blank(sectors: int = DISK_SECTORS) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "disk.img")
        with path.open("wb") as stream:
            stream.truncate(sectors * SECTOR)
        yield path


def ebr(path: Path, lba: int, *entries: tuple[int, int, int]) -> None:
    """An extended boot record: type, start and sectors of its entries."""
    packed = b"".join(ENTRY.pack(0, kind, start, size) for kind, start, size in entries)
    patch(path, lba, EBR_AT, packed.ljust(64, b"\0") + b"\x55\xaa")


def chain(path: Path) -> None:
    """Two logical partitions in an extended one at EXTENDED."""
    size = EXTENDED_END - EXTENDED
    ebr(path, 0, (0x5, EXTENDED, size))
    ebr(path, EXTENDED, (0x83, 63, 1000), (0x5, 5000, 2000))
    ebr(path, EXTENDED + 5000, (0x83, 63, 1000))
