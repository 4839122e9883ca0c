"""What a disk's loader says, on the screen and on COM1, when it cannot go on; and that it does
go on where it can.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import qemuguest
from booting import TIMEOUT, Made, make, named
from probes import initrd, original

from pybuild import drives
from pybuild.drives import Drive
from pybuild.material import Workshop
from pybuild.watch import BootResult

pytestmark = pytest.mark.boot

SECTOR = 512
MIB = 1 << 20
LINE_ON_SCREEN = 60  # characters of a message that are sure to be on one line
EIO = 5
PROGRESS = "bootsplice: loading "
NAME = "probe-bzimage"  # of several MiB: many reads
REPORT = "^end=ok"


@pytest.fixture
def disk(made: Callable[[str, str, str], Made], tmp_path: Path) -> Path:
    """A disk image to spoil."""
    return shutil.copyfile(made(NAME, "pc", "disk").path, tmp_path / "disk.img")


@pytest.fixture
def contents(disk: Path) -> bytes:
    return disk.read_bytes()


def run(image: Path, expect: str, drive: Drive, *more: str) -> BootResult:
    attached = drives.arguments(drives.read(image), drive)
    return boot([*attached, *more], image.parent, expect)


def boot(arguments: Sequence[str], room: Path, expect: str) -> BootResult:
    result = qemuguest.boot(
        ["-nic", "none", *arguments],
        directory=room,
        expect=re.compile(expect),
        timeout=TIMEOUT,
        stream=lambda _: None,
    )
    assert result.matched, f"{result}"
    return result


def messages(result: BootResult) -> list[str]:
    """All that the loader said on COM1, but for its progress."""
    lines = [line for line in result.serial.splitlines() if line.startswith("bootsplice: ")]
    return [line for line in lines if not line.startswith(PROGRESS)]


def says(result: BootResult, message: str) -> None:
    """The one message of the loader's, on COM1 and on the screen."""
    (line,) = messages(result)
    assert re.fullmatch(f"bootsplice: {message}", line)
    assert line[:LINE_ON_SCREEN] in result.screen
    assert "probe=" not in result.serial


def fails(image: Path, message: str, drive: Drive, *more: str) -> None:
    says(run(image, f"^bootsplice: {message}\n", drive, *more), message)


def with_faults(image: Path, drive: Drive, faults: Sequence[dict[str, Any]]) -> list[str]:
    """QEMU's arguments that attach the image by way of its blkdebug driver."""
    rules = [{"event": "read_aio", "errno": EIO, **fault} for fault in faults]
    file = {"driver": "file", "filename": str(image)}
    debug = {"driver": "blkdebug", "image": file, "inject-error": rules}
    node = {"driver": "raw", "node-name": "image", "file": debug}
    _, _, *attached = drives.arguments(drives.read(image), drive)
    return ["-blockdev", json.dumps(node), *attached]


def kernel_at(contents: bytes) -> int:
    """Where the middle of the kernel lies in the image."""
    kernel = original(named(NAME)).protected
    middle = len(kernel) // 2 // SECTOR * SECTOR
    at = contents.index(kernel[middle : middle + SECTOR])
    assert at % SECTOR == 0
    return at


def spoil(image: Path, at: int, new: bytes) -> None:
    with image.open("r+b") as stream:
        stream.seek(at)
        stream.write(new)


DAMAGED = r"{} is damaged: checksum 0x[0-9A-F]+, expected 0x[0-9A-F]+"


@pytest.mark.parametrize("drive", ["ide", "ahci", "virtio", "usb"])
def test_a_flipped_bit(disk: Path, contents: bytes, drive: Drive) -> None:
    at = kernel_at(contents) + 123
    spoil(disk, at, bytes([contents[at] ^ 0x10]))
    fails(disk, DAMAGED.format("kernel"), drive)


def test_a_flipped_bit_anywhere(disk: Path, contents: bytes) -> None:
    """In each part that comes from a file or an option, at its first and its last byte."""
    each = named(NAME)
    kernel, initrds = original(each), initrd(each)
    cmdline = each.cmdline.encode() + b"\0"
    for part, piece, offset in (
        ("setup", kernel.setup[SECTOR * 2 : SECTOR * 3], 0),
        ("cmdline", cmdline, 0),
        ("cmdline", cmdline, len(cmdline) - 1),
        ("kernel", kernel.protected[:SECTOR], 0),
        ("kernel", kernel.protected[-100:], 99),
        ("initrd", initrds[:SECTOR], 0),
        ("initrd", initrds[-100:], 99),
    ):
        at = contents.index(piece) + offset
        spoil(disk, at, bytes([contents[at] ^ 1]))
        fails(disk, DAMAGED.format(part), "virtio")
        spoil(disk, at, contents[at : at + 1])
    assert disk.read_bytes() == contents


