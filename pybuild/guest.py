"""A guest in QEMU, to look at and to talk to.

COM1 is QEMU's standard output, a pipe, so no byte is lost. QMP goes over a socket pair that QEMU
inherits: no path that is too long, no moment at which nobody listens yet. QEMU starts stopped and
is let go once QMP is up, so no event is missed; when the guest resets or powers off it stops
again (-no-reboot, -no-shutdown), so the last screen can be read.

Importing this takes 0.1 s, for asyncio: import it where a guest is run.
"""

import asyncio
import codecs
import contextlib
import io
import shutil
import socket
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from qemu.qmp import Message, QMPClient, QMPError, Runstate

from pybuild import vga
from pybuild.errors import BuildError
from pybuild.files import write_file

PROGRAM: Final = "qemu-system-x86_64"
# Or a guest would run on for ever, at the cost of a processor, when we are killed.
_ENDS_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
_START: Final = 60.0  # seconds for QEMU to get ready, on a busy machine
_ANSWER: Final = 10.0  # seconds for QEMU to answer a command, or to quit


class Log:
    """What a serial port says: UTF-8 with replacement characters, lines end in LF."""

    def __init__(self, stream: Callable[[str], None]) -> None:
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
        self._pieces: list[str] = []
        self._stream = stream

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._pieces)

    def receive(self, data: bytes, *, final: bool = False) -> None:
        """Takes the next bytes, and passes them on to the stream as text."""
        text = self._decoder.decode(data, final=final)
        self._pieces.append(text)
        self._stream(text)


class _Qmp(QMPClient):
    """QMP that keeps the first reason for a shutdown."""

    def __init__(self) -> None:
        super().__init__()
        self.shutdown: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def _on_message(self, msg: Message) -> None:
        if msg.get("event") == "SHUTDOWN" and not self.shutdown.done():
            self.shutdown.set_result(cast(Mapping[str, str], msg["data"])["reason"])
        await super()._on_message(msg)


