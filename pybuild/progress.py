"""How a function tells whoever called it what takes long, without knowing how that is shown.

It is given a `Progress` and calls it with a line before each step. What that returns, if anything,
wants to be told how far the step is. `print` is a Progress, and so is a list's append.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

Meter: TypeAlias = Callable[[float], None]  # takes the part of a step that is done, 0 to 1
Progress: TypeAlias = Callable[[str], Meter | None]
Steps: TypeAlias = Callable[[], AbstractContextManager[Progress]]  # for what has many of them


def silent(_: str) -> None:
    """Tells nobody."""


@contextlib.contextmanager
def silently() -> Iterator[Progress]:
    """The same as steps."""
    yield silent
