"""The loader and the memory map: it goes on exactly where all that it needs is RAM."""

import re
from itertools import pairwise

import pytest
from held import KIB, MIB, examples
from hypothesis import given
from hypothesis import strategies as st
from loading import run_loader, said

from pybuild.emulate.bios import SPOILS, Bios
from pybuild.emulate.biosdisk import Disk, Image
from pybuild.emulate.biosram import RAM, RESERVED, Ram, Range, usable, usual
from pybuild.emulate.memory import TOP
from pybuild.emulate.stages import BOOTSECT, DRIVE, with_parts
from pybuild.loadtable import Entry

pytestmark = pytest.mark.contract("real/loader")

TOO_LITTLE = (
    r"bootsplice: too little memory: (.*) needs 0x([0-9A-F]+) to 0x([0-9A-F]+), "
    r"there is no RAM for it at 0x([0-9A-F]+)\r\n"
)
LOW = Range(0, 0x9FC00)


def hold_decision(ram: Ram, needs: list[tuple[int, int]], *, spoils: bool = False) -> bool:
    """Holds the loader to the model's decision on what it needs, end exclusive; returns it."""
    entries = [Entry(f"need {i}", 0, high - low, low) for i, (low, high) in enumerate(needs)]
    disk = with_parts(Disk(Image(MIB)))
    bios = Bios({DRIVE: disk}, ram, spoils=SPOILS if spoils else frozenset())
    there = usable(ram)
    ranges = [*needs, (BOOTSECT.address, BOOTSECT.end)]
    lacking = [
        (f"need {i}" if i < len(needs) else "bootsect", low, high)
        for i, (low, high) in enumerate(ranges)
        if low < high and not any(a <= low and high <= b for a, b in there)
    ]
    _, outcome = run_loader(bios, entries)
    assert bool(outcome.stopped) == bool(lacking), (there, ranges, bios.screen)
    if lacking:
        name, low, high = lacking[0]
        match = re.fullmatch(TOO_LITTLE, said(bios))
        assert match, bios.screen
        missing = int(match[4], 16)
        assert not disk.calls
        if high <= TOP:
            assert (match[1], int(match[2], 16), int(match[3], 16)) == (name, low, high - 1)
            assert low <= missing < high
            assert not any(a <= missing < b for a, b in there), (there, match[0])
    return not lacking


def edges(draw: st.DrawFn, ram: Ram) -> list[tuple[int, int]]:
    """Ranges that begin and end at, or next to, where something else begins."""
    marks = {0x8000, MIB, 16 * MIB, TOP - 1, 9 * MIB}
    for low, high in usable(ram):
        marks |= {low, high}
    for entry in ram.e820 or ():
        marks |= {entry.base, entry.base + entry.length}
    near = st.sampled_from(sorted(m for m in marks if m <= TOP))
    offset = st.sampled_from((0, 0, 1, -1, 0x1000))
    needs = []
    for _ in range(draw(st.integers(1, 3))):
        ends = sorted(draw(near) + draw(offset) for _ in range(2))
        needs.append((min(max(ends[0], 0), TOP - 1), min(max(ends[1], 0), TOP)))
    return needs


@st.composite
def maps(draw: st.DrawFn) -> Ram:
    """Maps of E820 with whatever BIOSes put there."""
    cuts = sorted(draw(st.sets(st.integers(1, 63), min_size=2, max_size=8)))
    entries = [Range(0, draw(st.sampled_from((0x9FC00, 0xA0000, 640 * KIB - 1))))]
    for low, high in pairwise(cuts):
        base = low * MIB + draw(st.sampled_from((0, 0, 0, 1, 4095)))
        length = (high - low) * MIB + draw(st.sampled_from((0, 0, -1, 1, MIB, -MIB, -2 * MIB)))
        kind = draw(st.sampled_from((RAM, RAM, RAM, RESERVED, 3, 4, 5, 7, 12, 0, 0xFFFF_FFFF)))
        attributes = draw(st.sampled_from((None, None, 1, 0, 3)))
        entries.append(Range(base, max(length, 0), kind, attributes))
    extra = (
        Range(MIB, 0),
        Range(0, 0, RESERVED),
        Range(0x1_0000_0000, 4 << 30),
        Range(0xFFFC_0000, 0x40000, RESERVED),
        Range(0xC000_0000, 1 << 40),
        Range(8 * MIB, (1 << 64) - 8 * MIB),
        Range(20 * MIB, 4 * KIB, 20),
        Range(2 * MIB + 1, 1, RESERVED),
    )
    entries += draw(st.lists(st.sampled_from(extra), max_size=3))
    return Ram(
        e820=draw(st.permutations(entries)),
        e820_end=draw(st.sampled_from(("ebx", "cf", "never"))),
        e801=draw(st.sampled_from((None, (0x3C00, 0x100, 0x3C00, 0x100)))),
    )


