"""Disks with partitions, what is on them, and what they boot."""

import random
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from missing import missing

from pybuild import build, loader, loadtable
from pybuild.bootproto import SECTOR
from pybuild.regions import align_up

MIB = 1 << 20
OWN = slice(0x1B8, 0x1FE)  # of sector 0
BOOT_ID = struct.Struct("<4sQIHB")  # at 4 in sector 0
TABLE = struct.Struct("<IIQ")
ENTRY = struct.Struct("<QQQI12s")


def tool(name: str) -> str:
    """A tool's path; Debian has partitioning tools where only root looks."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return found or missing(f"{name} is not installed")


def sfdisk(path: Path, *options: str, script: str = "") -> None:
    """Writes a table by a script, or changes it; without a wait for a kernel that reads it."""
    command = [tool("sfdisk"), "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never"]
    command += [options[0], str(path), *options[1:]] if options else [str(path)]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def dump(path: Path) -> str:
    """What sfdisk says of a disk."""
    command = [tool("sfdisk"), "--dump", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return text.replace(str(path), "disk")


def patch(path: Path, lba: int, offset: int, data: bytes) -> None:
    """Writes bytes into a sector."""
    with path.open("r+b") as stream:
        stream.seek(lba * SECTOR + offset)
        stream.write(data)


@dataclass(frozen=True)
class Space:
    """A range of sectors."""

    start: int
    end: int


def make(path: Path, script: str, fill: Mapping[int, int], size: int = 24 * MIB) -> None:
    """A disk by an sfdisk script, with noise in some places: first LBA and sectors of each."""
    with path.open("wb") as stream:
        stream.truncate(size)
    sfdisk(path, script=script)
    for start, sectors in fill.items():
        patch(path, start, 0, random.Random(start).randbytes(sectors * SECTOR))


def differing(one: bytes, other: bytes) -> list[int]:
    """The sectors that are not the same on two disks."""
    assert len(one) == len(other)
    return [
        at // SECTOR
        for at in range(0, len(one), SECTOR)
        if one[at : at + SECTOR] != other[at : at + SECTOR]
    ]


def boots(disk: bytes | bytearray) -> str | None:
    """The command line of the payload of ours that a disk boots; None if it boots none.

    Everything is held to the sums and checksums that the guest's loader goes by.
    """
    magic, lba, wanted, sectors, shift = BOOT_ID.unpack_from(disk, 4)
    if magic != b"Bspt":
        return None
    assert shift == 9
    bound = bytes(disk[lba * SECTOR : (lba + sectors) * SECTOR])
    assert loadtable.loader_sum(bound) == wanted
    at = align_up(len(build.code()[loader.LOADER].code), 16)
    count, _, _ = TABLE.unpack_from(bound, at)
    text = None
    for n in range(count):
        start, size, _, checksum, name = ENTRY.unpack_from(bound, at + TABLE.size + n * ENTRY.size)
        if start:
            data = bytes(disk[start * SECTOR : start * SECTOR + size])
            assert loadtable.checksum([data]) == checksum, name
            if name.rstrip(b"\0") == b"cmdline":
                text = data.rstrip(b"\0").decode()
    assert text is not None
    return text
