"""One run of QEMU by the clock: from its start to its exit, which the guest causes."""

import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench import inputs
from pybuild.errors import BuildError

PROGRAM: Final = "qemu-system-x86_64"
RAM: Final = 512  # MiB
_TIMEOUT: Final = 120.0  # seconds; the slowest peer takes 25
_OWN: Final = (
    *("-machine", "pc", "-accel", "tcg", "-m", str(RAM)),
    *("-display", "none", "-monitor", "none", "-serial", "null", "-nic", "none", "-no-reboot"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
)

DEVICES: Final = ("IDE", "virtio", "AHCI")
_DEVICES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("disk", "IDE"): ("-device", "ide-hd,drive=boot"),
    ("disk", "virtio"): ("-device", "virtio-blk-pci,drive=boot"),
    ("disk", "AHCI"): ("-device", "ahci,id=ahci", "-device", "ide-hd,drive=boot,bus=ahci.0"),
    ("cd", "IDE"): ("-device", "ide-cd,drive=boot"),
    ("cd", "virtio"): ("-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=boot"),
    ("cd", "AHCI"): ("-device", "ahci,id=ahci", "-device", "ide-cd,drive=boot,bus=ahci.0"),
}


def drive(image: Path, medium: str, device: str) -> list[str]:
    """QEMU's arguments for an image as a "disk" or a "cd" on one of the DEVICES."""
    name = str(image).replace(",", ",,")
    media = ",media=cdrom" if medium == "cd" else ""
    return [
        *("-drive", f"file={name},format=raw,if=none,id=boot{media}"),
        *_DEVICES[medium, device],
    ]


def seconds(arguments: list[str], expected: int, what: str) -> float:
    """How long QEMU ran, until its guest wrote `expected` to isa-debug-exit.

    Args:
        arguments: beside those that all runs share.
        expected: one of the codes in `inputs`.
        what: is booted, for the message.

    Raises:
        BuildError: the guest wrote something else, or nothing in time.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise BuildError(f"{PROGRAM} is not installed; apt-get install qemu-system-x86")
    command = [program, *_OWN, *arguments]
    began = time.perf_counter()
    # Popen.wait with a time-out looks only every 50 ms whether the process is gone; this waits.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        handle = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            ended = poll.poll(_TIMEOUT * 1000)
            took = time.perf_counter() - began
        finally:
            os.close(handle)
            process.kill()
        _, said = process.communicate()
    if not ended:
        raise BuildError(f"{what}: the guest did not end within {_TIMEOUT:g} s")
    status = process.returncode
    if status != expected << 1 | 1:
        found = inputs.what(status >> 1) if status > 1 and status & 1 else f"QEMU's {status}"
        raise BuildError(
            f"{what}: the guest says: {found}; expected: {inputs.what(expected)}\n"
            f"{said.decode(errors='replace').strip()}".rstrip()
        )
    return took
