"""Reading partition tables: what sfdisk and sgdisk make, what sfdisk reads, what is damaged.

sfdisk sleeps for a quarter of a second whenever it has written.
"""

import contextlib
import functools
import itertools
import json
import random
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from disks import patch, sfdisk, tool
from held import examples
from hypothesis import given
from hypothesis import strategies as st

from pybuild import partitions, rawdisk
from pybuild.errors import InputError
from pybuild.loadtable import SECTOR
from pybuild.partitions import Table

MIB = 1 << 20
DISK_SECTORS = 200 * MIB // SECTOR
ENTRY = struct.Struct("<B3xB3xII")
EBR_AT = 0x1BE


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


@dataclass(frozen=True)
class Wanted:
    """A table to make: sizes in sectors, with the types of an MBR or none for a GPT's."""

    label: str
    primary: list[tuple[int, str]]
    logical: list[tuple[int, str]]
    extended: str = "5"

    def script(self) -> str:
        lines = [f"label: {self.label}"]
        lines += [f"size={size}, type={kind}" for size, kind in self.primary]
        if self.logical:
            room = sum(size + 4096 for size, _ in self.logical) + 4096
            lines.append(f"size={room}, type={self.extended}")
            for slot in range(len(self.primary) + 2, 5):  # what follows is logical
                lines.append(f"size=2048, type={slot:x}")
            lines += [f"size={size}, type={kind}" for size, kind in self.logical]
        return "\n".join(lines) + "\n"


SIZES = st.integers(1, 9000)
MBR_TYPES = st.sampled_from(["83", "82", "c", "da", "ef", "7"])
GPT_TYPES = st.sampled_from(["L", "U", "S", "21686148-6449-6E6F-744E-656564454649"])


@st.composite
def tables(draw: st.DrawFn) -> Wanted:
    if draw(st.booleans()):
        return Wanted("gpt", draw(st.lists(st.tuples(SIZES, GPT_TYPES), max_size=12)), [])
    logical = draw(st.lists(st.tuples(SIZES, MBR_TYPES), max_size=12))
    primary = draw(st.lists(st.tuples(SIZES, MBR_TYPES), max_size=3 if logical else 4))
    return Wanted("dos", primary, logical, draw(st.sampled_from(["5", "f", "85"])))


@given(tables(), st.data())
@examples(16)
def test_as_sfdisk_reads_it(wanted: Wanted, data: st.DataObject) -> None:
    with blank() as path:
        sfdisk(path, wanted.script())
        before = as_sfdisk_reads(path)
        assert as_we_read(path) == before
        if before:
            gone = data.draw(st.lists(st.sampled_from([p[0] for p in before]), unique=True))
            numbers = [str(number) for number in sorted(gone, reverse=True)]
            if numbers:
                subprocess.run(
                    [tool("sfdisk"), "-q", "--no-reread", "--delete", path, *numbers], check=True
                )
        assert as_we_read(path) == as_sfdisk_reads(path)


@pytest.mark.parametrize(
    "options",
    [
        ["--new=1:2048:+8M", "--new=3:0:+1M", "--typecode=3:ef02"],
        ["--resize-table=4", "--new=2:4096:+1M"],
        ["--resize-table=400", "--new=400:4096:+1M", "--new=9:9000:+1M"],
        ["--move-main-table=1000", "--new=1:2048:+1M"],
        ["--new=1:2048:+8M", "--new=2:0:+1M", "--hybrid=1:2"],
        ["--set-alignment=1", "--new=1:34:100", "--new=2:101:+1M"],
    ],
    ids=lambda options: options[0],
)
def test_as_sgdisk_makes_it(options: list[str]) -> None:
    with blank() as path:
        subprocess.run([tool("sgdisk"), "--clear", *options, path], check=True, capture_output=True)
        assert as_we_read(path) == as_sfdisk_reads(path) != []


def test_the_gap_of_an_mbr() -> None:
    with blank() as path:
        sfdisk(path, "label: dos\nstart=5000, size=100\nstart=300, size=40, bootable\n")
        table = read(path)
        gap = table.gap
        assert (gap.start, gap.end) == (1, 300)
        assert [p.active for p in table.partitions] == [False, True]


