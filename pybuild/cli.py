"""The command line: `bootsplice inspect`, `build`, `restore` and `boot`; Xen's is in cli_xen.py.

Exit status 0 for success, 1 for a failed build or boot, 2 for wrong input; a failure is one line
on standard error. Imports that are slow (asyncio, for QEMU's monitor) or that a command alone needs
happen there: the interpreter's start is most of the time that a small build takes. What a build
must not import is in tests/test_imports.py.
"""

import io
import math
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeVar, get_args

import click

from pybuild import cli_xen, drives, mover, targets
from pybuild import kernel as kernels
from pybuild.errors import BuildError, InputError, reported

_FILE: Final = click.Path(path_type=Path)
_BOOT_SECONDS: Final = 60.0
_NOT_ASKED: Final = (None, False)  # what an option is that isn't there
_EXAMPLE: Final = """\b
bootsplice build bzImage --initrd initrd.img --cmdline 'console=ttyS0' -o disk.img
bootsplice boot disk.img
"""

_Command = TypeVar("_Command", bound=Callable[..., None])


def _options_of_targets(command: _Command) -> _Command:
    """Adds an option for each that a target has."""
    for name, (option, having) in reversed(targets.options().items()):
        text = f"{option.help} ({', '.join(having)})"
        metavar = None if option.kind is bool else "BYTES" if option.kind is int else "TEXT"
        add = click.option(f"--{name}", is_flag=metavar is None, metavar=metavar, help=text)
        command = add(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bootsplice")
def cli() -> None:
    """Make a Linux/x86 boot protocol kernel boot where nothing else boots it."""


@cli.command(short_help="Say what a kernel is.")
@click.argument("kernel", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(kernel: Path, *, as_json: bool) -> None:
    """Say what KERNEL is: its setup header field by field, its entries, what is odd about it."""
    import json

    from pybuild import report

    image = kernels.read(kernel)
    click.echo(json.dumps(report.describe(image), indent=1) if as_json else report.text(image))


@cli.command(epilog=_EXAMPLE)
@click.argument("kernel", type=_FILE)
@click.option(
    "--initrd", "initrds", type=_FILE, multiple=True, help="An initrd; may be given repeatedly."
)
@click.option("--cmdline", default="", help="The kernel's command line.")
@click.option(
    "--machine",
    default="pc",
    show_default=True,
    help="A profile (pc, xen-hvm) or the path of a TOML file.",
)
@click.option(
    "--move",
    type=click.Choice(get_args(mover.Choice)),
    default="auto",
    show_default=True,
    help="Who moves a kernel that cannot be loaded where it runs: its own setup code, through "
    "code32_start (hook), or a stage of ours before that (early).",
)
@click.option(
    "--target",
    help=f"What to build: {', '.join(targets.names())}. If it is not given, what the output's "
    f"suffix stands for, or else {targets.DEFAULT}.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=_FILE,
    help="The file to write; with target ram a folder, which is replaced only if bootsplice wrote "
    "it.",
)
@click.option(
    "--into",
    "disk",
    metavar="DISK",
    type=_FILE,
    help="Instead of -o: a raw disk image or a block device, to boot KERNEL from now on; all else "
    "on it stays as it is.",
)
@click.option(
    "--partition",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --into: the partition to use, whose contents are lost; without it the gap before "
    "the first one is used.",
)
@_options_of_targets
def build(
    kernel: Path,
    initrds: tuple[Path, ...],
    cmdline: str,
    machine: str,
    move: mover.Choice,
    target: str | None,
    out: Path | None,
    disk: Path | None,
    partition: int | None,
    **asked: bool | str | None,
) -> None:
    """Build a bootable image from KERNEL: a disk, if nothing else is asked for."""
    from pybuild.build import Order, build_into
    from pybuild.build import build as build_image

    # click makes volume_id of --volume-id.
    options = {
        key.replace("_", "-"): value for key, value in asked.items() if value not in _NOT_ASKED
    }
    if (out is None) == (disk is None):
        raise click.UsageError("Expected either -o or --into.")
    if partition is not None and disk is None:
        raise click.UsageError("--partition goes with --into.")
    notes: tuple[str, ...] = ()
    if disk is not None:
        for name in (*options, *([] if target in (None, targets.DEFAULT) else ["target"])):
            raise click.UsageError(f"--{name} does not go with --into.")
        order = Order(kernel, initrds, cmdline, machine, move=move)
        plan, notes = build_into(order, disk, partition)
    elif out is not None:
        target = target or targets.of_output(out)
        order = Order(kernel, initrds, cmdline, machine, target, move, options)
        plan = build_image(order, out)
    for note in (*plan.notes, *notes):
        click.echo(f"bootsplice: {note}", err=True)


@cli.command(short_help="Undo build --into.")
@click.argument("disk", type=_FILE)
def restore(disk: Path) -> None:
    """Put back the boot sector that DISK had before `build --into`.

    The partition table stays as it is now. What was written for the kernel stays on the disk, as
    free room for the next `build --into`.
    """
    from pybuild import into

    into.restore(disk)


@cli.command(short_help="Boot a built image, in QEMU or on Xen.")
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
@cli_xen.memory_option
@cli_xen.vcpus_option
@click.option(
    "--drive",
    type=click.Choice(get_args(drives.Drive)),
    help="What a file is to the guest; cdrom for an ISO, else ide (AHCI with -- -M q35).",
)
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
        steps=cli_xen.long_steps,
    )
    if expect is not None:
        click.echo(f"bootsplice: seen after {result.seconds:.1f} s: {expect}", err=True)


cli.add_command(cli_xen.xl)
cli.add_command(cli_xen.lab)


def main() -> None:
    """The entry point: turns what was foreseen into one line and an exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no guest is left behind
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be no text
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        with reported(_fail):
            sys.exit(cli(prog_name="bootsplice", standalone_mode=False))
    except click.UsageError as error:
        if len(sys.argv) == 1:  # `bootsplice` alone: the help
            error.show()
            sys.exit(error.exit_code)
        command = error.ctx.command_path if error.ctx else "bootsplice"
        _fail(
            f"bootsplice: {error.format_message()} (see {command} --help)", InputError.exit_status
        )
    except click.Abort:
        _fail("bootsplice: interrupted", BuildError.exit_status)


def _fail(message: str, status: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
