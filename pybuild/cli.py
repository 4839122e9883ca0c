"""The command line: `bootsplice`; each group of its commands has a file `cli_*.py`.

Exit status 0 for success, 1 for a failed build or boot, 2 for wrong input; a failure is one line
on standard error. Imports that are slow (asyncio, for QEMU's monitor) or that a command alone needs
happen in the command: the interpreter's start is most of the time that a small build takes. What a
build must not import is in tests/test_imports.py.
"""

import io
import signal
import sys
from typing import NoReturn

import click

from pybuild import cli_boot, cli_build, cli_look, cli_plan, cli_xen
from pybuild.errors import BuildError, InputError, reported


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bootsplice")
def cli() -> None:
    """Make a Linux/x86 boot protocol kernel boot where nothing else boots it."""


for _command in (
    cli_look.inspect,
    cli_plan.plan,
    cli_build.build,
    cli_build.restore,
    cli_boot.boot,
    cli_xen.xl,
    cli_xen.lab,
):
    cli.add_command(_command)


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
