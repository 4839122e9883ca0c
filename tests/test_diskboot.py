"""The boot sector that reads the loader, on a simulated PC with every fault that it knows of."""

import pytest
from held import MIB, examples
from hypothesis import given
from hypothesis import strategies as st
from loading import disk_of, hold_diskboot, run_diskboot, said

from pybuild.emulate.bios import DISK_SPOILS, SPOILS, Bios
from pybuild.emulate.biosdisk import FLOPPY, FOR_EVER, NOT_FOUND, SECTOR, TIMEOUT, Disk, Image
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.stages import DRIVE, LOADER, noise
from pybuild.loader import diskboot_symbols

pytestmark = pytest.mark.contract("real/diskboot")

LOADER_LIMIT = 0x4000
GEOMETRIES = {"floppy": FLOPPY, "16/63": (1024, 16, 63), "255/63": (1024, 255, 63)}
A_LOADER = noise(0x1404)
LBA = 0x812
TRIES = 4


def gives_up(bios: Bios, dl: int = DRIVE, loader: bytes = A_LOADER) -> str:
    """Runs it to its message; the drives are only asked a bounded number of times."""
    outcome = run_diskboot(bios, diskboot_symbols(loader, LBA, 9), dl)
    assert outcome.stopped == "halt"
    assert sum(number == 0x13 for number, _ in bios.calls) <= 3 * (2 * TRIES + 1 + 2 * TRIES)
    return said(bios)


