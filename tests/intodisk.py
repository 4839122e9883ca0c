"""Disks of others, and payloads of ours that go into them by `build --into`."""

import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from disks import OWN, Space, make, patch
from fakekernel import probe

from pybuild import build
from pybuild.build import Order

NOISE_SEED = 3
GRUB = b"\xeb\x63" + bytes(0x5A) + (34).to_bytes(8, "little") + bytes(0x11C)
GRUB += b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n"


# Each has a partition of 4 MiB for the payload, named below, and others with noise.
LAYOUTS = {
    "mbr": (
        "label: dos\nlabel-id: 0x12345678\nstart=4096, size=2048, bootable\n"
        "start=8192, size=8192, type=da\nstart=16384, size=24576, type=5\n"
        "start=18432, size=2048\nstart=22528, size=8192, type=da\n"
    ),
    "gpt": (
        "label: gpt\nlabel-id: 12345678-1234-1234-1234-123456789ABC\nfirst-lba: 34\n"
        "start=4096, size=2048\nstart=8192, size=8192, "
        "type=21686148-6449-6E6F-744E-656564454649\n"
    ),
}
NOISE = {"mbr": {4096: 2048, 18432: 2048, 45056: 1000}, "gpt": {4096: 2048, 20000: 1000}}
PLACES = {  # scheme, partition, what may change
    "mbr-gap": ("mbr", None, Space(1, 4096)),
    "mbr-primary": ("mbr", 2, Space(8192, 16384)),
    "mbr-logical": ("mbr", 6, Space(22528, 30720)),
    "gpt-gap": ("gpt", None, Space(34, 4096)),
    "gpt-partition": ("gpt", 2, Space(8192, 16384)),
}


@dataclass(frozen=True)
class Payload:
    """What to build from; the command line tells one from another."""

    kernel: Path
    initrd: Path

    def order(self, cmdline: str, *, initrds: bool = True) -> Order:
        return Order(self.kernel, (self.initrd,) * initrds, cmdline)

    def put(self, disk: Path, number: int | None, cmdline: str, *, initrds: bool = True) -> None:
        build.build_into(self.order(cmdline, initrds=initrds), disk, number)


def small_payload(folder: Path) -> Payload:
    """A kernel that reports, and an initrd of noise."""
    initrd = folder / "initrd"
    initrd.write_bytes(random.Random(NOISE_SEED).randbytes(300_001))
    return Payload(probe("2.10", folder), initrd)


def disk_of(layout: str, path: Path) -> bytes:
    """A disk of LAYOUTS; its boot code is somebody else's."""
    make(path, LAYOUTS[layout], NOISE[layout])
    patch(path, 0, 0, random.Random(layout).randbytes(OWN.start))
    return path.read_bytes()


def command(*arguments: str | Path | int) -> list[str]:
    return [sys.executable, "-m", "pybuild.cli", *map(str, arguments)]


def run(*arguments: str | Path | int) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refusal(*arguments: str | Path | int) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("bootsplice: ")
