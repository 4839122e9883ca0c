"""Boots an image in Bochs, a PC that forgives less than QEMU: segment limits, reserved bits, CHS.

Bochs has its own BIOS, too. It runs without a screen: its text-mode display needs a terminal,
which it gets in the form of a pseudoterminal that nobody reads but us.
"""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from missing import missing

BIOS: Final = Path("/usr/share/bochs/BIOS-bochs-latest")
VGA_BIOS: Final = Path("/usr/share/vgabios/vgabios.bin")
TIMEOUT: Final = 120  # seconds; a boot takes about one

_SECTOR: Final = 512
_HEADS: Final = 16
_SECTORS_PER_TRACK: Final = 63
_CYLINDER: Final = _HEADS * _SECTORS_PER_TRACK * _SECTOR
_POLL: Final = 0.1  # seconds between two looks at the serial port
_LOG_LINES: Final = 40  # of Bochs's own log, shown with a failure

Kind = Literal["disk", "cdrom", "floppy"]

_DRIVES: Final[dict[Kind, str]] = {
    "disk": (
        'ata0-master: type=disk, mode=flat, path="{path}", cylinders={cylinders}, '
        f"heads={_HEADS}, spt={_SECTORS_PER_TRACK}, translation=auto"
    ),
    "cdrom": 'ata0-master: type=cdrom, path="{path}", status=inserted',
    "floppy": 'floppya: 1_44="{path}", status=inserted',
}

# `ips` only says how fast Bochs's clock goes; slower and the BIOS's delays are sooner over.
# A panic, which a triple fault is, ends Bochs with a message.
_CONFIGURATION: Final = """\
config_interface: textconfig
display_library: term
romimage: file={bios}
vgaromimage: file={vga_bios}
megs: {megs}
cpu: model={cpu}, count=1, ips=10000000, reset_on_triple_fault=0
clock: sync=none
{drive}
boot: {kind}
com1: enabled=1, mode=file, dev="{serial}"
log: {log}
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
"""


def boot(
    image: Path,
    expect: str,
    room: Path,
    *,
    kind: Kind = "disk",
    megs: int = 64,
    cpu: str = "bx_generic",
) -> str:
    """Boots to the expected text and returns the serial log; a failure shows it and Bochs's own.

    Args:
        image: a raw disk image, an ISO or a 1.44 MB floppy; only a copy is used.
        expect: a regular expression, as with re.MULTILINE, for the serial log.
        room: an empty folder for what the run leaves.
        kind: what the image is to the guest.
        megs: MiB of RAM.
        cpu: one of `bochs --help cpu`.
    """
    for needed, package in ((BIOS, "bochsbios"), (VGA_BIOS, "vgabios")):
        if not needed.exists():
            missing(f"{needed} is missing; apt-get install {package}")
    if shutil.which("bochs") is None:
        missing("bochs is not installed; apt-get install bochs bochs-term")

    copy, serial, log = room / "image", room / "serial.log", room / "bochs.log"
    shutil.copyfile(image, copy)
    cylinders = -(-copy.stat().st_size // _CYLINDER)
    if kind == "disk":  # Bochs has no disks but of whole cylinders
        os.truncate(copy, cylinders * _CYLINDER)
    (room / "bochsrc").write_text(
        _CONFIGURATION.format(
            bios=BIOS,
            vga_bios=VGA_BIOS,
            megs=megs,
            cpu=cpu,
            drive=_DRIVES[kind].format(path=copy, cylinders=cylinders),
            kind=kind,
            serial=serial,
            log=log,
        )
    )
    # Debian's Bochs stops in its debugger before the first instruction: let it go on.
    (room / "debugger").write_text("continue\n")

    def text(path: Path) -> str:
        log = path.read_bytes() if path.exists() else b""
        return log.decode(errors="replace").replace("\r\n", "\n")

    def seen() -> bool:
        return re.search(expect, text(serial), re.MULTILINE) is not None

    started = time.monotonic()
    terminal = _run(room, seen)
    seconds = time.monotonic() - started
    if "display library 'term' not available" in terminal:
        missing("bochs has no display for terminals; apt-get install bochs-term")
    tail = "\n".join(text(log).splitlines()[-_LOG_LINES:])
    assert seen(), (
        f"{image}: {expect!r} was not seen in {seconds:.1f} s\n--- serial port\n{text(serial)}\n"
        f"--- the end of bochs.log\n{tail}\n--- terminal\n{terminal}"
    )
    return text(serial)


def _run(room: Path, seen: Callable[[], bool]) -> str:
    """Runs Bochs until the text is seen, it ends, or the time is up; what the terminal got."""
    ours, theirs = pty.openpty()
    command = ["bochs", "-q", "-f", "bochsrc", "-rc", "debugger"]
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "wb") as inside:
        process = subprocess.Popen(
            command,
            cwd=room,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
        )
        output = bytearray()
        deadline = time.monotonic() + TIMEOUT
        try:
            while process.poll() is None and not seen() and time.monotonic() < deadline:
                # Taken in, or Bochs waits when the terminal's buffer is full.
                if select.select([terminal], [], [], _POLL)[0]:
                    output += terminal.read(1 << 16) or b""
        finally:
            process.kill()
            process.wait()
        return output.decode(errors="replace")
