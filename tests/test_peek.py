"""The boot sector that says what is at 0x100000: it reads what is there, and what it starts then
boots as it does without it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from booting import boot, named, plan, report
from peek import HVMLOADER, with_peek
from probes import check

from pybuild.bootproto import SECTOR
from pybuild.targets import ram

pytestmark = pytest.mark.boot

NAME = "probe-bzimage"  # it runs at 0x100000 and is loaded at 0x200000
MACHINES = ["pc", "q35"]
NOTHING = "00 00 00 00 00"


@pytest.fixture
def peeking(built: Callable[[str], Path], tmp_path: Path) -> Path:
    """The probe's folder with peek."""
    return with_peek(built(f"{NAME}.xen-hvm"), tmp_path / "peeking")


def held_to_the_probe(folder: Path, *qemu: str) -> str:
    """Boots; what was at 0x100000, if all that the probe then says of itself is right."""
    each = named(NAME)
    said = report(boot(folder, each.expect, *qemu))
    check(each, said, plan(folder))
    return said["at_100000"]


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_is_there_under_qemu(machine: str, peeking: Path) -> None:
    assert held_to_the_probe(peeking, "-M", machine) == NOTHING


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("there", [HVMLOADER, "f0 9a bc de 01"])
def test_it_reads_what_is_there(machine: str, there: str, peeking: Path) -> None:
    (peeking / "there.bin").write_bytes(bytes.fromhex(there))
    loader = "loader,file=there.bin,addr=0x100000,force-raw=on"
    assert held_to_the_probe(peeking, "-M", machine, "-device", loader) == there


def test_the_rest_of_the_disk_is_as_it_was(built: Callable[[str], Path], peeking: Path) -> None:
    original = (built(f"{NAME}.xen-hvm") / ram.BOOT_DISK).read_bytes()
    disk = (peeking / ram.BOOT_DISK).read_bytes()
    assert disk[SECTOR : 2 * SECTOR] == original[:SECTOR]
    assert disk[2 * SECTOR :] == original[2 * SECTOR :]
    assert len(disk) == len(original)


def test_no_boot_sector_behind_it(peeking: Path, tmp_path: Path) -> None:
    """It says so, after what it has seen, and starts nothing."""
    empty = shutil.copytree(peeking, tmp_path / "empty")
    disk = empty / ram.BOOT_DISK
    sectors = disk.read_bytes()
    disk.write_bytes(sectors[:SECTOR] + bytes(len(sectors) - SECTOR))
    log = boot(empty, "^peek: no boot sector in LBA 1")
    assert report(log) == {"at_100000": NOTHING}


def test_a_disk_that_ends_behind_it(peeking: Path) -> None:
    """The BIOS reports an error: there is no LBA 1."""
    disk = peeking / ram.BOOT_DISK
    disk.write_bytes(disk.read_bytes()[:SECTOR])
    assert "at_100000" in report(boot(peeking, "^peek: no boot sector in LBA 1"))
