"""Disk images of small kernels: made, and taken apart with nothing of ours.

The loader's table is looked for by its entries' form; the checksums are made by another
implementation of XXH32, in plain Python.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakekernel import image

from pybuild import build
from pybuild.build import Order

SECTOR = 512
MASK = 0xFFFFFFFF
P1, P2, P3, P4, P5 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1


def rotated(value: int, by: int) -> int:
    value &= MASK
    return (value << by | value >> (32 - by)) & MASK


def xxh32(data: bytes) -> int:
    """By the specification (doc/xxhash_spec.md in xxHash's sources), seed 0."""
    lanes = [P1 + P2, P2, 0, -P1]
    whole = len(data) // 16 * 16
    for words in struct.iter_unpack("<4I", data[:whole]):
        lanes = [
            rotated(lane + word * P2, 13) * P1 for lane, word in zip(lanes, words, strict=True)
        ]
    sums = (rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
    value = (sum(sums) if whole else P5) + len(data)
    rest = data[whole:]
    for (word,) in struct.iter_unpack("<I", rest[: len(rest) // 4 * 4]):
        value = rotated(value + word * P3, 17) * P4
    for byte in rest[len(rest) // 4 * 4 :]:
        value = rotated(value + byte * P5, 11) * P1
    value &= MASK
    value = (value ^ value >> 15) * P2 & MASK
    value = (value ^ value >> 13) * P3 & MASK
    return value ^ value >> 16


@dataclass(frozen=True)
class Entry:
    name: str
    lba: int
    size: int
    address: int
    checksum: int


@dataclass(frozen=True)
class Image:
    """A raw image taken apart."""

    data: bytes
    block: int  # LBA of the saved sector
    entries: tuple[Entry, ...]
    total: int
    needs: int

    def part(self, name: str) -> bytes:
        (entry,) = (entry for entry in self.entries if entry.name == name)
        return self.data[entry.lba * SECTOR :][: entry.size]


def parse(data: bytes) -> Image:
    magic, lba, loader_sum, sectors, shift = struct.unpack_from("<4sQIHB", data, 4)
    assert (magic, shift) == (b"Bspt", 9)
    assert data[510:512] == b"\x55\xaa"
    loader = data[lba * SECTOR : (lba + sectors) * SECTOR]
    value = 0
    for (word,) in struct.iter_unpack("<I", loader):
        value = rotated(value + word, 13) * 0x9E3779B5 & MASK
    assert value == loader_sum
    # The table ends with the entry of the boot sector, and only zeros are behind it.
    end = loader.rindex(b"bootsect\0\0\0\0") + 12
    assert not any(loader[end:])
    for count in range(1, 30):
        head = end - count * 40 - 16
        found, needs, total = struct.unpack_from("<IIQ", loader, head)
        if found == count and head % 16 == 0:
            break
    else:
        pytest.fail("no table")
    entries = []
    for at in range(head + 16, end, 40):
        lba_, size, address, checksum, name = struct.unpack_from("<QQQI12s", loader, at)
        entries.append(Entry(name.rstrip(b"\0").decode(), lba_, size, address, checksum))
    return Image(data, lba - 1, tuple(entries), total, needs)


def check(made: Image) -> None:
    """What holds for every image."""
    read = [entry for entry in made.entries if entry.lba]
    memory = [entry for entry in made.entries if not entry.lba]
    assert made.entries == (*memory, *read)
    order = ["setup", "cmdline", "early", "kernel", "initrd", "bootsect"]
    names = [entry.name for entry in read]
    assert names == [name for name in order if name in names]
    assert names[-1] == "bootsect"
    assert made.total == sum(entry.size for entry in read)
    taken = sorted((entry.lba, entry.lba + -(-entry.size // SECTOR)) for entry in read)
    for (_, end), (start, _) in pairwise(taken):
        assert end <= start
    assert taken[0][0] > made.block + 1
    for entry in read:
        assert xxh32(made.part(entry.name)) == entry.checksum
        if entry.name in ("kernel", "initrd"):
            assert entry.lba % 8 == 0
        # What pads the last sector is zero, as everything is that is in no part.
        padding = made.data[entry.lba * SECTOR + entry.size : -(-entry.size // SECTOR) * SECTOR]
        assert not any(padding[: -entry.size % SECTOR])
    assert not any(made.data[made.block * SECTOR : (made.block + 1) * SECTOR])


def write(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def make(folder: Path, out: str = "out.img", initrds: tuple[bytes, ...] = (), **given: Any) -> Path:
    """Builds an image of a small kernel."""
    options = given.pop("options", {})
    machine = given.pop("machine", "pc")
    text = given.pop("cmdline", "quiet")
    source = write(folder, "kernel", image(initrd_addr_max=MASK, cmdline_size=2047, **given))
    paths = [write(folder, f"initrd{n}", data) for n, data in enumerate(initrds)]
    order = Order(source, tuple(paths), text, machine, "disk", options=options)
    build.build(order, folder / out)
    return folder / out


def noise(size: int, seed: int = 1) -> bytes:
    return bytes((at * 31 + seed * 7 + at // 251) & 0xFF | 1 for at in range(size))
