"""`bootsplice boot` on a file: told by its content, attached as asked, and left as it was."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from booting import TIMEOUT
from fakekernel import image as fake_kernel
from missing import missing

from pybuild import drives, material, paths
from pybuild.drives import Drive
from pybuild.errors import InputError
from pybuild.guest import Guest
from pybuild.material import Workshop

DISK_SIZE = 4 << 20  # bytes; enough for a BIOS to give the disk a geometry
SECTOR = 512
DISKS: list[Drive] = ["ide", "ahci", "virtio", "usb"]


def boot(image: Path | str, *options: str, where: Path | None = None) -> tuple[int, str, str]:
    """The real command: its exit status, what the guest said, what it said itself."""
    command = [sys.executable, "-m", "pybuild.cli", "boot", str(image)]
    run = subprocess.run(
        [*command, "--timeout", str(TIMEOUT), *options],
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in run.stderr
    return run.returncode, run.stdout, run.stderr


@pytest.fixture(scope="module")
def floppy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A floppy image whose boot sector says that it runs, and whether it is in a floppy drive."""
    build = tmp_path_factory.mktemp("floppy")
    shop = Workshop(paths.ROOT, build, paths.cache_directory(), print)
    return material.make({"source": "floppy/floppy.asm"}, paths.KERNELS, "floppy", shop)


@pytest.fixture
def disk(floppy: Path, tmp_path: Path) -> Path:
    """The same boot sector on a disk."""
    path = tmp_path / "file:a disk, new.img"  # a name that QEMU would take apart
    path.write_bytes(floppy.read_bytes().ljust(DISK_SIZE, b"\0"))
    return path


@pytest.mark.boot
@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("drive", [None, *DISKS])
def test_a_disk(disk: Path, drive: Drive | None, machine: str) -> None:
    options = ["--drive", drive] if drive else []
    options += ["--expect", "^last_sector=wrong$", "--", "-nic", "none", "-M", machine]
    status, said, error = boot(disk.name, *options, where=disk.parent)
    assert (status, said.splitlines()[0]) == (0, "floppy=bootsplice"), error


@pytest.mark.boot
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_floppy(floppy: Path, machine: str) -> None:
    """It ends by isa-debug-exit, with success only if the geometry is a floppy's."""
    status, said, error = boot(floppy, "--drive", "floppy", "--", "-nic", "none", "-M", machine)
    assert (status, said.splitlines()[-1]) == (0, "end=ok"), error


@pytest.mark.boot
@pytest.mark.parametrize("drive", [*DISKS, "floppy"])
def test_it_goes_before_other_drives(
    disk: Path, floppy: Path, tmp_path: Path, drive: Drive
) -> None:
    """QEMU's own arguments may add some; the blank one does not even have a boot sector."""
    (tmp_path / "blank.img").write_bytes(bytes(DISK_SIZE))
    image = floppy if drive == "floppy" else disk
    options = ["--drive", drive, "--expect", "^last_sector=", "--", "-nic", "none"]
    status, _, error = boot(image, *options, "-hdb", "blank.img", where=tmp_path)
    assert status == 0, error


@pytest.mark.boot
@pytest.mark.parametrize("suffix", ["qcow2", "vmdk", "vdi", "vhdx"])
def test_other_formats(disk: Path, tmp_path: Path, suffix: str) -> None:
    if shutil.which("qemu-img") is None:
        missing("qemu-img is not installed; apt-get install qemu-utils")
    path = tmp_path / "image"  # the content says what it is, not the name
    command = ["qemu-img", "convert", "-f", "raw", "-O", suffix, str(disk), str(path)]
    subprocess.run(command, check=True)
    assert drives.read(path).format == suffix
    status, said, error = boot(path, "--expect", "^last_sector=", "--", "-nic", "none")
    assert (status, said.splitlines()[0]) == (0, "floppy=bootsplice"), error


def ancestors(tree: str, drive: str) -> list[str]:
    """The devices that a drive hangs on, each with its id, from QEMU's `info qtree`."""
    above: list[tuple[int, str]] = []
    for line in tree.splitlines():
        indentation = len(line) - len(line.lstrip())
        if device := re.match(r"\s*dev: ([^,]+), id \"(.*)\"", line):
            above = [(depth, name) for depth, name in above if depth < indentation]
            above.append((indentation, f"{device[1]} {device[2]}"))
        if line.strip() == f'drive = "{drive}"':
            return [name for _, name in above]
    raise AssertionError(f"no {drive} in:\n{tree}")