@pytest.mark.parametrize("drive", ["ide", "virtio"])
def test_sectors_in_the_wrong_order(disk: Path, contents: bytes, drive: Drive) -> None:
    at = kernel_at(contents)
    one, two = contents[at : at + SECTOR], contents[at + SECTOR : at + 2 * SECTOR]
    assert one != two
    spoil(disk, at, two + one)
    fails(disk, DAMAGED.format("kernel"), drive)


@pytest.mark.parametrize("drive", ["ide", "ahci", "virtio", "usb"])
def test_a_disk_that_ends_too_soon(disk: Path, contents: bytes, drive: Drive) -> None:
    at = kernel_at(contents)
    with disk.open("r+b") as stream:
        stream.truncate(at)
    fails(
        disk,
        r"kernel cannot be read: drive 0x0*80, LBA 0x[0-9A-F]+: status 0x[0-9A-F]+",
        drive,
    )


def test_a_loader_that_is_damaged(disk: Path, contents: bytes) -> None:
    """Its text begins with what it may say."""
    at = contents.index(b"the A20 gate")
    spoil(disk, at, b"T")
    fails(disk, "drive 80, status 00: bad loader", "ide")


def too_little_memory(part: str, ram: int) -> str:
    """The address where the RAM ends is near the end of what there is."""
    return (
        rf"too little memory: {part} needs 0x[0-9A-F]+ to 0x[0-9A-F]+, "
        rf"there is no RAM for it at 0x0*{ram - MIB >> 20:X}[0-9A-F]{{5}}"
    )


def test_too_little_memory_for_the_initrd(
    built: Callable[[str], Path], shop: Workshop, tmp_path: Path
) -> None:
    built(f"{NAME}.pc")
    more = tmp_path / "more"
    more.write_bytes(bytes(20 * MIB))
    image = make(named(NAME), "pc", tmp_path / "disk.img", {}, shop=shop, more=(more,))
    fails(image.path, too_little_memory("initrd", 16 * MIB), "ide", "-m", "16M")
    run(image.path, REPORT, "ide", "-m", "64M")


def test_too_little_memory_for_a_large_initramfs(
    built: Callable[[str], Path], shop: Workshop, tmp_path: Path
) -> None:
    built("debian.pc")
    more = tmp_path / "more"
    more.write_bytes(bytes(64 * MIB))
    image = make(named("debian"), "pc", tmp_path / "disk.img", {}, shop=shop, more=(more,))
    fails(image.path, too_little_memory("(initrd|init_size)", 64 * MIB), "virtio", "-m", "64M")


@pytest.mark.parametrize("cpu", ["486", "pentium3"])
def test_a_cpu_without_long_mode(cpu: str, made: Callable[[str, str, str], Made]) -> None:
    message = r"this kernel needs a 64-bit CPU \(long mode\), this one is none"
    fails(made("memtest86+x64", "pc", "disk").path, message, "ide", "-cpu", cpu)


@pytest.mark.parametrize("drive", ["ide", "ahci", "virtio", "usb"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_read_error_that_goes_away(disk: Path, contents: bytes, drive: Drive, times: int) -> None:
    fault = {"sector": kernel_at(contents) // SECTOR, "once": True}
    assert not messages(boot(with_faults(disk, drive, [fault] * times), disk.parent, REPORT))


@pytest.mark.parametrize("drive", ["ide", "ahci", "virtio", "usb"])
def test_a_read_error_that_stays(disk: Path, contents: bytes, drive: Drive) -> None:
    fault = {"sector": kernel_at(contents) // SECTOR}
    message = r"kernel cannot be read: drive 0x0*80, LBA 0x[0-9A-F]+: status 0x[0-9A-F]+"
    arguments = with_faults(disk, drive, [fault])
    says(boot(arguments, disk.parent, f"^bootsplice: {message}\n"), message)


@pytest.mark.parametrize("drive", ["ide", "virtio"])
def test_a_read_error_in_the_loader(disk: Path, contents: bytes, drive: Drive) -> None:
    fault = {"sector": contents.index(b"the A20 gate") // SECTOR}
    message = "drive 80, status [0-9A-F]{2}: bad loader"
    arguments = with_faults(disk, drive, [{**fault, "once": True}] * 2)
    assert not messages(boot(arguments, disk.parent, REPORT))
    arguments = with_faults(disk, drive, [fault])
    says(boot(arguments, disk.parent, f"^bootsplice: {message}\n"), message)


def test_progress_of_a_slow_drive(disk: Path) -> None:
    slow, attached = "throttling.bps-read=2000000", drives.arguments(drives.read(disk), "virtio")
    attached[1] += f",{slow}"
    log = boot(attached, disk.parent, REPORT).serial
    shown = [int(figure) for figure in re.findall(r"bootsplice: loading (\d+)%", log)]
    assert shown == sorted(shown)
    assert len(set(shown)) > 2
    assert shown[-1] == 100


def test_a_fast_drive_is_quiet(made: Callable[[str, str, str], Made]) -> None:
    """Of the smallest kernel, so that it is fast on a busy machine, too."""
    assert "bootsplice: " not in run(made("probe-old", "pc", "disk").path, REPORT, "virtio").serial
