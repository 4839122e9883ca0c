"""The loader and drives with faults: bounded tries, then a message with the numbers."""

import re

import pytest
from held import KIB, MIB
from loading import hold_loader, run_loader, said
from unicorn import x86_const as x86

from pybuild import loadtable
from pybuild.emulate.bios import DISK_SPOILS, SPOILS, Bios
from pybuild.emulate.biosdisk import (
    CRC_ERROR,
    FLOPPY,
    FOR_EVER,
    NOT_FOUND,
    SECTOR,
    TIMEOUT,
    Disk,
    Image,
)
from pybuild.emulate.stages import DRIVE, Part, noise, plenty, with_parts
from pybuild.loadtable import Entry

pytestmark = pytest.mark.contract("real/loader")

LBA = 0x901
A_PART = Part(LBA, 2 * MIB, noise(150 * KIB + 77))
MOST_TRIES = 16  # of one call, whatever fails


def disk(**faults: object) -> Disk:
    return with_parts(Disk(Image(1024 * 255 * 63), **faults), A_PART)  # type: ignore[arg-type]


def gives_up(bios: Bios, *, long_mode: bool = False, shift: int = 9) -> str:
    """Runs it to its message, which is on the screen and went to COM1."""
    _, outcome = run_loader(bios, [A_PART.entry], long_mode=long_mode, shift=shift)
    assert outcome.stopped == "halt"
    text = said(bios)
    assert text.startswith("bootsplice: ")
    assert text.endswith("\r\n")
    return text.removeprefix("bootsplice: ").removesuffix("\r\n")


# Faults that it gets over


@pytest.mark.parametrize("most_says", [None, 0])
@pytest.mark.parametrize("most", [127, 126, 64, 63, 32, 16, 8])
def test_a_bios_that_takes_few_sectors_a_call(most: int, most_says: int | None) -> None:
    drive = disk(most=most, most_says=most_says)
    hold_loader([A_PART], Bios({DRIVE: drive}, plenty()))
    assert sum(call.status != 0 for call in drive.reads()) <= MOST_TRIES


@pytest.mark.parametrize("bounce", [(0x8000, 64), (0x30000, 127)])
def test_dma_that_cannot_cross_64_kib(bounce: tuple[int, int]) -> None:
    drive = disk(dma_boundary=True)
    hold_loader([A_PART], Bios({DRIVE: drive}, plenty()), bounce=bounce)
    assert all(call.status == 0 for call in drive.calls)


@pytest.mark.parametrize("edd", ["yes", "no"])
@pytest.mark.parametrize("resets_needed", [False, True])
@pytest.mark.parametrize("transfers_before", [False, True])
def test_errors_that_go_away(edd: str, resets_needed: bool, transfers_before: bool) -> None:
    drive = disk(
        edd=edd,
        failures={LBA: 1, LBA + 3: 1, LBA + 200: 2, LBA + 300: 1},
        resets_needed=resets_needed,
        transfers_before=transfers_before,
    )
    bios = Bios({DRIVE: drive}, plenty(), spoils=SPOILS, disk_spoils=DISK_SPOILS)
    hold_loader([A_PART], bios)
    assert not any(drive.failures.values())
    assert drive.count(0x00) == 5


def test_an_error_costs_no_speed_afterwards() -> None:
    """What one bad moment was to blame for is no reason to read the rest in small pieces."""
    drive = disk(failures={LBA + 5: 1})
    hold_loader([A_PART], Bios({DRIVE: drive}, plenty()))
    sizes = [call.sectors for call in drive.reads() if call.lba >= LBA and not call.status]
    assert sizes == [1, 127, 127, 46, 1]


def test_errors_of_small_reads_cost_no_speed_afterwards() -> None:
    """Neither of the first sector, while a floppy spins up, nor of what is left of a track."""
    part = Part(18 * 40 + 17, 2 * MIB, noise(40 * 512))
    drive = Disk(Image(2880), edd="no", geometry=FLOPPY, failures={0: 3, part.lba: 3})
    hold_loader([part], Bios({0: with_parts(drive, part)}, plenty()), drive=0)
    sizes = [call.sectors for call in drive.reads() if call.lba > part.lba and not call.status]
    assert sizes == [18, 18, 3]


# Messages


@pytest.mark.parametrize("edd", ["yes", "no"])
@pytest.mark.parametrize("status", [CRC_ERROR, NOT_FOUND, TIMEOUT, 0xBB])
@pytest.mark.parametrize("at", [0, 5, 130, 300])
def test_an_error_that_stays(edd: str, status: int, at: int) -> None:
    drive = disk(edd=edd, failures={LBA + at: FOR_EVER}, failure=status)
    text = gives_up(Bios({DRIVE: drive}, plenty(), spoils=SPOILS, disk_spoils=DISK_SPOILS))
    pattern = (
        r"(kernel|the disk) cannot be read: drive 0x80, LBA 0x([0-9A-F]+): status 0x([0-9A-F]+)"
    )
    match = re.fullmatch(pattern, text)
    assert match, text
    assert match[1] == ("kernel" if at else "the disk")
    assert LBA <= int(match[2], 16) <= LBA + at
    assert int(match[3], 16) == status
    assert sum(call.status != 0 for call in drive.reads()) <= MOST_TRIES


