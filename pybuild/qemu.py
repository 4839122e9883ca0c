"""Running a guest in QEMU until it shows what is expected of it, ends, or the time is up.

Importing this takes 0.1 s, for asyncio: import it where a guest is run.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from pybuild import watch
from pybuild.guest import Guest
from pybuild.watch import BootResult, Stream


def boot(
    arguments: Sequence[str],
    *,
    directory: Path,
    expect: re.Pattern[str] | None,
    timeout: float | None,
    screenshot: Path | None = None,
    stream: Stream,
) -> BootResult:
    """Runs a guest as `watch.run` does.

    Args:
        arguments: QEMU's own, but for display, monitor, reboot, COM1 and isa-debug-exit.
        directory: where QEMU runs; relative names in the arguments are meant from there.
        expect: see `watch.run`, as for the rest.
        timeout: seconds; None for no limit.
        screenshot: a PNG file to write.
        stream: is given the serial text.

    Raises:
        BuildError: QEMU is missing or doesn't start, or there is no screenshot.
    """
    start = functools.partial(Guest.start, arguments, directory)
    return watch.run(start, expect=expect, timeout=timeout, screenshot=screenshot, stream=stream)
