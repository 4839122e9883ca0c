"""ISOs in QEMU's IDE CD drives: read by DMA wherever the drive is, by the BIOS after an error."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import qemuguest
from booting import TIMEOUT, Made, named, report
from probes import original

from pybuild import drives
from pybuild.watch import BootResult

pytestmark = pytest.mark.boot

NAME = "probe-bzimage"  # of several MiB: many reads
SECTOR = 2048
EIO = 5
END = "^end=ok"


@pytest.fixture
def iso(made: Callable[[str, str, str], Made]) -> Path:
    return made(NAME, "pc", "iso").path


def attached(image: Path, bus: str = "ide.1", unit: int = 0) -> list[str]:
    """As `drives` does, but at any place."""
    *drive, device = drives.arguments(drives.read(image), "cdrom")
    assert ",bus=ide.1," in device
    return [*drive, device.replace(",bus=ide.1,", f",bus={bus},unit={unit},")]


def boot(arguments: Sequence[str], room: Path, expect: str = END) -> tuple[BootResult, list[str]]:
    """Boots a `pc`; how each of the drives' reads came, "pio" or "dma"."""
    log = room / "qemu.log"
    traced = ["-trace", "ide_atapi_cmd_read", "-D", str(log)]
    result = qemuguest.boot(
        ["-M", "pc", "-nic", "none", *traced, *arguments],
        directory=room,
        expect=re.compile(expect),
        timeout=TIMEOUT,
        stream=lambda _: None,
    )
    assert result.matched, f"{result}"
    return result, re.findall(r"read (pio|dma): LBA", log.read_text())


def with_faults(image: Path, count: int, *, once: bool) -> list[str]:
    """The CD by way of QEMU's blkdebug: the middle of the kernel cannot be read."""
    kernel = original(named(NAME)).protected
    middle = len(kernel) // 2 // SECTOR * SECTOR
    at = image.read_bytes().index(kernel[middle : middle + SECTOR])
    rule = {"event": "read_aio", "errno": EIO, "sector": at // 512, "once": once}
    file = {"driver": "file", "filename": str(image)}
    debug = {"driver": "blkdebug", "image": file, "inject-error": [rule] * count}
    node = {"driver": "raw", "node-name": "image", "file": debug, "read-only": True}
    return ["-blockdev", json.dumps(node), *attached(image)[2:]]


@pytest.mark.parametrize("bus", ["ide.0", "ide.1"])
@pytest.mark.parametrize("unit", [0, 1])
def test_read_by_dma(iso: Path, tmp_path: Path, bus: str, unit: int) -> None:
    result, reads = boot(attached(iso, bus, unit), tmp_path)
    assert report(result.serial)["end"] == "ok"
    first = reads.index("dma")
    assert set(reads[first:]) == {"dma"}


def test_beside_other_drives(
    iso: Path, made: Callable[[str, str, str], Made], tmp_path: Path
) -> None:
    """An empty drive before it, a CD beside that, and a disk."""
    other = made("probe-relocatable", "pc", "iso").path
    disk = made(NAME, "pc", "disk").path
    more = [
        *("-device", "ide-cd,bus=ide.0,unit=0"),
        *("-drive", f"if=none,id=other,format=raw,readonly=on,file={other}"),
        *("-device", "ide-cd,bus=ide.0,unit=1,drive=other"),
        *("-drive", f"if=none,id=disk,format=raw,snapshot=on,file={disk}"),
        *("-device", "ide-hd,bus=ide.1,unit=0,drive=disk"),
    ]
    result, reads = boot([*attached(iso, unit=1), *more], tmp_path)
    assert report(result.serial)["end"] == "ok"
    assert reads[-1] == "dma"


@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_read_error_that_goes_away(iso: Path, tmp_path: Path, times: int) -> None:
    """Twice, and the BIOS reads on."""
    result, reads = boot(with_faults(iso, times, once=True), tmp_path)
    assert reads[-1] == ("dma" if times == 1 else "pio")
    assert "cannot be read" not in result.serial


def test_a_read_error_that_stays(iso: Path, tmp_path: Path) -> None:
    message = r"kernel cannot be read: drive 0x0*E0, LBA 0x[0-9A-F]+: status 0x[0-9A-F]+"
    _, reads = boot(with_faults(iso, 1, once=False), tmp_path, f"^bootsplice: {message}\n")
    assert reads[-1] == "pio"
