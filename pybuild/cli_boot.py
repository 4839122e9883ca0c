"""The command line for booting: `bootsplice boot`."""

import functools
import math
import re
from pathlib import Path
from typing import Final, Literal, get_args

import click

from pybuild import drives, say
from pybuild.errors import InputError

_FILE: Final = click.Path(path_type=Path)
_BOOT_SECONDS: Final = 60.0

memory_option = click.option(
    "--memory",
    metavar="MIB",
    type=click.IntRange(min=1),
    help="RAM; 512, or what a folder was built for, if it is not given.",
)
vcpus_option = click.option(
    "--vcpus", metavar="N", type=click.IntRange(min=1), help="Processors; 1 if it is not given."
)
drive_option = click.option(
    "--drive",
    type=click.Choice(get_args(drives.Drive)),
    help="What a file is to the guest; cdrom for an ISO, else ide (AHCI with -- -M q35).",
)


@click.command(
    short_help="Boot a built image, in QEMU or on Xen.",
    epilog="""\b
bootsplice boot disk.img --expect login: --timeout 30 --screenshot login.png
bootsplice boot cd.iso --memory 1024 -- -M q35 -nic none
bootsplice boot disk.img --on xen --vcpus 2
""",
)
@click.argument("image", metavar="IMAGE", type=_FILE)
@click.option("--expect", metavar="REGEX", help="Succeed when serial port or screen show this.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Fail after so long; {_BOOT_SECONDS:g} with --expect, else never.",
)
@click.option(
    "--on",
    type=click.Choice(["qemu", "xen"]),
    default="qemu",
    show_default=True,
    help="Where: in QEMU, or as an HVM guest of a real Xen, this host's if it has one, else one "
    "that runs in QEMU itself.",
)
@memory_option
@vcpus_option
@drive_option
@click.option("--screenshot", metavar="F.png", type=_FILE, help="Keep the last screen as PNG.")
@click.argument("qemu_arguments", metavar="[-- QEMU ARGS]", nargs=-1)
def boot(
    image: Path,
    expect: str | None,
    timeout: float | None,
    on: Literal["qemu", "xen"],
    memory: int | None,
    vcpus: int | None,
    drive: drives.Drive | None,
    screenshot: Path | None,
    qemu_arguments: tuple[str, ...],
) -> None:
    """Boot IMAGE, its serial port on stdout.

    IMAGE is a disk image or an ISO, which stays as it is whatever the guest writes, a folder that
    `build --target ram` wrote, or a kernel image, for QEMU's own loader (-kernel). The exit status
    is 0 when --expect was seen, or without it when the guest ended by itself. QEMU ARGS go to
    qemu-system-x86_64 as they are, on Xen to the guest's device model. The first `--on xen`
    downloads a Xen, if the host is not one: see `bootsplice lab`.
    """
    from pybuild import boot as booting

    try:
        pattern = re.compile(expect) if expect is not None else None
    except re.error as error:
        raise InputError(f"--expect {expect!r}: not a regular expression: {error}") from error
    if timeout is not None and not math.isfinite(timeout):
        raise InputError(f"--timeout {timeout}: expected a number of seconds")
    result = booting.boot(
        image,
        expect=pattern,
        timeout=timeout if timeout or not pattern else _BOOT_SECONDS,
        on=on,
        drive=drive,
        memory=memory,
        vcpus=vcpus,
        screenshot=screenshot,
        extra=qemu_arguments,
        steps=say.long_steps,
        waiting=functools.partial(say.late_steps, while_printing=True),
    )
    if expect is not None:
        say.note(f"seen after {result.seconds:.1f} s: {expect}")
