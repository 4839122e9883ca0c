"""The loader on a simulated PC: what it reads goes where it belongs, from any drive."""

from collections.abc import Callable

import pytest
from held import KIB, MIB, examples
from hypothesis import given
from hypothesis import strategies as st
from loading import hold_loader
from unicorn import x86_const as x86

from pybuild.emulate.bios import DISK_SPOILS, SPOILS, Bios
from pybuild.emulate.biosdisk import FLOPPY, Disk, Image
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.memory import TOP
from pybuild.emulate.stages import BOOTSECT, DRIVE, Part, noise, plenty, with_parts

pytestmark = pytest.mark.contract("real/loader")

SIZES = (
    *(0, 1, 15, 16, 511, 512, 513, 2047, 2048, 2049),
    *(127 * 512 - 1, 127 * 512, 127 * 512 + 1, 128 * 512),
    *(64 * KIB * n for n in (2, 3, 16)),
)
SECTORS = 1 << 23  # of 512 bytes, on the large ones
BOUNCES = ((0x8000, 64), (0x10000, 127), (0x80000, 127))


def edd() -> Disk:
    return Disk(Image(SECTORS), geometry=None)


def cd() -> Disk:
    return Disk(Image(SECTORS), sector=2048, geometry=None, most=31)


def chs_63() -> Disk:
    return Disk(Image(1024 * 255 * 63), edd="no", geometry=(1024, 255, 63))


def chs_16() -> Disk:
    return Disk(Image(1024 * 16 * 63), edd="no reads", geometry=(1024, 16, 63), dma_boundary=True)


def floppy() -> Disk:
    return Disk(Image(2880), edd="no", geometry=FLOPPY, dma_boundary=True)


DRIVES = (edd, cd, chs_63, chs_16, floppy)
every_drive = pytest.mark.parametrize("drive", DRIVES)


@every_drive
@pytest.mark.parametrize("size", SIZES)
def test_every_size(drive: Callable[[], Disk], size: int) -> None:
    """To low memory, to 1 MiB and to the last bytes below 4 GiB."""
    number = 0 if drive is floppy else DRIVE
    room = 2000 if size > 64 * KIB else 3000
    parts = [
        Part(101, 0x30000, noise(size, 1)) if size <= 64 * KIB else Part(101, MIB, b"x"),
        Part(301, 2 * MIB, noise(size, 2), "initrd"),
    ]
    if drive is not floppy and size:
        parts.append(Part(room + 501, (TOP - size) & -4, noise(size, 3), "top"))
    disk = with_parts(drive(), *parts)
    bios = Bios({number: disk}, plenty())
    hold_loader(parts, bios, drive=number)
    assert bios.floppy_output == (0x0C if drive is floppy else None)


