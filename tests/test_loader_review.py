"""The disk loader on BIOSes with oddities that real machines are known for."""

import ctypes
import re
from dataclasses import dataclass, replace

import pytest
from held import MIB, placed
from loading import BUDGET, disk_of, hold_loader, run_loader, said
from unicorn import unicorn_const as uc_const

from pybuild.emulate.bios import _GATE_SIZE, _HIGH, Bios
from pybuild.emulate.biosdisk import FLOPPY, FOR_EVER, INVALID, SECTOR, Disk, Image
from pybuild.emulate.biosram import RESERVED, SMAP, Ram, Range
from pybuild.emulate.memory import Memory
from pybuild.emulate.registers import Registers
from pybuild.emulate.run import run
from pybuild.emulate.stages import (
    BOOT_SECTOR,
    DRIVE,
    LOADER,
    Part,
    low_noise,
    noise,
    plenty,
    with_parts,
)
from pybuild.loader import diskboot_symbols
from pybuild.loadtable import Entry

pytestmark = pytest.mark.contract("real/loader")

LBA = 0x901
A_PART = Part(LBA, 2 * MIB, noise(150 * 1024 + 77))


# The boot sector


@pytest.mark.parametrize("edd", ["yes", "no"])
@pytest.mark.parametrize("written", [b"\x00", b"\xff", b"\xcc"])
def test_a_bios_that_fills_in_a_fat_file_systems_fields(edd: str, written: bytes) -> None:
    """Sectors a track, heads, hidden sectors, sectors, drive; and a FAT32's drive."""
    loader = noise(0x1404)
    bios = Bios({DRIVE: disk_of(LBA, loader, edd=edd)})
    it = placed("real/diskboot", BOOT_SECTOR, diskboot_symbols(loader, LBA, 9))
    code = bytearray(it.binary.code)
    for low, high in ((0x18, 0x25), (0x40, 0x42)):
        code[low:high] = written * (high - low)
    it = replace(it, binary=replace(it.binary, code=bytes(code)))
    outcome = run(
        it,
        memory=Memory([(0, low_noise())]),
        registers={"cs": 0, "edx": DRIVE},
        budget=BUDGET,
        hardware=bios,
    )
    assert not outcome.stopped, bios.screen
    assert outcome.after.read(LOADER, len(loader)) == loader


# Reading


class BrokenEdd(Disk):
    """AH=42h fails, whatever AH=41h says."""

    def _read_edd(self, _registers: Registers) -> tuple[int, int, int]:
        return 0, 0, INVALID


@pytest.mark.parametrize("geometry", [(1024, 255, 63), FLOPPY])
def test_a_bios_that_promises_edd_and_has_none(geometry: tuple[int, int, int]) -> None:
    part = Part(100, 2 * MIB, noise(40 * SECTOR + 5))
    drive = with_parts(BrokenEdd(Image(2880), geometry=geometry), part)
    hold_loader([part], Bios({DRIVE: drive}, plenty()))


def test_a_disk_with_256_heads() -> None:
    """The last head is 255: one more than that doesn't fit a byte."""
    part = Part(300 * 256 * 63 + 17, 2 * MIB, noise(200 * SECTOR))
    drive = Disk(Image(1024 * 256 * 63), edd="no", geometry=(1024, 256, 63))
    hold_loader([part], Bios({DRIVE: with_parts(drive, part)}, plenty()))


class QuietCd(Disk):
    """A CD whose BIOS reads it by AH=42h, but does not know AH=41h."""

    def _check_edd(self, _registers: Registers) -> int:
        return INVALID


@pytest.mark.parametrize("number", [0xE0, 0x9F])
def test_a_cd_of_a_bios_that_does_not_answer_for_edd(number: int) -> None:
    part = Part(0x902, 2 * MIB, noise(70 * 1024 + 3))
    drive = with_parts(QuietCd(Image(MIB), sector=2048, geometry=None), part)
    hold_loader([part], Bios({number: drive}, plenty()), drive=number)


