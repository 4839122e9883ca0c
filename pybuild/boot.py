"""Boots a built image in QEMU or on Xen and says how it went."""

import functools
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pybuild import drives, watch
from pybuild.drives import Drive
from pybuild.errors import BuildError, InputError
from pybuild.guest import PROGRAM, Guest
from pybuild.progress import Progress, Steps, silently
from pybuild.targets.ram import ARGUMENTS
from pybuild.watch import BootResult

On: TypeAlias = Literal["qemu", "xen"]

# What a guest that is content writes to isa-debug-exit, as QEMU's exit status.
GUEST_SUCCESS: Final = 0x10 << 1 | 1

_RAM: Final = ("-m", f"{drives.DEFAULT_MEMORY}M")  # for a file; a later -m wins


def boot(
    image: Path,
    *,
    expect: re.Pattern[str] | None,
    timeout: float | None,
    on: On = "qemu",
    drive: Drive | None = None,
    memory: int | None = None,
    vcpus: int | None = None,
    screenshot: Path | None = None,
    extra: Sequence[str] = (),
    steps: Steps = silently,
    waiting: Steps = silently,
) -> BootResult:
    """Boots an image; the guest's serial port goes to standard output.

    Args:
        image: a file that a PC boots from, a folder that target `ram` wrote, or a kernel image,
            which QEMU is the loader of.
        expect: what must be seen on the serial port or the screen; without it the guest must end
            by itself, by powering off or, in QEMU, by writing 0x10 to isa-debug-exit. A reset is a
            failure: a triple fault and a kernel's panic end that way.
        timeout: seconds, or None for no limit.
        on: where: in QEMU, or as an HVM guest of Xen: of this host's if it is a dom0, else of the
            lab's.
        drive: how a file is attached; None for `cdrom` if it is a CD, else `ide`.
        memory: MiB of RAM; None for 512, or what a folder was built for.
        vcpus: processors; None for 1.
        screenshot: a PNG file to write at the end.
        extra: more arguments for QEMU, which is the device model on Xen; relative names in them
            are meant from the folder, or with a file from the current directory.
        steps: shows the steps of making the lab, which only the first use of it takes.
        waiting: shows what QEMU is told, and what is waited for.

    Raises:
        InputError: there is no such image, or it cannot be attached so.
        BuildError: it didn't go as expected; the message has the serial log and the screen.
    """
    place = _in_qemu if on == "qemu" else _on_xen
    with waiting() as told:
        ready = place(image, drive, memory, vcpus, extra, told)
        if screenshot is not None and not screenshot.parent.is_dir():
            raise InputError(f"--screenshot {screenshot}: its folder does not exist")
        if screenshot is not None and screenshot.is_dir():
            raise InputError(f"--screenshot {screenshot}: is a folder, expected a file")
        with steps() as progress:
            start = ready(progress)
        told(_awaited(expect, timeout))
        output = SerialOutput()
        try:
            result = watch.run(
                start, expect=expect, timeout=timeout, screenshot=screenshot, stream=output.write
            )
        finally:
            output.end_line()
    failure = _failure(result, expect, timeout)
    if failure:
        raise BuildError(f"{image}: {failure}\n{shown(result.serial, result.screen)}")
    return result


def shown(serial: str, screen: str) -> str:
    """What a guest has said, for a message."""
    return f"--- serial port\n{serial.rstrip()}\n--- screen\n{screen}\n---"


def qemu_arguments(
    image: Path, drive: Drive | None, memory: int | None, vcpus: int | None, extra: Sequence[str]
) -> tuple[list[str], Path]:
    """QEMU's arguments that boot an image, as `boot` takes them, and the folder to run QEMU in.

    Raises:
        InputError: there is no such image, or it cannot be attached so.
    """
    if drives.is_folder(image, drive):
        arguments, directory = _folder_arguments(image), image
    elif drive is None and drives.is_kernel(image):
        arguments, directory = [*_RAM, "-kernel", str(image.absolute())], Path()
    else:
        arguments, directory = [*_RAM, *drives.arguments(drives.read(image), drive)], Path()
    if memory is not None:
        arguments += ["-m", f"{memory}M"]
    if vcpus is not None:
        arguments += ["-smp", str(vcpus)]
    return [*arguments, *extra], directory


def _in_qemu(
    image: Path,
    drive: Drive | None,
    memory: int | None,
    vcpus: int | None,
    extra: Sequence[str],
    told: Progress,
) -> Callable[[Progress], watch.Start]:
    arguments, directory = qemu_arguments(image, drive, memory, vcpus, extra)
    where = f"in {directory}, " if directory.name else ""
    told(f"{where}running {shlex.join([PROGRAM, *arguments])}")
    return lambda _: functools.partial(Guest.start, arguments, directory)


def _on_xen(
    image: Path,
    drive: Drive | None,
    memory: int | None,
    vcpus: int | None,
    extra: Sequence[str],
    _told: Progress,
) -> Callable[[Progress], watch.Start]:
    from pybuild.xen import start, xl

    def domain(where: str) -> xl.Domain:
        return xl.of_image(image, where, drive, memory, vcpus, extra)

    domain(str(image))  # what is wrong with it is said before the lab is made
    return lambda progress: start.guest(image, domain, progress)


def _folder_arguments(folder: Path) -> list[str]:
    try:
        return (folder / ARGUMENTS).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise InputError(
            f"{folder}: no image that `build --target ram` wrote: {ARGUMENTS}: {why}"
        ) from error


def _awaited(expect: re.Pattern[str] | None, timeout: float | None) -> str:
    what = "the guest's end" if expect is None else repr(expect.pattern)
    return f"waiting for {what}" + (f", {timeout:g} s at most" if timeout else "")


def _failure(
    result: BootResult, expect: re.Pattern[str] | None, timeout: float | None
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


def _how_it_ended(result: BootResult) -> str:
    status = f" with QEMU's exit status {result.exit_status}" if result.exit_status else ""
    reason = f" ({result.shutdown_reason})" if result.shutdown_reason else ""
    said = f": {result.messages}" if result.messages else ""
    return f"the guest ended after {result.seconds:.1f} s{status}{reason}{said}"


class SerialOutput:
    """Standard output as the place of a guest's serial log, which others write to as well."""

    def __init__(self) -> None:
        self._is_within_line = False

    def write(self, text: str) -> None:
        """Shows a piece of the log, at once."""
        sys.stdout.write(text)
        sys.stdout.flush()
        if text:
            self._is_within_line = not text.endswith("\n")

    def end_line(self) -> None:
        """Ends the line that the guest may be in, so that what others write has lines of its own.

        Standard error is often the same terminal, or goes to the same log.
        """
        if self._is_within_line:
            self.write("\n")