def test_a_disk_cut_short() -> None:
    drive = disk()
    drive.image.sectors = LBA + 100
    text = gives_up(Bios({DRIVE: drive}, plenty()))
    assert re.fullmatch(r"kernel cannot be read: drive 0x80, LBA 0x9..: status 0x4", text)


def test_a_drive_that_is_not_there() -> None:
    assert gives_up(Bios({}, plenty())) == "the BIOS cannot read drive 0x80: status 0x1"


def test_a_cd_without_edd() -> None:
    drive = Disk(Image(MIB), sector=2048, geometry=None, edd="no")
    text = gives_up(Bios({DRIVE: drive}, plenty()), shift=11)
    assert text == "the BIOS cannot read drive 0x80: status 0x1"


def damage(how: str) -> bytes:
    data = A_PART.data
    sectors = [data[at : at + SECTOR] for at in range(0, len(data), SECTOR)]
    if how == "swapped":
        sectors[17], sectors[170] = sectors[170], sectors[17]
    elif how == "neighbours swapped":
        sectors[8], sectors[9] = sectors[9], sectors[8]
    elif how == "repeated":
        sectors[127] = sectors[126]
    elif how == "missing":
        del sectors[200]
    elif how == "zeros":
        sectors[64] = bytes(SECTOR)
    else:
        at = {"first bit": 0, "some bit": 77777, "last bit": len(data) - 1}[how]
        broken = bytearray(data)
        broken[at] ^= 0x80 if at else 1
        return bytes(broken)
    return (b"".join(sectors) + noise(SECTOR))[: len(data)]


@pytest.mark.parametrize(
    "how",
    [
        *("first bit", "some bit", "last bit", "swapped", "neighbours swapped"),
        *("repeated", "missing", "zeros"),
    ],
)
def test_damage_is_seen(how: str) -> None:
    drive = disk()
    drive.image.put(LBA, broken := damage(how))
    found, expected = (loadtable.checksum([data]) for data in (broken, A_PART.data))
    text = gives_up(Bios({DRIVE: drive}, plenty()))
    assert text == f"kernel is damaged: checksum 0x{found:X}, expected 0x{expected:X}"


def test_what_lies_behind_a_part_does_not_matter() -> None:
    drive = disk()
    drive.image.flip(LBA + len(A_PART.data) // SECTOR, 511, 0)
    hold_loader([A_PART], Bios({DRIVE: drive}, plenty()))


@pytest.mark.parametrize("edd", ["yes", "no"])
def test_a_bios_that_reads_less_than_it_says(edd: str) -> None:
    text = gives_up(Bios({DRIVE: disk(edd=edd, cut=20)}, plenty()))
    assert re.fullmatch("kernel is damaged: checksum 0x[0-9A-F]+, expected 0x[0-9A-F]+", text)


def test_the_last_part_is_held_to_its_checksum_too() -> None:
    drive = disk()
    drive.image.flip(90, 0, 0)
    assert gives_up(Bios({DRIVE: drive}, plenty())).startswith("bootsect is damaged: checksum 0x")


@pytest.mark.parametrize("cpu", [x86.UC_CPU_X86_486, x86.UC_CPU_X86_PENTIUM3])
def test_a_32_bit_cpu_for_a_64_bit_kernel(cpu: int) -> None:
    drive = disk()
    text = gives_up(Bios({DRIVE: drive}, plenty(), cpu=cpu), long_mode=True)
    assert text == "this kernel needs a 64-bit CPU (long mode), this one is none"
    assert not drive.calls


@pytest.mark.parametrize("keyboard", ["ready", "busy", "none"])
def test_a_gate_that_stays_shut(keyboard: str) -> None:
    bios = Bios({DRIVE: disk()}, plenty(), a20="nothing", keyboard_controller=keyboard)
    assert gives_up(bios) == "the A20 gate stays shut: no memory above 1 MiB can be used"
    assert bios.a20_tried == ["bios", "port 92", *(["keyboard"] if keyboard == "ready" else [])]


def test_a_message_without_a_serial_port() -> None:
    assert "status 0x1" in gives_up(Bios({}, plenty(), com1="none"))


def test_a_message_behind_the_progress() -> None:
    """It begins on a line of its own."""
    drive = disk(failures={LBA + 290: FOR_EVER})
    bios = Bios({DRIVE: drive}, plenty(), seconds_a_read=0.6)
    run_loader(bios, [Entry("early", 3, 1 << 20, 4 * MIB, 0), A_PART.entry])
    assert re.search(r"%\r\n(bootsplice: early is damaged: .*)\r\n$", said(bios))
