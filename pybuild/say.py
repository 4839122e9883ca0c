"""What the command line says beside its results: on standard error, as much as is asked for."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

QUIET, NORMAL, VERBOSE = range(3)
_level = NORMAL


def set_level(level: int) -> None:
    """How much is said from now on: QUIET, NORMAL or VERBOSE. What went wrong is always said."""
    global _level
    _level = level


def note(text: str) -> None:
    """Says something that the user will want to know; not with --quiet."""
    if _level > QUIET:
        click.echo(f"bootsplice: {text}", err=True)


def detail(text: str) -> None:
    """Says something that few users want to know; only with --verbose."""
    if _level >= VERBOSE:
        note(text)


@contextlib.contextmanager
def long_steps() -> Iterator[Callable[[str], None]]:
    """Shows what takes long: a moving bar on a terminal, else one line for each step.

    The bar is gone when the block ends, or when it is told of no further step.
    """
    if _level == QUIET or not sys.stderr.isatty():
        yield note
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)
        yield lambda step: progress.update(task, description=step, visible=True)
