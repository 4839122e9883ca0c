"""Reading partition tables: what sfdisk and sgdisk make, what sfdisk reads."""

import itertools
import subprocess
from dataclasses import dataclass

import pytest
from disks import patch, sfdisk, tool
from held import examples
from hypothesis import given
from hypothesis import strategies as st
from tables import (
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
        sfdisk(path, script=wanted.script())
        before = as_sfdisk_reads(path)
        assert as_we_read(path) == before
        if before:
            gone = data.draw(st.lists(st.sampled_from([p[0] for p in before]), unique=True))
            numbers = [str(number) for number in sorted(gone, reverse=True)]
            if numbers:
                sfdisk(path, "--delete", *numbers)
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
        sfdisk(path, script="label: dos\nstart=5000, size=100\nstart=300, size=40, bootable\n")
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
        sfdisk(path, script=f"label: {label}\n")
        assert (read(path).partitions, read(path).gap.size) == ((), 0)


def test_a_partition_that_begins_at_0_leaves_no_gap() -> None:
    with blank() as path:
        sfdisk(path, script="label: dos\nstart=2048, size=100\n")
        patch(path, 0, EBR_AT, ENTRY.pack(0, 0x17, 0, 4000))  # as isohybrid writes it
        gap = read(path).gap
        assert gap.size == 0


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