@examples(60)
@given(data=st.data())
def test_any_map(data: st.DataObject) -> None:
    ram = data.draw(maps(), "ram")
    needs = edges(data.draw, ram)  # type: ignore[arg-type]
    hold_decision(ram, needs, spoils=data.draw(st.booleans(), "spoils"))


KIBS = st.sampled_from((0, 1, 0x400, 0x3BFF, 0x3C00))
BLOCKS = st.sampled_from((0, 1, 0x30, 0xEF00, 0xFEFF, 0xFF00, 0xFFFF))


@examples(60)
@given(data=st.data())
def test_any_answer_of_the_older_calls(data: st.DataObject) -> None:
    low, high = data.draw(KIBS, "KiB"), data.draw(BLOCKS, "64 KiB")
    answers = st.sampled_from(
        (None, (low, high, 0, 0), (0, 0, low, high), (low, high, low, high), (0, 0, 0, 0))
    )
    ram = Ram(
        e820=data.draw(st.sampled_from((None, (), (Range(3 * MIB, MIB, RESERVED),))), "e820"),
        e820_signature=data.draw(st.sampled_from((0x534D4150, 0, 0x50414D53)), "signature"),
        e801=data.draw(answers, "e801"),
        ah88=data.draw(st.sampled_from((None, 0, 0x3C00, 0xFC00, 0xFFFF)), "ah88"),
        conventional=data.draw(st.sampled_from((512, 639, 640, 31, 32)), "conventional"),
    )
    if ram.e820 == ():
        ram.e820 = None
    needs = edges(data.draw, ram)  # type: ignore[arg-type]
    hold_decision(ram, needs, spoils=data.draw(st.booleans(), "spoils"))


@pytest.mark.parametrize("size", [16, 24, 64, 3072])
def test_ordinary_pcs(size: int) -> None:
    """All of the memory can be used, and not a byte more."""
    high = (size - 1) * MIB
    low, rest = min(high, 15 * MIB) // KIB, max(high - 15 * MIB, 0) // (64 * KIB)
    for ram in (
        Ram(e820=usual(high)),
        Ram(e820=None, e801=(low, rest, low, rest)),
        Ram(e820=None, ah88=min(high // KIB, 0xFFFF)),
    ):
        end = MIB + min(high, 0xFFFF * KIB) if ram.ah88 else size * MIB
        assert hold_decision(ram, [(MIB, end), (0x1000, 0x9FC00)])
        assert not hold_decision(ram, [(MIB, end + 1)])
        assert not hold_decision(ram, [(0x1000, 0x9FC01)])


@pytest.mark.parametrize("blocks", [0xFEFF, 0xFF00, 0xFF01, 0xFFFF])
def test_e801_up_to_4_gib_and_beyond(blocks: int) -> None:
    ram = Ram(e820=None, e801=(0x3C00, blocks, 0x3C00, blocks))
    end = min(16 * MIB + blocks * 64 * KIB, TOP)
    assert hold_decision(ram, [(16 * MIB, end)])
    assert not hold_decision(ram, [(16 * MIB, end + 1)])


def test_a_list_that_never_ends() -> None:
    """What it says is used, and it is not read for ever."""
    ram = Ram(e820=usual(63 * MIB), e820_end="never")
    assert hold_decision(ram, [(MIB, 64 * MIB)])
    assert ram.calls.count(0xE820) <= 256


def test_a_long_list() -> None:
    pages = [Range(2 * MIB + 0x2000 * i, 0x1000) for i in range(100)]
    ram = Ram(e820=[LOW, *pages])
    assert hold_decision(ram, [(page.base, page.base + 0x1000) for page in pages[90:]])
    assert not hold_decision(ram, [(2 * MIB, 2 * MIB + 0x1001)])


def test_pieces_of_ram_side_by_side_are_one() -> None:
    pages = [Range(2 * MIB + 0x1000 * i, 0x1000) for i in range(60)]
    ram = Ram(e820=[*reversed(pages), LOW])
    assert hold_decision(ram, [(2 * MIB, 2 * MIB + 60 * 0x1000)])
    assert not hold_decision(ram, [(2 * MIB, 2 * MIB + 60 * 0x1000 + 1)])


@pytest.mark.parametrize(("address", "size"), [(TOP, 1), (TOP - 1, 2), (MIB, TOP), (1 << 40, 512)])
def test_nothing_is_put_beyond_4_gib(address: int, size: int) -> None:
    ram = Ram(e820=(LOW, Range(MIB, 1 << 50)))
    assert not hold_decision(ram, [(address, address + size)])


def test_parts_that_are_read_must_be_ram_too() -> None:
    bios = Bios({DRIVE: with_parts(Disk(Image(MIB)))}, Ram(e820=usual(MIB)))
    _, outcome = run_loader(bios, [Entry("initrd", 9, 5000, 2 * MIB - 4999)])
    assert outcome.stopped == "halt"
    assert said(bios) == (
        "bootsplice: too little memory: initrd needs 0x1FEC79 to 0x200000, "
        "there is no RAM for it at 0x200000\r\n"
    )
