"""Watching a guest until it shows what is expected of it, ends, or the time is up.

Importing this takes 0.1 s, for asyncio: import it where a guest is run.
"""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

_OVERLAP: Final = 4096  # characters of older serial text that a match may begin in
_REST_OF_LINE: Final = 0.5  # seconds that a guest gets to end the line with the expected text


class Running(Protocol):
    """A guest that has been started.

    Attributes:
        poll: seconds between two looks at the screen.
        messages: what whoever runs it wrote as warnings and errors; set when the guest is gone.
    """

    poll: float
    messages: str

    @property
    def ended(self) -> bool:
        """Whether it has stopped for good."""

    @property
    def exit_status(self) -> int | None:
        """The exit status of QEMU, if it is gone and the guest is QEMU's."""

    @property
    def shutdown_reason(self) -> str | None:
        """Why the guest stopped; None if it has not."""

    @property
    def serial(self) -> str:
        """What COM1 has said so far."""

    async def screen(self) -> str:
        """The VGA text; as it was last read when it cannot be read now, '' if it never was."""

    async def screenshot(self, path: Path) -> None:
        """Writes the screen to a PNG file; raises BuildError if that can't be."""

    async def wait(self, seconds: float, *others: asyncio.Future[None]) -> None:
        """Waits until the guest has ended, one of the others is done, or the time is up."""


Stream: TypeAlias = Callable[[str], None]
# Starts a guest whose serial text goes to the stream, and ends it when the block ends.
Start: TypeAlias = Callable[[Stream], AbstractAsyncContextManager[Running]]


@dataclass(frozen=True, slots=True)
class BootResult:
    """How a guest's run went.

    Attributes:
        matched: the expected text was seen, on the serial port or on the screen.
        serial: all that COM1 said: UTF-8 with replacement characters, lines end in LF.
        screen: the VGA text at the end, as `vga.text` has it; as last read if it was gone by
            then, '' if it never was.
        exit_status: QEMU's, negative for a signal; None if the guest still ran and we ended it,
            and for a guest of Xen. A guest that writes n to isa-debug-exit (port 0xf4) makes it
            2 * n + 1.
        shutdown_reason: why the guest stopped, in QMP's words: guest-reset (a triple fault too),
            guest-shutdown, guest-panic ...; None if it didn't stop, or by isa-debug-exit.
        timed_out: the time was up and the expected text not seen.
        seconds: from its start to its end.
        messages: what QEMU itself wrote on standard error.
    """

    matched: bool
    serial: str
    screen: str
    exit_status: int | None
    shutdown_reason: str | None
    timed_out: bool
    seconds: float
    messages: str


def run(
    start: Start,
    *,
    expect: re.Pattern[str] | None,
    timeout: float | None,
    screenshot: Path | None = None,
    stream: Stream,
) -> BootResult:
    """Runs a guest until it shows the expected text, ends by itself, or the time is up.

    Args:
        start: starts it.
        expect: looked for in the serial text as it comes, where `$` also matches at the end of
            what has come so far, and on the screen now and then; always as if re.MULTILINE. A
            serial line that it is seen in is waited for, but not for long: a prompt has no end.
        timeout: seconds; None for no limit.
        screenshot: a PNG file to write when the guest has stopped or just before it is ended.
        stream: is given the serial text as it comes, in pieces of any length.

    Raises:
        BuildError: the guest doesn't start, or there is no screenshot: it can't be made, or the
            guest was gone before it was taken.
    """
    return asyncio.run(_run(start, expect, timeout, screenshot, stream))


async def _run(
    start: Start,
    expect: re.Pattern[str] | None,
    timeout: float | None,
    screenshot: Path | None,
    stream: Stream,
) -> BootResult:
    began = time.monotonic()
    deadline = float("inf") if timeout is None else began + timeout
    watch = Watch(expect, stream)
    async with start(watch.serial) as guest:
        while not (guest.ended or watch.seen.done()):
            watch.screen(await guest.screen())
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await guest.wait(min(left, guest.poll), watch.seen)
        if watch.seen.done():
            await guest.wait(_REST_OF_LINE, watch.shown)
        ended, reason = guest.ended, guest.shutdown_reason
        screen = await guest.screen()
        if screenshot is not None:
            await guest.screenshot(screenshot)
    watch.screen(screen)
    watch.screen(guest.serial)
    matched = watch.seen.done()
    return BootResult(
        matched=matched,
        serial=guest.serial,
        screen=screen,
        exit_status=guest.exit_status if ended else None,
        shutdown_reason=reason,
        timed_out=not (ended or matched),
        seconds=time.monotonic() - began,
        messages=guest.messages,
    )


class Watch:
    """Looks for the expected text, in time linear in the log's length.

    Attributes:
        seen: done once the text was seen.
        shown: done once the line is over, too, that it was seen in.
    """

    def __init__(self, expect: re.Pattern[str] | None, stream: Stream) -> None:
        self._expect = expect and re.compile(expect.pattern, expect.flags | re.MULTILINE)
        self._stream = stream
        self._recent = "\n"  # its first character is only there for what `^` means at the second
        loop = asyncio.get_running_loop()
        self.seen: asyncio.Future[None] = loop.create_future()
        self.shown: asyncio.Future[None] = loop.create_future()

    def serial(self, text: str) -> None:
        """Looks at the serial text that has come, and passes it on."""
        self._stream(text)
        self._recent += text
        if self.seen.done():
            self._end_of_line(text)
        elif end := self._look(self._recent, 1):
            self._end_of_line(self._recent[end - 1 :])  # the match may be up to the line's end
        self._recent = self._recent[-_OVERLAP:]

    def screen(self, text: str) -> None:
        """Looks at a screen."""
        if not self.seen.done() and self._look(text, 0) is not None:
            self._end_of_line("\n")

    def _look(self, text: str, start: int) -> int | None:
        """Where the expected text ends, if it is there."""
        found = self._expect and self._expect.search(text, start)
        if not found:
            return None
        self.seen.set_result(None)
        return found.end()

    def _end_of_line(self, text: str) -> None:
        if "\n" in text and not self.shown.done():
            self.shown.set_result(None)