class Guest:
    """A guest in QEMU, to look at and to talk to; made by `Guest.start`.

    Attributes:
        poll: seconds between two looks at the screen.
        messages: what QEMU itself wrote on standard error; set when the guest is gone.
    """

    poll = 0.5

    def __init__(self, process: Process, private: Path, stream: Callable[[str], None]) -> None:
        self._process = process
        self._private = private
        self._log = Log(stream)
        self._qmp = _Qmp()
        self._screen = ""
        self._following = asyncio.create_task(self._follow())
        self.messages = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        arguments: Sequence[str],
        directory: Path,
        stream: Callable[[str], None],
        *,
        inherited: Sequence[int] = (),
    ) -> AsyncIterator["Guest"]:
        """Starts QEMU and lets the guest go, unless -S is among the arguments.

        When the block ends QEMU quits; when it ends by an exception QEMU is killed. What `stream`
        raises comes out at the end of the block.

        Args:
            arguments: QEMU's own, but for display, monitor, reboot, COM1 and isa-debug-exit.
            directory: where QEMU runs; relative names in the arguments are meant from there.
            stream: is given the serial text as it comes, in pieces of any length.
            inherited: file descriptors that QEMU is to have, too.

        Raises:
            BuildError: QEMU is missing or doesn't start.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise BuildError(f"{PROGRAM} is not installed; apt-get install qemu-system-x86")
        with tempfile.TemporaryDirectory(prefix="bootsplice-") as name:
            private = Path(name)
            ours, theirs = socket.socketpair()
            with theirs, (private / "messages").open("wb") as messages:
                process = await asyncio.create_subprocess_exec(
                    *_ENDS_WITH_US,
                    program,
                    *_own_arguments(theirs.fileno()),
                    *arguments,
                    stdin=DEVNULL,
                    stdout=PIPE,
                    stderr=messages,
                    cwd=directory,
                    process_group=0,  # Ctrl-C is for us, or for a debugger
                    pass_fds=[theirs.fileno(), *inherited],
                )
            guest = cls(process, private, stream)
            try:
                await guest._connect(ours, go="-S" not in arguments)
                yield guest
                await guest._quit()
            finally:
                await guest._end()

    @property
    def ended(self) -> bool:
        """Whether the guest has stopped for good or QEMU has exited."""
        return self._qmp.shutdown.done() or self._following.done()

    @property
    def exit_status(self) -> int | None:
        """QEMU's exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def shutdown_reason(self) -> str | None:
        """Why the guest stopped, as QMP's event SHUTDOWN says; None if it has not."""
        return self._qmp.shutdown.result() if self._qmp.shutdown.done() else None

    @property
    def serial(self) -> str:
        """What COM1 has said so far."""
        return self._log.text

    async def wait(self, seconds: float, *others: asyncio.Future[None]) -> None:
        """Waits until the guest has ended, one of the others is done, or the time is up."""
        awaited: set[asyncio.Future[Any]] = {self._following, self._qmp.shutdown, *others}
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Executes a QMP command and returns its value.

        Raises:
            QMPError: QEMU refuses the command, or is gone.
            TimeoutError: QEMU doesn't answer.
        """
        async with asyncio.timeout(_ANSWER):
            return await self._qmp.execute(command, arguments)

    async def screen(self) -> str:
        """The VGA text; as it was last read when it cannot be read now, '' if it never was."""
        memory = self._private / "vga"
        save = {"val": vga.ADDRESS, "size": vga.SIZE, "filename": str(memory)}
        with contextlib.suppress(QMPError, TimeoutError):
            await self.execute("pmemsave", save)
            self._screen = vga.text(memory.read_bytes())
        return self._screen

    async def screenshot(self, path: Path) -> None:
        """Writes the screen to a PNG file.

        Raises:
            BuildError: QEMU can't, or is gone.
        """
        if self._following.done():
            raise BuildError(
                f"{path}: no screenshot: the guest made QEMU exit, with status {self.exit_status}"
            )
        image = self._private / "screen.png"
        try:
            await self.execute("screendump", {"filename": str(image), "format": "png"})
        except (QMPError, TimeoutError) as error:
            reason = str(error) or "QEMU doesn't answer"
            raise BuildError(f"{path}: no screenshot: {reason}") from error
        write_file(path, [image.read_bytes()])

    async def _connect(self, ours: socket.socket, *, go: bool) -> None:
        try:
            async with asyncio.timeout(_START):
                await self._qmp.connect(ours)
                if go:
                    await self.execute("cont")
        except (QMPError, TimeoutError) as error:
            await asyncio.wait({self._following}, timeout=_ANSWER)
            raise BuildError(f"QEMU did not start: {self._said() or repr(error)}") from error

    async def _follow(self) -> None:
        """Takes in what QEMU says until it is gone and nothing of it is left to come."""
        output = cast(asyncio.StreamReader, self._process.stdout)
        while chunk := await output.read(1 << 16):
            self._log.receive(chunk)
        self._log.receive(b"", final=True)
        await self._process.wait()
        while self._qmp.runstate is Runstate.RUNNING:
            await self._qmp.runstate_changed()

    async def _quit(self) -> None:
        with contextlib.suppress(QMPError, TimeoutError):
            await self.execute("quit")
        await asyncio.wait({self._following}, timeout=_ANSWER)

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await asyncio.wait({self._following})
        await self._process.communicate()  # when `stream` raised there may be output left
        with contextlib.suppress(QMPError, EOFError, OSError):
            await self._qmp.disconnect()
        self.messages = self._said()
        self._following.result()

    def _said(self) -> str:
        return (self._private / "messages").read_text("utf-8", errors="replace").strip()


def _own_arguments(qmp: int) -> list[str]:
    """QEMU's arguments that the runner itself needs; QMP is on the file descriptor `qmp`."""
    return [
        *("-display", "none", "-monitor", "none", "-no-reboot", "-no-shutdown", "-S"),
        *("-serial", "stdio"),
        *("-chardev", f"socket,id=bootsplice-qmp,fd={qmp}"),
        *("-mon", "chardev=bootsplice-qmp,mode=control"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
    ]