@pytest.mark.parametrize("drive", [0x00, 0x80, 0x81, 0xE0, 0xFF])
@pytest.mark.parametrize("shift", [9, 11])
def test_reads_the_loader_by_edd(drive: int, shift: int) -> None:
    for size in (4, 508, 512, 516, 2044, 2048, 2052, LOADER_LIMIT - 4, LOADER_LIMIT):
        disk = disk_of(LBA, loader := noise(size), sector=1 << shift, geometry=None)
        hold_diskboot(loader, LBA, Bios({drive: disk}), boots=drive, dl=drive)
        assert len(disk.calls) == 1


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("edd", ["no", "ignored", "no reads"])
@examples(12)
@given(data=st.data())
def test_reads_the_loader_by_chs(
    geometry: tuple[int, int, int], edd: str, data: st.DataObject
) -> None:
    cylinders, heads, sectors = geometry
    loader = noise(4 * data.draw(st.integers(1, LOADER_LIMIT // 4), "words"))
    last = cylinders * heads * sectors - -(-len(loader) // SECTOR)
    lba = data.draw(st.one_of(st.just(last), st.integers(1, last)), "lba")
    disk = disk_of(lba, loader, cylinders * heads * sectors, edd=edd, geometry=geometry)
    hold_diskboot(loader, lba, Bios({DRIVE: disk}))


@pytest.mark.parametrize("cs", [0, 0x7C0])
def test_entered_at_either_cs(cs: int) -> None:
    bios = Bios({DRIVE: disk_of(LBA, A_LOADER)})
    outcome = run_diskboot(bios, diskboot_symbols(A_LOADER, LBA, 9), cs=cs)
    assert not outcome.stopped
    assert outcome.after.read(LOADER, len(A_LOADER)) == A_LOADER


def test_of_a_disk_beyond_what_chs_names_nothing_else_is_entered() -> None:
    """1024 cylinders before this loader, where CHS would find it, is an older one."""
    lba = 1024 * 16 * 63 + LBA
    disk = disk_of(lba, A_LOADER, edd="no", geometry=(1024, 16, 63))
    disk.image.put(LBA, noise(len(A_LOADER), seed=1))
    bios = Bios({DRIVE: disk})
    assert run_diskboot(bios, diskboot_symbols(A_LOADER, lba, 9)).stopped == "halt"
    assert said(bios) == "bootsplice: drive 80, status 00: bad loader\r\n"


# A BIOS with faults


@pytest.mark.parametrize("edd", ["yes", "no", "ignored"])
def test_registers_that_the_bios_spoils(edd: str) -> None:
    disk = disk_of(LBA, A_LOADER, edd=edd, failures={LBA + 1: 2})
    hold_diskboot(A_LOADER, LBA, Bios({DRIVE: disk}, spoils=SPOILS, disk_spoils=DISK_SPOILS))


@pytest.mark.parametrize("edd", ["yes", "no"])
@pytest.mark.parametrize("resets_needed", [False, True])
def test_errors_that_go_away(edd: str, resets_needed: bool) -> None:
    failing = {LBA + i: TRIES - 1 for i in range(2 if edd == "no" else 1)}
    disk = disk_of(LBA, A_LOADER, edd=edd, failures=dict(failing), resets_needed=resets_needed)
    hold_diskboot(A_LOADER, LBA, Bios({DRIVE: disk}))
    assert disk.count(0x00) == sum(failing.values()) + (TRIES if edd == "no" else 0)


@pytest.mark.parametrize(
    "disk",
    [
        Disk(Image(MIB), most=8),
        Disk(Image(MIB), most=8, most_says=0),
        Disk(Image(MIB), cut=3),
        Disk(Image(MIB), failures={LBA + 3: TRIES}, transfers_before=True),
    ],
    ids=["takes 8 sectors", "takes 8 and says 0", "reads only 3", "stops at a bad sector"],
)
def test_chs_where_edd_does_less_than_it_should(disk: Disk) -> None:
    disk.image.put(LBA, A_LOADER)
    hold_diskboot(A_LOADER, LBA, Bios({DRIVE: disk}))
    assert disk.count(0x02) == -(-len(A_LOADER) // SECTOR)


@pytest.mark.parametrize("named", [0x00, 0x01, 0x7F, 0xFF, 0x81])
def test_a_bios_that_names_another_drive(named: int) -> None:
    drives = {DRIVE: disk_of(LBA, A_LOADER), 0x81: Disk(Image(MIB))}
    hold_diskboot(A_LOADER, LBA, Bios(drives), boots=DRIVE, dl=named)


# Messages


@pytest.mark.parametrize("edd", ["yes", "no"])
@pytest.mark.parametrize("status", [NOT_FOUND, TIMEOUT, 0xBB])
def test_error_that_stays(edd: str, status: int) -> None:
    disk = disk_of(LBA, A_LOADER, edd=edd, failures={LBA + 2: FOR_EVER}, failure=status)
    expected = f"bootsplice: drive 80, status {status:02X}: bad loader\r\n"
    assert gives_up(Bios({DRIVE: disk})) == expected


def test_no_such_drive() -> None:
    expected = "bootsplice: drive A7, status 01: bad loader\r\n"
    assert gives_up(Bios({}), dl=0xA7) == expected


@pytest.mark.parametrize("keeps", ["com1", "screen"])
def test_message_without_a_serial_port(keeps: str) -> None:
    bios = Bios({}, com1="none" if keeps == "screen" else "stuck", spoils=SPOILS)
    assert "bad loader" in gives_up(bios)


def test_message_of_a_bios_that_spoils_registers() -> None:
    bios = Bios(
        {DRIVE: disk_of(LBA, A_LOADER, failures={LBA: FOR_EVER})},
        spoils=SPOILS,
        disk_spoils=DISK_SPOILS,
    )
    assert gives_up(bios) == "bootsplice: drive 80, status 10: bad loader\r\n"


@pytest.mark.parametrize("edd", ["yes", "no"])
def test_a_flipped_bit_anywhere(edd: str) -> None:
    for offset in (0, 511, 512, len(A_LOADER) - 1):
        disk = disk_of(LBA, A_LOADER, edd=edd)
        disk.image.flip(LBA + offset // SECTOR, offset % SECTOR, offset % 8)
        assert gives_up(Bios({DRIVE: disk})).endswith(": bad loader\r\n")


@pytest.mark.parametrize("how", ["swapped", "repeated", "missing"])
def test_sectors_in_disorder(how: str) -> None:
    sectors = [A_LOADER[at : at + SECTOR] for at in range(0, len(A_LOADER), SECTOR)]
    if how == "swapped":
        sectors[2], sectors[5] = sectors[5], sectors[2]
    elif how == "repeated":
        sectors[3] = sectors[2]
    else:
        del sectors[4]
    disk = disk_of(LBA, b"".join(sectors))
    assert gives_up(Bios({DRIVE: disk})).endswith(": bad loader\r\n")


def test_the_harness_sees_the_wrong_drive() -> None:
    with pytest.raises(ContractError, match="enters the loader with"):
        hold_diskboot(
            A_LOADER,
            LBA,
            Bios({0x80: disk_of(LBA, A_LOADER), 0x81: disk_of(LBA, A_LOADER)}),
            boots=0x81,
            dl=0x80,
        )