@pytest.mark.boot
@pytest.mark.parametrize(
    ("machine", "drive", "controller"),
    [
        ("pc", "ide", "piix3-ide "),
        ("q35", "ide", "ich9-ahci "),
        ("pc", "ahci", "ich9-ahci controller"),
        ("q35", "ahci", "ich9-ahci controller"),
        ("pc", "virtio", "virtio-blk-pci "),
        ("q35", "virtio", "virtio-blk-pci "),
        ("pc", "usb", "qemu-xhci controller"),
        ("q35", "usb", "qemu-xhci controller"),
        ("pc", "floppy", "isa-fdc "),
        ("q35", "floppy", "isa-fdc "),
        ("pc", "cdrom", "piix3-ide "),
        ("q35", "cdrom", "ich9-ahci "),
    ],
)
def test_the_controller_is_the_one_asked_for_and_the_file_is_safe(
    floppy: Path, tmp_path: Path, machine: str, drive: Drive, controller: str
) -> None:
    path = tmp_path / "image"
    shutil.copyfile(floppy, path)
    os.utime(path, (1, 1))
    name = "floppy0" if drive == "floppy" else "image"
    arguments = ["-S", "-nic", "none", "-M", machine]
    arguments += drives.arguments(drives.read(path), drive)

    async def monitor(guest: Guest, line: str) -> str:
        return str(await guest.execute("human-monitor-command", {"command-line": line}))

    async def session() -> tuple[str, str]:
        async with Guest.start(arguments, directory=tmp_path, stream=lambda _: None) as guest:
            tree = await monitor(guest, "info qtree")
            said = await monitor(guest, f'qemu-io {name} "write -P 85 0 512"')
            await monitor(guest, f'qemu-io {name} "flush"')
        return tree, said + guest.serial  # what qemu-io prints is on QEMU's standard output

    tree, said = asyncio.run(session())
    assert controller in ancestors(tree, name)
    assert ("read-only" if drive == "cdrom" else "wrote 512/512 bytes") in said
    assert path.read_bytes() == floppy.read_bytes()
    assert path.stat().st_mtime == 1


def test_a_cd_is_one_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "image.img"
    path.write_bytes(bytes(0x8001) + b"CD001" + bytes(SECTOR))
    assert "ide-cd" in " ".join(drives.arguments(drives.read(path), None))
    assert "ide-hd" in " ".join(drives.arguments(drives.read(path), "ide"))


def test_a_disk_is_one_by_its_boot_signature(tmp_path: Path) -> None:
    path = tmp_path / "image.iso"
    path.write_bytes(bytes(SECTOR - 2) + b"\x55\xaa")
    assert "ide-hd" in " ".join(drives.arguments(drives.read(path), None))
    assert "ide-cd" in " ".join(drives.arguments(drives.read(path), "cdrom"))


@pytest.mark.boot
@pytest.mark.parametrize(("options", "ram"), [([], 512), (["-m", "24M"], 24)])
def test_ram(disk: Path, options: list[str], ram: int, tmp_path: Path) -> None:
    """SeaBIOS says how much it found; the guest need not boot."""
    log = tmp_path / "seabios.log"
    more = [
        "-chardev",
        f"file,id=log,path={log}",
        "-device",
        "isa-debugcon,iobase=0x402,chardev=log",
    ]
    status, _, error = boot(
        disk, "--expect", "^last_sector=", "--", "-nic", "none", *more, *options
    )
    assert status == 0, error
    assert f"len {ram << 20:#018x} [RAM]" in log.read_text(errors="replace")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "an empty file; expected a disk image with a boot sector, an ISO 9660 image, .*"),
        (bytes(DISK_SIZE), "nothing but zero bytes; expected .*"),
        (b"\x7fELF" + bytes(SECTOR), r"an ELF file .*; expected .*"),
        (b"x" * 100, "a text file; expected .*"),
        (fake_kernel(0x20F), "a Linux kernel, which no BIOS starts .* `bootsplice build`"),
    ],
)
def test_what_boots_from_no_drive(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "image"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        drives.read(path)
    assert re.fullmatch(f"{path}: no image to boot: {why}", str(caught.value))


@pytest.mark.timeout(20)
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, why in (
        ("fifo", "expected a disk image .*"),
        ("/dev/zero", "expected a disk image .*"),
        ("loop", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
    ):
        status, said, error = boot(name, where=tmp_path)
        assert (status, said) == (2, "")
        assert re.fullmatch(f"bootsplice: {name}: no image to boot: {why}\n", error)


def test_what_does_not_fit_a_drive(disk: Path, tmp_path: Path) -> None:
    status, _, error = boot(disk, "--drive", "floppy")
    assert status == 2
    assert error == (
        f"bootsplice: {disk}: has 4194304 bytes, and a floppy has at most 2949120; "
        "give another --drive\n"
    )
    (tmp_path / "folder").mkdir()
    status, _, error = boot("folder", "--drive", "usb", where=tmp_path)
    assert status == 2
    assert error == "bootsplice: folder: is a folder; --drive usb is for a disk or CD image\n"
    assert boot(disk, "--drive", "tape")[0] == 2