@pytest.mark.parametrize(
    ("options", "gap"),
    [
        (["--new=1:2048:+8M"], (34, 2048)),
        (["--resize-table=400", "--new=7:4096:+1M"], (102, 4096)),
        (["--set-alignment=1", "--new=1:34:100"], (34, 34)),
    ],
)
def test_the_gap_of_a_gpt_begins_behind_its_entries(
    options: list[str], gap: tuple[int, int]
) -> None:
    with blank() as path:
        subprocess.run([tool("sgdisk"), "--clear", *options, path], check=True, capture_output=True)
        found = read(path).gap
        assert (found.start, found.end) == gap


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_no_partition_is_no_gap(label: str) -> None:
    with blank() as path:
        sfdisk(path, f"label: {label}\n")
        assert (read(path).partitions, read(path).gap.size) == ((), 0)


def test_a_partition_that_begins_at_0_leaves_no_gap() -> None:
    with blank() as path:
        sfdisk(path, "label: dos\nstart=2048, size=100\n")
        patch(path, 0, EBR_AT, ENTRY.pack(0, 0x17, 0, 4000))  # as isohybrid writes it
        gap = read(path).gap
        assert gap.size == 0


def ebr(path: Path, lba: int, *entries: tuple[int, int, int]) -> None:
    """An extended boot record: type, start and sectors of its entries."""
    packed = b"".join(ENTRY.pack(0, kind, start, size) for kind, start, size in entries)
    patch(path, lba, EBR_AT, packed.ljust(64, b"\0") + b"\x55\xaa")


EXTENDED, EXTENDED_END = 2048, 100_000


def chain(path: Path) -> None:
    """Two logical partitions in an extended one at EXTENDED."""
    size = EXTENDED_END - EXTENDED
    ebr(path, 0, (0x5, EXTENDED, size))
    ebr(path, EXTENDED, (0x83, 63, 1000), (0x5, 5000, 2000))
    ebr(path, EXTENDED + 5000, (0x83, 63, 1000))


def test_records_without_a_partition_take_no_number() -> None:
    with blank() as path:
        chain(path)
        ebr(path, EXTENDED, (0, 0, 0), (0x5, 5000, 2000))
        ebr(path, EXTENDED + 5000, (0x83, 63, 1000), (0x5, 9000, 2000))
        ebr(path, EXTENDED + 9000, (0, 0, 0), (0x5, 12000, 2000))
        ebr(path, EXTENDED + 12000, (0x5, 3000, 2000), (0x82, 63, 10))  # the other way round
        ebr(path, EXTENDED + 3000, (0x83, 1, 5))  # and backwards
        assert as_we_read(path)[1:] == [
            (5, EXTENDED + 5063, 1000, "83"),
            (6, EXTENDED + 12063, 10, "82"),
            (7, EXTENDED + 3001, 5, "83"),
        ]
        assert as_we_read(path) == as_sfdisk_reads(path)


@given(st.data())
@examples(60)
def test_any_chain_is_as_sfdisk_reads_it(data: st.DataObject) -> None:
    with blank() as path:
        ebr(path, 0, (0x83, 63, 100), (0x5, EXTENDED, EXTENDED_END - EXTENDED))
        places = data.draw(st.lists(st.integers(1, 90), unique=True, max_size=20))
        records = [0, *(1000 * place for place in places)]
        for record, after in itertools.zip_longest(records, records[1:]):
            size, kind = data.draw(st.integers(0, 900)), data.draw(st.sampled_from((0x83, 0xDA)))
            used = [(kind if size else 0, data.draw(st.integers(1, 90)) if size else 0, size)]
            used += [] if after is None else [(data.draw(st.sampled_from((5, 0xF))), after, 1000)]
            ebr(path, EXTENDED + record, *data.draw(st.permutations(used)))
        assert as_we_read(path) == as_sfdisk_reads(path)


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
        sfdisk(path, "label: gpt\nsize=1M\nsize=5M\n")
        whole = path.read_bytes()
        return whole[: 34 * SECTOR], whole[-33 * SECTOR :]


def gpt(path: Path) -> None:
    sectors = path.stat().st_size // SECTOR
    head, tail = ends_of_a_gpt(sectors)
    patch(path, 0, 0, head)
    patch(path, sectors - len(tail) // SECTOR, 0, tail)


@pytest.mark.parametrize(
    ("lba", "offset"),
    [(1, 0), (1, 12), (1, 16), (1, 24), (1, 40), (1, 80), (2, 3), (2, 40), (33, 511)],
)
def test_the_backup_stands_in_for_a_damaged_gpt(lba: int, offset: int) -> None:
    with blank() as path:
        gpt(path)
        before = as_we_read(path)
        patch(path, lba, offset, b"\xa5")
        assert as_we_read(path) == before == as_sfdisk_reads(path)
        gap = read(path).gap
        assert gap.start == 2048  # sfdisk's first usable sector: what is before it is not known
        patch(path, LAST, offset, b"\xa5")
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
