"""The command line: `bootsplice inspect`, `build` and `boot`.

Exit status 0 for success, 1 for a failed build or boot, 2 for wrong input; a failure is one line
on standard error. Imports that are slow (asyncio, for QEMU's monitor) happen where they are needed.
"""

import io
import json
import math
import re
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn, get_args

import click

from pybuild import kernel as kernels
from pybuild import mover, report
from pybuild.build import Order
from pybuild.build import build as build_image
from pybuild.errors import BuildError, InputError, reported

_FILE: Final = click.Path(path_type=Path)
_BOOT_SECONDS: Final = 60.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bootsplice")
def cli() -> None:
    """Make a Linux/x86 boot protocol kernel boot where nothing else boots it."""


@cli.command(short_help="Say what a kernel is.")
@click.argument("kernel", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(kernel: Path, *, as_json: bool) -> None:
    """Say what KERNEL is: its setup header field by field, its entries, what is odd about it."""
    image = kernels.read(kernel)
    click.echo(json.dumps(report.describe(image), indent=1) if as_json else report.text(image))


@cli.command()
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
@click.option("--target", default="ram", show_default=True, help="What to build.")
@click.option(
    "-o",
    "--output",
    "out",
    type=_FILE,
    required=True,
    help="The folder to write; one that bootsplice wrote is replaced.",
)
def build(
    kernel: Path,
    initrds: tuple[Path, ...],
    cmdline: str,
    machine: str,
    move: mover.Choice,
    target: str,
    out: Path,
) -> None:
    """Build a bootable image from KERNEL."""
    plan = build_image(Order(kernel, initrds, cmdline, machine, target, move), out)
    for note in plan.notes:
        click.echo(f"bootsplice: {note}", err=True)


@cli.command(short_help="Boot a built image in QEMU.")
@click.argument("image", metavar="OUT", type=_FILE)
@click.option("--expect", metavar="REGEX", help="Succeed when serial port or screen show this.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Fail after so long; {_BOOT_SECONDS:g} with --expect, else never.",
)
@click.option("--screenshot", metavar="F.png", type=_FILE, help="Keep the last screen as PNG.")
@click.argument("qemu_arguments", metavar="[-- QEMU ARGS]", nargs=-1)
def boot(
    image: Path,
    expect: str | None,
    timeout: float | None,
    screenshot: Path | None,
    qemu_arguments: tuple[str, ...],
) -> None:
    """Boot OUT, a folder that `build --target ram` wrote, in QEMU, its serial port on stdout.

    The exit status is 0 when --expect was seen, or without it when the guest ended by itself.
    QEMU ARGS go to qemu-system-x86_64 as they are; RAM (-m) must be what the image was built for.
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
        screenshot=screenshot,
        extra=qemu_arguments,
    )
    if expect is not None:
        click.echo(f"bootsplice: seen after {result.seconds:.1f} s: {expect}", err=True)


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
