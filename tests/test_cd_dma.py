"""The loader and CDs at a PCI IDE controller: read by DMA, or by the BIOS where anything is odd."""

from typing import Any

import pytest
from held import KIB, MIB, examples
from hypothesis import given
from hypothesis import strategies as st
from idechannel import IDENTITY, Channel, Drive
from idedrive import IdeBios
from loading import hold_loader, run_loader, said

from pybuild.emulate.biosdisk import Disk, Image
from pybuild.emulate.memory import TOP
from pybuild.emulate.stages import Part, noise, plenty, with_parts

pytestmark = pytest.mark.contract("real/loader")

CD = 0xE0
SECTORS = 1 << 22  # of 512 bytes
A_PART = Part(4 * 0x901, 2 * MIB, noise(150 * KIB + 77))
PLACES = [(channel, device) for channel in (0, 1) for device in (0, 1)]
# What the BIOS reads of a CD that is then read by DMA: one to see that it can, two to compare.
PROBES = 3
PROBE_READS = 2  # by DMA
RESET = 0x00


def cd(*parts: Part) -> Disk:
    drive = Disk(Image(SECTORS), sector=2048, geometry=None, most=31)
    return with_parts(drive, *(parts or (A_PART,)))


def a_disk() -> Drive:
    return Drive.disk(Image(SECTORS))


def machine(
    disk: Disk, *drives: Drive, places: list[tuple[int, int]] | None = None, **more: object
) -> IdeBios:
    """The CD is the BIOS's drive 0xE0; the drives are at these places, or from the first on."""
    channels = (Channel({}), Channel({}))
    for drive, (channel, device) in zip(drives, places or PLACES, strict=False):
        channels[channel].drives[device] = drive
    return IdeBios({CD: disk}, plenty(), channels=channels, **more)  # type: ignore[arg-type]


def hold(bios: IdeBios, *parts: Part, **more: object) -> None:
    """That all is read, and the hardware is as it was."""
    hold_loader(parts or (A_PART,), bios, drive=CD, **more)  # type: ignore[arg-type]
    bios.check_untouched("enters the boot sector", command=True)


def by_dma(bios: IdeBios) -> bool:
    return len(bios.drives[CD].reads()) == PROBES


@pytest.mark.parametrize("place", PLACES)
def test_a_cd_is_read_by_dma_wherever_it_is(place: tuple[int, int]) -> None:
    disk = cd()
    drive = Drive(disk.image)
    bios = machine(disk, drive, places=[place])
    hold(bios)
    assert by_dma(bios)
    assert not disk.count(RESET)
    assert drive.reads[0] == (0, 1)
    assert len(drive.reads) == PROBE_READS + 3  # the part, its last bytes, the boot sector


@pytest.mark.parametrize("start", range(4))
def test_parts_begin_and_end_anywhere_in_a_sector(start: int) -> None:
    for size in (1, 512, 1024, 1025, 2048 * 31 - 512 * start, 64 * KIB, 2 * MIB + 513):
        part = Part(400 + start, 3 * MIB + 4, noise(size))
        bios = machine(disk := cd(part), Drive(disk.image))
        hold(bios, part)
        assert by_dma(bios)


