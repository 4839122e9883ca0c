"""A Xen HVM guest, run by `xl` in some dom0, to look at.

Importing this takes 0.1 s, for asyncio: import it where a guest is run.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from pybuild import vga
from pybuild.errors import BuildError
from pybuild.files import write_file
from pybuild.guest import Log
from pybuild.xen import dom0 as domain0
from pybuild.xen import xl
from pybuild.xen.dom0 import Dom0

# xl's words for a domain that has ended, and Xen's SHUTDOWN_* (public/sched.h) in those of QMP.
_REASON: Final = re.compile(rb"has shut down, reason code ([0-9]+)")
_REASONS: Final[Mapping[int, str]] = {
    0: "guest-shutdown",
    1: "guest-reset",
    3: "guest-panic",
    4: "guest-panic",  # of a watchdog of Xen's
}
_POLL: Final = 2.0  # seconds between two looks at the screen
_PATIENCE: Final = 6  # times as long as a look takes: in the lab it takes time from the guest
_AGAIN: Final = 0.5  # seconds until a domain that is not there yet is destroyed once more
_PPM: Final = re.compile(rb"P6\s([0-9]+)\s([0-9]+)\s255\s")  # ppm(5)


class XenGuest:
    """A guest of Xen; made by `XenGuest.start`. See `watch.Running`."""

    messages = ""
    exit_status = None

    def __init__(self, dom0: Dom0, name: str, running: asyncio.Task[domain0.Ran], log: Log) -> None:
        self._dom0 = dom0
        self._name = name
        self._running = running
        self._log = log
        self._screen = ""
        self.poll = _POLL

    @classmethod
    @asynccontextmanager
    async def start(cls, dom0: Dom0, domain: xl.Domain, log: Log) -> AsyncIterator["XenGuest"]:
        """Creates the domain, and destroys it when the block ends.

        Args:
            dom0: where.
            domain: the guest to be.
            log: what takes its serial port.
        """
        name = f"bootsplice-{os.getpid()}"
        text = xl.text(domain, name=name, serial=dom0.serial, on_end="preserve")
        config = await dom0.put("xl.cfg", text.encode())
        # In the foreground: xl waits for the guest's end and says why it ended.
        running = asyncio.create_task(dom0.run("xl", "create", "-F", config, limit=None))
        try:
            yield cls(dom0, name, running, log)
        finally:
            if dom0.outlives:
                while (await dom0.run("xl", "destroy", name)).status and not running.done():
                    await asyncio.wait({running}, timeout=_AGAIN)  # it is being created
            else:
                running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    @property
    def ended(self) -> bool:
        """Whether it has stopped for good."""
        return self._running.done()

    @property
    def shutdown_reason(self) -> str | None:
        """Why it stopped, in QMP's words; None if it has not."""
        reason = _REASON.search(self._running.result().output) if self.ended else None
        return _REASONS.get(int(reason[1]), f"Xen's reason {int(reason[1])}") if reason else None

    @property
    def serial(self) -> str:
        """What COM1 has said so far."""
        return self._log.text

    async def wait(self, seconds: float, *others: asyncio.Future[None]) -> None:
        """Waits until the guest has ended, one of the others is done, or the time is up.

        Raises:
            BuildError: xl did not create the guest.
        """
        awaited: set[asyncio.Future[Any]] = {self._running, *others}
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self.ended and self.shutdown_reason is None:
            said = self._running.result().text()
            log = await self._dom0.run("cat", f"/var/log/xen/qemu-dm-{self._name}.log")
            raise BuildError(
                f"xl create: failed\n--- xl\n{said}\n--- the device model\n{log.text()}\n---"
            )

    async def screen(self) -> str:
        """The VGA text; as it was last read when it cannot be read now, '' if it never was."""
        began = time.monotonic()
        with suppress(BuildError):
            memory = await self._monitor("pmemsave {} {} {}", vga.ADDRESS, vga.SIZE)
            self._screen = vga.text(memory)
        self.poll = max(_POLL, _PATIENCE * (time.monotonic() - began))
        return self._screen

    async def screenshot(self, path: Path) -> None:
        """Writes the screen to a PNG file.

        Raises:
            BuildError: the device model can't.
        """
        try:
            picture = await self._monitor("screendump {}")
        except BuildError as error:
            raise BuildError(f"{path}: no screenshot: {error}") from error
        write_file(path, [_png(picture)])

    async def _monitor(self, command: str, *arguments: int) -> bytes:
        """What a command of the device model's monitor writes into a file, its last argument."""
        file = f"{self._dom0.folder}/monitor"
        line = command.format(*arguments, f'"{file}"')
        said = await domain0.expect(self._dom0, "xl", "qemu-monitor-command", self._name, line)
        content = await domain0.expect(self._dom0, "cat", file)
        if not content:
            raise BuildError(f"the device model says: {said.decode(errors='replace').strip()}")
        return content


def _png(picture: bytes) -> bytes:
    """A PNG of a picture in PPM's binary form, as QEMU writes it without libpng."""
    import io

    import png  # a dependency that only this needs

    header = _PPM.match(picture)
    if header is None:
        raise BuildError(f"the device model's picture begins with {picture[:16]!r}, expected P6")
    width, height = int(header[1]), int(header[2])
    made = io.BytesIO()
    png.Writer(width, height, greyscale=False).write_array(made, picture[header.end() :])
    return made.getvalue()
