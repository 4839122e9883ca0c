"""Boots a built image in QEMU and says how it went."""

import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pybuild import drives, qemu
from pybuild.drives import Drive
from pybuild.errors import BuildError, InputError
from pybuild.targets.ram import ARGUMENTS

# What a guest that is content writes to isa-debug-exit, as QEMU's exit status.
GUEST_SUCCESS: Final = 0x10 << 1 | 1

_RAM: Final = ("-m", "512M")  # for a file; a later -m wins


def boot(
    image: Path,
    *,
    expect: re.Pattern[str] | None,
    timeout: float | None,
    drive: Drive | None = None,
    screenshot: Path | None = None,
    extra: Sequence[str] = (),
) -> qemu.BootResult:
    """Boots an image; the guest's serial port goes to standard output.

    Args:
        image: a file that a PC boots from, or a folder that target `ram` wrote.
        expect: what must be seen on the serial port or the screen; without it the guest must end
            by itself, by powering off or by writing 0x10 to isa-debug-exit. A reset is a failure:
            a triple fault and a kernel's panic end that way.
        timeout: seconds, or None for no limit.
        drive: how a file is attached; None for `cdrom` if it is a CD, else `ide`.
        screenshot: a PNG file to write at the end.
        extra: more arguments for QEMU; relative names in them are meant from the folder, or with
            a file from the current directory.

    Raises:
        InputError: there is no such image, or it cannot be attached so.
        BuildError: it didn't go as expected; the message has the serial log and the screen.
    """
    if _is_folder(image):
        arguments, directory = _folder_arguments(image, drive), image
    else:
        arguments, directory = [*_RAM, *drives.arguments(drives.read(image), drive)], Path()
    if screenshot is not None and not screenshot.parent.is_dir():
        raise InputError(f"--screenshot {screenshot}: its folder does not exist")
    if screenshot is not None and screenshot.is_dir():
        raise InputError(f"--screenshot {screenshot}: is a folder, expected a file")
    result = qemu.boot(
        [*arguments, *extra],
        directory=directory,
        expect=expect,
        timeout=timeout,
        screenshot=screenshot,
        stream=_to_stdout,
    )
    failure = _failure(result, expect, timeout)
    if failure:
        raise BuildError(
            f"{image}: {failure}\n"
            f"--- serial port\n{result.serial.rstrip()}\n--- screen\n{result.screen}\n---"
        )
    return result


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:  # whoever reads it says why it can't be
        return False


def _folder_arguments(folder: Path, drive: Drive | None) -> list[str]:
    if drive is not None:
        raise InputError(f"{folder}: is a folder; --drive {drive} is for a disk or CD image")
    try:
        return (folder / ARGUMENTS).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise InputError(
            f"{folder}: no image that `build --target ram` wrote: {ARGUMENTS}: {why}"
        ) from error


def _failure(
    result: qemu.BootResult, expect: re.Pattern[str] | None, timeout: float | None
) -> str | None:
    """What went wrong, in a phrase; None if nothing did."""
    if expect is not None:
        if result.matched:
            return None
        how = f"within {timeout:g} s" if result.timed_out else f"before {_how_it_ended(result)}"
        return f"{expect.pattern!r} was not seen {how}"
    if result.timed_out:
        return f"the guest did not end within {timeout:g} s"
    if result.shutdown_reason == "guest-shutdown" or result.exit_status == GUEST_SUCCESS:
        return None
    return _how_it_ended(result)


def _how_it_ended(result: qemu.BootResult) -> str:
    reason = f" ({result.shutdown_reason})" if result.shutdown_reason else ""
    said = f": {result.messages}" if result.messages else ""
    return (
        f"the guest ended after {result.seconds:.1f} s "
        f"with QEMU's exit status {result.exit_status}{reason}{said}"
    )


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
