"""The loader and disks at a PCI IDE controller: by DMA, or by the BIOS where anything is odd."""

from typing import Any

import pytest
from held import KIB, MIB, examples
from hypothesis import given
from hypothesis import strategies as st
from idechannel import Channel, Drive
from idedrive import IdeBios
from loading import hold_loader

from pybuild.emulate.biosdisk import Disk, Image
from pybuild.emulate.stages import DRIVE, Part, noise, plenty, with_parts

pytestmark = pytest.mark.contract("real/loader")

SECTORS = 1 << 23
A_PART = Part(0x901, 2 * MIB, noise(150 * KIB + 77))
PROBES = 3  # reads by the BIOS, of one that is then read by DMA
PROBE_READS = 2  # by DMA


def disk(*parts: Part, sectors: int = SECTORS) -> Disk:
    return with_parts(Disk(Image(sectors), geometry=None), *(parts or (A_PART,)))


def machine(drive: Disk, *there: Drive, **more: Any) -> IdeBios:
    """The drives are at the primary channel first."""
    pairs = [dict(enumerate(there[at : at + 2])) for at in (0, 2)]
    channels = (Channel(pairs[0]), Channel(pairs[1]))
    return IdeBios({DRIVE: drive}, plenty(), channels=channels, **more)


def hold(bios: IdeBios, *parts: Part, quiet: bool = True) -> bool:
    """That all is read, and the hardware is as it was; whether it was by DMA."""
    hold_loader(parts or (A_PART,), bios, quiet=quiet)
    bios.check_untouched("enters the boot sector", command=True)
    return len(bios.drives[DRIVE].reads()) == PROBES


@pytest.mark.parametrize("place", range(4))
def test_a_disk_is_read_by_dma_wherever_it_is(place: int) -> None:
    """Among others: disks with something else, a CD, an empty drive."""
    it = disk()
    there = [Drive.disk(Image(SECTORS)), Drive(it.image), Drive()]
    there.insert(place, right := Drive.disk(it.image))
    assert hold(machine(it, *there))
    assert right.reads[:PROBE_READS] == [(0, 1), (A_PART.lba, 1)]


@examples(8)
@given(size=st.integers(1, 200 * KIB), lba=st.integers(200, 9000), at=st.integers(0, 40000))
def test_any_part(size: int, lba: int, at: int) -> None:
    part = Part(lba, 2 * MIB + 4 * at, noise(size))
    it = disk(part)
    assert hold(machine(it, Drive.disk(it.image)), part)


@pytest.mark.parametrize("lba", [0x12_3456, 0xFFF_FFF0, 0x1234_5678_9ABC])
def test_large_reads_are_few(lba: int) -> None:
    part = Part(lba, 2 * MIB, noise(2 * MIB + 1024))
    it = disk(part, sectors=1 << 47)
    assert hold(machine(it, drive := Drive.disk(it.image)), part)
    assert [sectors for _, sectors in drive.reads[PROBE_READS:]] == [2048, 2048, 2, 1]


@pytest.mark.parametrize("lba", [0x12_3456, 0xFED_0000])
def test_a_disk_without_48_bit_lbas(lba: int) -> None:
    part = Part(lba, 2 * MIB, noise(300 * 512))
    it = disk(part, sectors=0xFFF_FFFF)
    assert hold(machine(it, drive := Drive.disk(it.image, identity={83: 0x4000})), part)
    assert [sectors for _, sectors in drive.reads[PROBE_READS:]] == [256, 44, 1]


@pytest.mark.parametrize(
    "word",
    [{0: 0x8040}, {49: 0x0200}, {49: 0x0100}, {106: 0x5000}, {88: 0x003F}, {53: 3}],
)
def test_a_disk_that_is_not_as_expected_is_left_to_the_bios(word: dict[int, int]) -> None:
    it = disk()
    drive = Drive.disk(it.image, identity=word)
    assert not hold(machine(it, drive))
    assert not drive.reads


@pytest.mark.parametrize("vendor", [0x8086, 0x10B9])
def test_any_maker_s_controller(vendor: int) -> None:
    it = disk()
    assert hold(machine(it, Drive.disk(it.image), vendor=vendor))


@pytest.mark.parametrize("fault", ["check", "busy", "dead", "bus", "short", "silent", "late"])
@pytest.mark.parametrize("sound", [0, 1, 2, 3])
def test_a_fault_that_stays_and_the_bios_reads(fault: str, sound: int) -> None:
    it = disk()
    drive = Drive.disk(it.image, fault=fault, sound=sound)
    assert not hold(machine(it, drive), quiet=False)
    assert drive.commands <= sound + 2


@pytest.mark.parametrize("fault", ["check", "busy", "bus", "short", "late"])
def test_a_fault_that_goes_away(fault: str) -> None:
    it = disk()
    drive = Drive.disk(it.image, fault=fault, sound=PROBE_READS, times=1)
    assert hold(machine(it, drive), quiet=False)
