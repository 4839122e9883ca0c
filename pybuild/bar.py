"""Bars on a terminal for what takes long, on standard error. rich is imported when one is seen."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pybuild.progress import Meter, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID

# What is all done stops rich's clock, and the disk may still be writing.
_ALMOST: Final = 0.999


@contextlib.contextmanager
def shown(*, after: float) -> Iterator[Progress]:
    """A bar with the step that goes on; it is gone when the block ends.

    Bars within bars stand below each other.

    Args:
        after: seconds from the first step on until it is seen.
    """
    bar = _Bar(after)
    try:
        yield bar.begin
    finally:
        bar.end()


class _Bar:
    # Another thread shows it, a third may tell how far the step is.
    _lock = threading.RLock()
    _display: "Display | None" = None  # of all bars that are seen
    _seen = 0

    def __init__(self, after: float) -> None:
        self._step = ""
        self._task: TaskID | None = None
        self._timer = threading.Timer(after, self._show)
        self._timer.daemon = True

    def begin(self, step: str) -> Meter:
        with self._lock:
            if not self._step:
                self._timer.start()
            self._step = step
            if self._display and self._task is not None:
                self._display.remove_task(self._task)
                self._task = self._display.add_task(step, total=None)
        return self._measure

    def end(self) -> None:
        if not self._step:
            return
        self._timer.cancel()
        self._timer.join()  # or it might show a bar that nobody removes
        with self._lock:
            if self._display and self._task is not None:
                self._display.remove_task(self._task)
                _Bar._seen -= 1
                if not self._seen:
                    self._display.stop()
                    _Bar._display = None

    def _measure(self, part: float) -> None:
        with self._lock:
            if self._display and self._task is not None:
                self._display.update(self._task, total=1.0, completed=min(part, _ALMOST))

    def _show(self) -> None:
        with self._lock:
            display = self._display
            if not display:
                _Bar._display = display = _new_display()
                display.start()
            _Bar._seen += 1
            self._task = display.add_task(self._step, total=None)


def _new_display() -> "Display":
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display
    from rich.table import Column

    return Display(
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn(
            "{task.description}",
            markup=False,  # a regular expression has brackets
            table_column=Column(ratio=1, no_wrap=True),  # what is too long is cut off
        ),
        expand=True,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # what is printed there is not for standard error
    )