@st.composite
def several_parts(draw: st.DrawFn) -> list[Part]:
    lba, parts = 200, []
    for number, place in enumerate((0x50000, MIB, 5 * MIB, TOP - 200 * KIB)):
        size = draw(st.one_of(st.integers(0, 4 * KIB), st.integers(0, 128 * KIB)))
        lba += draw(st.integers(0, 9))
        address = place + 4 * draw(st.integers(0, 9000))
        parts.append(Part(lba, address, noise(size, number), f"part {number}"))
        lba += -(-size // 512)
    return draw(st.permutations(parts))


@examples(12)
@given(parts=several_parts(), place=st.sampled_from(PLACES), high=st.booleans())
def test_any_parts(parts: list[Part], place: tuple[int, int], high: bool) -> None:
    bios = machine(disk := cd(*parts), Drive(disk.image), places=[place])
    hold(bios, *parts, bounce=(0x80000, 127) if high else (0x8000, 64))
    assert by_dma(bios)


def test_large_reads_are_few() -> None:
    part = Part(400, 2 * MIB, noise(3 * MIB))
    bios = machine(disk := cd(part), drive := Drive(disk.image))
    hold(bios, part)
    assert by_dma(bios)
    assert [sectors for _, sectors in drive.reads[PROBE_READS:]] == [512, 512, 512, 1]


# Which drive it is


def other_cd() -> Drive:
    """Its sectors are others, but for the first."""
    image = Image(SECTORS)
    image.put(A_PART.lba, noise(2048, 3))
    return Drive(image)


def test_the_drive_is_found_among_others() -> None:
    disk = cd()
    others = (a_disk(), other_cd(), Drive())  # a disk, another CD, none inserted
    bios = machine(disk, *others, right := Drive(disk.image))
    hold(bios, quiet=False)
    assert by_dma(bios)
    assert [len(each.reads) for each in others] == [0, PROBE_READS, 1]
    assert len(right.reads) > PROBE_READS


@pytest.mark.parametrize("drive", [other_cd, Drive, a_disk, None])
def test_where_it_is_not_the_bios_reads(drive: object) -> None:
    bios = machine(cd(), *([drive()] if callable(drive) else []))
    hold(bios, quiet=False)
    assert not by_dma(bios)


@pytest.mark.parametrize(
    "word",
    [
        *({0: 0x0580}, {0: 0x80C0}, {0: 0x85C1}),  # a disk, a tape, packets of 16 bytes
        *({49: 0x0200}, {62: 0x8000}),  # no DMA; it must be told the direction
        *({88: 0x003F}, {53: 3}),  # no mode set; none that means something
    ],
)
def test_a_drive_that_is_not_as_expected_is_left_to_the_bios(word: dict[int, int]) -> None:
    bios = machine(disk := cd(), drive := Drive(disk.image, identity=IDENTITY | word))
    hold(bios)
    assert not by_dma(bios)
    assert not drive.reads


@pytest.mark.parametrize(
    "oddity",
    [
        *({"pci": False}, {"vendor": 0x10B9}, {"interface": 0x00}, {"command": 0x0000}),
        {"interface": 0x85},  # native mode, and no ports for that
    ],
)
def test_a_controller_that_is_not_as_expected_is_left_to_the_bios(
    oddity: dict[str, Any],
) -> None:
    bios = machine(disk := cd(), drive := Drive(disk.image), **oddity)
    hold(bios)
    assert not by_dma(bios)
    assert not drive.reads


def test_a_multiword_mode_will_do() -> None:
    bios = machine(disk := cd(), Drive(disk.image, identity=IDENTITY | {53: 3, 63: 0x0407}))
    hold(bios)
    assert by_dma(bios)


def test_a_bus_master_at_work_is_somebody_else_s() -> None:
    bios = machine(disk := cd(), drive := Drive(disk.image))
    bios.channels[0].master = 0x09
    hold(bios)
    assert not drive.reads


# Faults

FAULTS = (
    "check",
    "refuses",
    "wants data",
    "busy",
    "dead",
    "bus",
    "short",
    "silent",
    "late",
    "garbage",
)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("sound", [0, 1, 2, 3])
def test_a_fault_that_stays_and_the_bios_reads(fault: str, sound: int) -> None:
    """From the first read on, to the part's."""
    bios = machine(disk := cd(), drive := Drive(disk.image, fault=fault, sound=sound))
    hold(bios, quiet=False)
    assert not by_dma(bios)
    assert drive.commands <= sound + 2
    if sound >= PROBE_READS:
        assert disk.count(RESET) == 1


@pytest.mark.parametrize(
    "fault", ["check", "refuses", "wants data", "busy", "bus", "short", "late"]
)
def test_a_fault_that_goes_away(fault: str) -> None:
    disk = cd()
    drive = Drive(disk.image, fault=fault, sound=PROBE_READS, times=1)
    bios = machine(disk, drive)
    hold(bios, quiet=False)
    assert by_dma(bios)
    assert not disk.count(RESET)


def test_damage_that_only_the_drive_sees_is_found() -> None:
    """Once; then the BIOS reads the part again."""
    disk = cd()
    bios = machine(disk, Drive(disk.image, fault="garbage", sound=PROBE_READS, times=1))
    hold(bios, quiet=False)
    assert not by_dma(bios)


def test_a_drive_that_hangs_is_not_tried_over_and_over() -> None:
    disk = cd()
    bios = machine(disk, Drive(fault="dead", image=Image(8)), other := Drive(disk.image))
    hold(bios, quiet=False)
    assert not by_dma(bios)
    assert not other.reads


def test_damage_on_the_cd_is_said() -> None:
    disk = cd()
    disk.image.flip(A_PART.lba + 7, 3, 3)
    bios = machine(disk, Drive(disk.image))
    assert run_loader(bios, [A_PART.entry], drive=CD, shift=11)[1].stopped
    assert "kernel is damaged" in said(bios)
    assert not by_dma(bios)
