"""Runs QEMU with any arguments, as `bootsplice boot` does with an image's."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from pybuild import watch
from pybuild.guest import Guest
from pybuild.watch import BootResult, Stream

PNG = b"\x89PNG\r\n\x1a\n"


def boot(
    arguments: Sequence[str],
    *,
    directory: Path,
    expect: re.Pattern[str] | None,
    timeout: float | None,
    screenshot: Path | None = None,
    stream: Stream,
) -> BootResult:
    """A guest of these arguments; the rest is as for `watch.run`."""
    start = functools.partial(Guest.start, arguments, directory)
    return watch.run(start, expect=expect, timeout=timeout, screenshot=screenshot, stream=stream)