def test_the_status_of_a_cd_that_cannot_be_read_is_the_last_calls() -> None:
    """And not the version of EDD, which AH=41h gives in the same register."""
    drive = Disk(Image(MIB), sector=2048, geometry=None, edd="no reads")
    bios = Bios({0xE0: drive}, plenty())
    _, outcome = run_loader(bios, [A_PART.entry], drive=0xE0, shift=11)
    assert outcome.stopped == "halt"
    assert said(bios) == "bootsplice: the BIOS cannot read drive 0xE0: status 0x1\r\n"


@pytest.mark.parametrize("at", [5, 130, 299])
def test_the_lba_of_a_message_is_near_the_bad_sector(at: int) -> None:
    drive = with_parts(Disk(Image(MIB), failures={LBA + at: FOR_EVER}), A_PART)
    bios = Bios({DRIVE: drive}, plenty())
    run_loader(bios, [A_PART.entry])
    match = re.search("LBA 0x([0-9A-F]+):", said(bios))
    assert match
    assert LBA + at - 127 < int(match[1], 16) <= LBA + at


# Memory


@dataclass
class ForgetfulRam(Ram):
    """From the third entry on the signature is lost, and what the BIOS gives is nonsense."""

    def _entry(self, registers: Registers, entries: tuple[Range, ...]) -> bool:  # type: ignore[override]
        number = registers["ebx"] >> 16
        done = super()._entry(registers, entries)
        registers["eax"] = SMAP if number < 2 else 0
        return done


@pytest.mark.parametrize("high", [1 * MIB, 3 * MIB])
def test_a_memory_map_that_breaks_off_is_none(high: int) -> None:
    """As Linux has it: what is missing may be what says that the rest is in use."""
    entries = (Range(0, 0x9FC00), Range(MIB, 63 * MIB), Range(2 * MIB, 62 * MIB, RESERVED))
    bios = Bios(
        {DRIVE: with_parts(Disk(Image(MIB)))},
        ForgetfulRam(e820=entries, e801=(0x400, 0, 0x400, 0)),
    )
    _, outcome = run_loader(bios, [Entry("need", 0, high, MIB)])
    assert bool(outcome.stopped) == (high > MIB), bios.screen


# A20


class GateOfDisk(Bios):
    """Int 13h shuts the gate that int 15h has opened."""

    def _disk(self) -> None:
        super()._disk()
        if not self._shut:
            self._beyond = bytes(self._uc.mem_read(_HIGH, _GATE_SIZE))
            self._uc.mem_unmap(_HIGH, _GATE_SIZE)
            low = ctypes.addressof(self._low)
            self._uc.mem_map_ptr(_HIGH, _GATE_SIZE, uc_const.UC_PROT_ALL, low)
            self._shut = True


def test_a_gate_that_is_shut_while_reading() -> None:
    """The parts' checksums are right, but two parts may have gone to the same place.

    Here the other place is the end of the loader's scratch memory.
    """
    part = Part(LBA, MIB + 0x5B00, noise(0x400))
    bios = GateOfDisk({DRIVE: with_parts(Disk(Image(MIB)), part)}, plenty(), a20="bios")
    _, outcome = run_loader(bios, [part.entry])
    assert outcome.stopped == "halt"
    assert "the A20 gate stays shut" in said(bios)


class SegmentsOfA20(Bios):
    """Int 15h AX=2401h spoils the segment registers."""

    def _int15_a20(self) -> None:
        super()._int15_a20()
        self._registers["ds"] = self._registers["es"] = 0x1234


@pytest.mark.parametrize("a20", ["bios", "port 92", "keyboard"])
def test_segments_that_the_bios_spoils_with_the_gate(a20: str) -> None:
    part = Part(LBA, MIB, noise(0x800))
    bios = SegmentsOfA20({DRIVE: with_parts(Disk(Image(MIB)), part)}, plenty(), a20=a20)
    hold_loader([part], bios)