@st.composite
def several_parts(draw: st.DrawFn, sectors: int) -> list[Part]:
    """Parts apart from each other, in memory and on the disk, each in an order of its own."""
    count = draw(st.integers(1, 4))
    lba, places = 200, [0x30000, MIB + 4 * draw(st.integers(0, 9000)), 5 * MIB, TOP - 70 * KIB]
    parts = []
    for number, place in enumerate(draw(st.permutations(places))[:count]):
        size = draw(st.one_of(st.sampled_from(SIZES[:-3]), st.integers(0, 66 * KIB)))
        gap = draw(st.one_of(st.integers(0, 9), st.integers(0, sectors // 5 - 200)))
        address = place + 4 * draw(st.integers(0, 999))
        parts.append(Part(lba + gap, address, noise(size, number), f"part {number}"))
        lba += gap + -(-size // 512)
    return parts


@every_drive
@examples(12)
@given(data=st.data())
def test_any_parts(drive: Callable[[], Disk], data: st.DataObject) -> None:
    disk = drive()
    parts = data.draw(several_parts(disk.image.sectors), "parts")
    bounce = data.draw(st.sampled_from(BOUNCES), "bounce")
    number = 0 if drive is floppy else data.draw(st.sampled_from((0x80, 0x9F, 0xFF)), "drive")
    spoils, disk_spoils = SPOILS, DISK_SPOILS
    if data.draw(st.booleans(), "a good BIOS"):
        spoils = disk_spoils = frozenset()
    with_parts(disk, *parts)
    bios = Bios({number: disk}, plenty(), spoils=spoils, disk_spoils=disk_spoils)
    hold_loader(parts, bios, drive=number, bounce=bounce)


@pytest.mark.parametrize("start", range(4))
def test_a_cd_s_sectors_begin_and_end_anywhere(start: int) -> None:
    for size in (1, 512, 1024, 1025, 2048 * 31 - 512 * start, 2048 * 31, 2048 * 62 + 513):
        part = Part(400 + start, 2 * MIB, noise(size))
        hold_loader([part], Bios({DRIVE: with_parts(cd(), part)}, plenty()))


def test_beyond_2_tib() -> None:
    part = Part(0x1_2345_6789, 2 * MIB, noise(4 * KIB))
    disk = with_parts(Disk(Image(1 << 40), geometry=None), part)
    hold_loader([part], Bios({DRIVE: disk}, plenty()))


def read_sizes(disk: Disk, part: Part) -> list[int]:
    """Sectors a call for the part, but for the one call to know the drive by."""
    reads = [call.sectors for call in disk.reads() if call.lba >= part.lba]
    assert reads.pop(0) == 1
    return reads


def test_calls_are_as_large_as_the_bounce_buffer() -> None:
    part = Part(400, 2 * MIB, noise(MIB))
    for bounce in BOUNCES:
        disk = with_parts(edd(), part)
        hold_loader([part], Bios({DRIVE: disk}, plenty()), bounce=bounce)
        sizes = read_sizes(disk, part)
        assert sizes == [bounce[1]] * (2048 // bounce[1]) + [2048 % bounce[1]] * (bounce[1] == 127)


def test_tracks_are_read_whole() -> None:
    part = Part(2 * 63 + 60, 2 * MIB, noise(200 * 512))
    disk = with_parts(chs_16(), part)
    hold_loader([part], Bios({DRIVE: disk}, plenty()))
    assert read_sizes(disk, part) == [3, 63, 63, 63, 8]


# The machine before the load


@pytest.mark.parametrize(
    ("a20", "tried"),
    [
        ("bios", ["bios"]),
        ("port 92", ["bios", "port 92"]),
        ("keyboard", ["bios", "port 92", "keyboard"]),
    ],
)
def test_the_gate_is_opened(a20: str, tried: list[str]) -> None:
    part = Part(400, MIB, noise(70 * KIB))
    bios = Bios({DRIVE: with_parts(edd(), part)}, plenty(), a20=a20)
    hold_loader([part], bios)
    assert bios.a20_tried == tried


def test_a_64_bit_cpu_for_a_64_bit_kernel() -> None:
    bios = Bios({DRIVE: with_parts(edd())}, plenty(), cpu=x86.UC_CPU_X86_QEMU64)
    hold_loader([], bios, long_mode=True)


@pytest.mark.parametrize("cpu", [x86.UC_CPU_X86_486, x86.UC_CPU_X86_PENTIUM3])
def test_an_old_cpu_for_an_old_kernel(cpu: int) -> None:
    part = Part(400, 2 * MIB, noise(70 * KIB))
    hold_loader([part], Bios({DRIVE: with_parts(edd(), part)}, plenty(), cpu=cpu))


# Progress


def progress(bios: Bios) -> list[int]:
    """The percentages that were shown, one over the other on a line."""
    assert bios.screen == bios.serial
    assert bios.screen.startswith("\rbootsplice: loading ")
    assert bios.screen.endswith("%\r\n")
    shown = [line.removeprefix("bootsplice: loading ") for line in bios.screen.split("\r")[1:-1]]
    return [int(figure.removesuffix("%")) for figure in shown]


@pytest.mark.parametrize("ticks", [0, 12345])
def test_progress_of_a_slow_load(ticks: int) -> None:
    part = Part(400, 2 * MIB, noise(2 * MIB))
    disk = with_parts(edd(), part)
    bios = Bios({DRIVE: disk}, plenty(), seconds_a_read=0.2, ticks=ticks)
    hold_loader([part], bios, quiet=False)
    figures = progress(bios)
    assert figures == sorted(figures)
    assert figures[-1] == 100
    assert len(figures) in range(8, 15)  # one every half second of 6.6


class SlowPorts(Bios):
    """A virtual machine whose ports cost milliseconds, and a line a quarter of a second."""

    def _serve(self, number: int) -> None:
        if number == 0x10:
            self._pass(0.01)
        super()._serve(number)


def test_progress_that_is_dear_is_rare() -> None:
    """Or most of the time would go into it."""
    part = Part(400, 2 * MIB, noise(6 * MIB))
    bios = SlowPorts({DRIVE: with_parts(edd(), part)}, plenty(), seconds_a_read=0.2)
    hold_loader([part], bios, quiet=False)
    figures = progress(bios)
    assert figures == sorted(figures)
    assert figures[-1] == 100
    assert len(figures) in range(5, 9)  # one every 4 seconds of 20


def test_no_figure_is_shown_twice() -> None:
    part = Part(400, 2 * MIB, noise(4 * MIB))
    bios = Bios({DRIVE: with_parts(edd(), part)}, plenty(), seconds_a_read=3)
    hold_loader([part], bios, bounce=(0x8000, 64), quiet=False)
    figures = progress(bios)[:-1]
    assert len(set(figures)) == len(figures) > 90


@pytest.mark.parametrize("before", range(36, 44))
def test_dear_progress_around_midnight(before: int) -> None:
    """The clock begins at 0 again while a line is printed, or between two of them."""
    part = Part(400, 2 * MIB, noise(4 * MIB))
    disk = with_parts(edd(), part)
    bios = SlowPorts({DRIVE: disk}, plenty(), seconds_a_read=0.2, ticks=0x1800B0 - before)
    hold_loader([part], bios, quiet=False)
    assert len(progress(bios)) in range(4, 9)


def test_a_load_around_midnight() -> None:
    part = Part(400, 2 * MIB, noise(2 * MIB))
    bios = Bios({DRIVE: with_parts(edd(), part)}, plenty(), seconds_a_read=0.2, ticks=0x1800B0 - 40)
    hold_loader([part], bios, quiet=False)
    assert progress(bios)[-1] == 100


def test_no_word_of_a_fast_load() -> None:
    part = Part(400, 2 * MIB, noise(2 * MIB))
    bios = Bios({DRIVE: with_parts(edd(), part)}, plenty(), seconds_a_read=0.02)
    hold_loader([part], bios)


def test_the_harness_sees_a_part_in_another_place() -> None:
    part = Part(400, 2 * MIB, noise(4 * KIB))
    disk = with_parts(edd(), part, Part(BOOTSECT.lba, 0, noise(512, 9)))
    disk.image.put(BOOTSECT.lba, BOOTSECT.data)
    with pytest.raises(ContractError, match="gives up"):
        hold_loader([Part(401, part.address, part.data)], Bios({DRIVE: disk}, plenty()))
