"""The command line: `bootsplice`; each group of its commands has a file `cli_*.py`.

Exit status 0 for success, 1 for a failed build or boot, 2 for wrong input; a failure is one line
on standard error. Imports that are slow (asyncio, for QEMU's monitor) or that a command alone needs
happen in the command: the interpreter's start is most of the time that a small build takes. What a
build must not import is in tests/test_imports.py.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from pybuild import (
    __version__,
    cli_asm,
    cli_boot,
    cli_build,
    cli_complete,
    cli_debug,
    cli_look,
    cli_plan,
    cli_xen,
    say,
    words,
)
from pybuild.errors import BuildError, InputError, reported


class Commands(click.Group):
    """Commands that may all be asked to say less or more, before or behind their name.

    The epilog of each is examples.
    """

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Adds a command, and to it what all have."""
        _complete(cmd)
        super().add_command(cmd, name)


def _complete(command: click.Command) -> None:
    command.params += _how_much_to_say()
    command.epilog = f"Examples:\n\n{command.epilog}"


def _how_much_to_say() -> list[click.Parameter]:
    """The options; if both are given, the one behind the other counts."""

    def level(value: int) -> Callable[[click.Context, click.Parameter, bool], None]:
        return lambda _context, _option, given: say.set_level(value) if given else None

    return [
        click.Option(
            names, is_flag=True, expose_value=False, callback=level(value), help=f"Say {what}."
        )
        for names, value, what in (
            (["-q", "--quiet"], say.QUIET, "nothing but results and errors"),
            (["-v", "--verbose"], say.VERBOSE, "each step, and when it began"),
        )
    ]


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=cli_build.EXAMPLE
)
@click.version_option(__version__)
def cli() -> None:
    """Make a Linux/x86 boot protocol kernel boot where nothing else boots it."""


_complete(cli)
for _command in (
    cli_look.inspect,
    cli_plan.plan,
    cli_build.build,
    cli_build.restore,
    cli_asm.trace,
    cli_boot.boot,
    cli_debug.debug,
    cli_xen.xl,
    cli_xen.lab,
    cli_complete.completion,
):
    cli.add_command(_command)


def main() -> None:
    """The entry point: turns what was foreseen into one line and an exit status."""
    _end_in_order()
    if sys.stdout is None:  # it is closed (>&-)
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  for good
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


def _end_in_order() -> None:
    """Has SIGTERM do what Ctrl-C does, so that no guest is left behind."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A script's job in the background: Ctrl-C is not for it, but asyncio must have a handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _as_interrupt)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """Does what Ctrl-C does at that moment: asyncio has a handler of its own while it runs."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)


def _fail(message: str, status: int) -> NoReturn:
    line, end, log = message.partition("\n")
    click.echo(f"{words.harmless(line)}{end}{log}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
