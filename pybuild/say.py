"""What the command line says beside its results: on standard error, as much as is asked for."""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Final

import click

from pybuild import bar
from pybuild.progress import Progress

QUIET, NORMAL, VERBOSE = range(3)
_level = NORMAL
_BEGAN: Final = time.monotonic()
_LONG: Final = 1.0  # seconds that a step may take without a bar


def set_level(level: int) -> None:
    """How much is said from now on: QUIET, NORMAL or VERBOSE. What went wrong is always said."""
    global _level
    _level = level


def note(text: str) -> None:
    """Says something that the user will want to know; not with --quiet."""
    if _level > QUIET:
        click.echo(f"bootsplice: {text}", err=True)


def detail(text: str) -> None:
    """Says something that few users want to know, and when it was; only with --verbose."""
    if _level >= VERBOSE:
        note(f"{time.monotonic() - _BEGAN:.3f} s: {text}")


@contextlib.contextmanager
def long_steps() -> Iterator[Progress]:
    """Shows steps that take long: a moving bar on a terminal, else a line for each.

    The bar is gone when the block ends.
    """
    if _level == NORMAL and sys.stderr.isatty():
        with bar.shown(after=0) as progress:
            yield progress
    else:
        yield note


@contextlib.contextmanager
def late_steps(*, while_printing: bool = False) -> Iterator[Progress]:
    """Shows steps that as a rule are soon over: a bar on a terminal when they take over a second.

    With --verbose it is a line for each instead, and one at the end.

    Args:
        while_printing: whether results come meanwhile: if they may come to the same terminal,
            there is no bar.
    """
    if _level == NORMAL and sys.stderr.isatty() and not (while_printing and _prints_here()):
        with bar.shown(after=_LONG) as progress:
            yield progress
    else:
        yield detail
        detail("done")


def _prints_here() -> bool:
    """Whether standard output may be a terminal: what reads a pipe often prints it on one."""
    mode = os.fstat(sys.stdout.fileno()).st_mode
    return sys.stdout.isatty() or not (stat.S_ISREG(mode) or stat.S_ISCHR(mode))
