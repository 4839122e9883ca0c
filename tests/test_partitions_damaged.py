"""Reading partition tables that are damaged: refused, or harmless."""

import contextlib
import functools
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from disks import patch, sfdisk
from held import examples
from hypothesis import given
from hypothesis import strategies as st
from tables import (
    DISK_SECTORS,
    EBR_AT,
    ENTRY,
    EXTENDED,
    EXTENDED_END,
    as_sfdisk_reads,
    as_we_read,
    blank,
    chain,
    ebr,
    read,
)

from pybuild.bootproto import SECTOR
from pybuild.errors import InputError


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda p: ebr(p, 0, (0x83, 1, DISK_SECTORS)), r"partition 1 ends at sector 409600, .*cut"),
        (lambda p: patch(p, 0, EBR_AT, b"\x41"), "no partition table: entry 1 .* of 0x41, .*"),
        (
            lambda p: ebr(p, 0, (0x5, 10, 10), (0xF, 30, 10)),
            "partitions 1 and 2 are both extended.*",
        ),
        (
            lambda p: ebr(p, EXTENDED + 5000, (0x83, 63, 1000), (0x5, 0, 10)),
            "record at sector 2048: the chain of records comes back to it",
        ),
        (
            lambda p: ebr(p, EXTENDED + 5000, (0x5, 5000, 10)),
            "record at sector 7048: the chain of records comes back to it",
        ),
        (
            lambda p: ebr(p, EXTENDED, (0x5, EXTENDED_END, 10)),
            "record at sector 102048: outside its partition, 2048 to 99999",
        ),
        (
            lambda p: patch(p, EXTENDED + 5000, 510, bytes(2)),
            "record at sector 7048: does not end with 55aa",
        ),
        (
            lambda p: ebr(p, EXTENDED, (0x83, 63, 10), (0x83, 90, 10)),
            "record at sector 2048: has 2 logical partitions and 0 next records, .*",
        ),
        (
            lambda p: ebr(p, EXTENDED, (0x83, 63, EXTENDED_END - EXTENDED)),
            "record at sector 2048: partition 5 ends at sector 100062, outside the extended .*",
        ),
    ],
)
def test_a_damaged_mbr(damage: Callable[[Path], None], why: str) -> None:
    with blank() as path:
        chain(path)
        assert len(read(path).partitions) == 3
        damage(path)
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{why}"):
            read(path)


def test_too_many_logical_partitions() -> None:
    with blank() as path:
        ebr(path, 0, (0x5, EXTENDED, EXTENDED_END - EXTENDED))
        for n in range(300):
            ebr(path, EXTENDED + 10 * n, (0x83, 1, 5), (0x5, 10 * (n + 1), 10))
        with pytest.raises(InputError, match="more than 255 partitions"):
            read(path)


LAST = DISK_SECTORS - 1


@functools.cache
def ends_of_a_gpt(sectors: int) -> tuple[bytes, bytes]:
    """The first and the last sectors of a disk with two partitions by sfdisk."""
    with blank(sectors) as path:
        sfdisk(path, script="label: gpt\nsize=1M\nsize=5M\n")
        whole = path.read_bytes()
        return whole[: 34 * SECTOR], whole[-33 * SECTOR :]


def gpt(path: Path) -> None:
    sectors = path.stat().st_size // SECTOR
    head, tail = ends_of_a_gpt(sectors)
    patch(path, 0, 0, head)
    patch(path, sectors - len(tail) // SECTOR, 0, tail)


def spoil(path: Path, lba: int, offset: int) -> None:
    """Changes a byte whatever it was: a GPT is full of random ones."""
    with path.open("rb") as stream:
        stream.seek(lba * SECTOR + offset)
        (byte,) = stream.read(1)
    patch(path, lba, offset, bytes([byte ^ 0xA5]))


@pytest.mark.parametrize(
    ("lba", "offset"),
    [(1, 0), (1, 12), (1, 16), (1, 24), (1, 40), (1, 80), (2, 3), (2, 40), (33, 511)],
)
def test_the_backup_stands_in_for_a_damaged_gpt(lba: int, offset: int) -> None:
    with blank() as path:
        gpt(path)
        before = as_we_read(path)
        spoil(path, lba, offset)
        assert as_we_read(path) == before == as_sfdisk_reads(path)
        gap = read(path).gap
        assert gap.start == 2048  # sfdisk's first usable sector: what is before it is not known
        spoil(path, LAST, offset)
        if lba == 1:
            with pytest.raises(InputError, match=r"sector 1: .*; backup at sector 40"):
                read(path)


def test_a_disk_that_grew_needs_no_backup_at_its_end() -> None:
    with blank() as path:
        gpt(path)
        before = as_we_read(path)
        with path.open("r+b") as stream:
            stream.truncate(2 * DISK_SECTORS * SECTOR)
        assert as_we_read(path) == before
        patch(path, 1, 0, b"\0")
        with pytest.raises(InputError, match="backup at sector 819199: no header"):
            read(path)


def test_a_protective_partition_elsewhere() -> None:
    with blank() as path:
        gpt(path)
        patch(path, 0, EBR_AT, ENTRY.pack(0, 0xEE, 2, 100))
        with pytest.raises(InputError, match=r"\(type ee\) in sector 0 begins at sector 2, .* 1$"):
            read(path)


@pytest.mark.parametrize("size", [1, 2, 40, 66])
def test_a_gpt_disk_cut_off(size: int) -> None:
    with blank() as path:
        gpt(path)
        with path.open("r+b") as stream:
            stream.truncate(size * SECTOR)
        with pytest.raises(InputError, match="damaged partition table"):
            read(path)


@given(st.integers(0, 1 << 32), st.sampled_from(["mbr", "gpt"]))
@examples(150)
def test_any_damage_is_refused_or_harmless(seed: int, label: str) -> None:
    rng = random.Random(seed)
    with blank(EXTENDED_END) as path:
        if label == "gpt":
            gpt(path)
        else:
            chain(path)
        for _ in range(rng.randint(1, 4)):
            if label == "gpt":
                lba = rng.choice([0, 1, 2, EXTENDED_END - 1, EXTENDED_END - 33])
                offset = rng.choice([EBR_AT + rng.randrange(16), rng.randrange(160)])
            else:
                lba = rng.choice([0, EXTENDED, EXTENDED + 5000])
                offset = EBR_AT + rng.randrange(66)
            patch(path, lba, offset, rng.randbytes(1))
        with contextlib.suppress(InputError):
            table = read(path)
            assert all(0 <= p.start <= p.region.end <= EXTENDED_END for p in table.partitions)
            assert len({p.number for p in table.partitions}) == len(table.partitions)
