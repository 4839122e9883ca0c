"""A dom0, as a guest needs it: this host's own, or the lab's."""

import asyncio
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from pybuild.errors import BuildError

ANSWER: Final = 60.0  # seconds for a command in dom0 that takes a tenth of one, on a busy machine
_LOOK: Final = 0.1  # seconds between two looks at what the serial port's file has grown by

Receive: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a command: its exit status and what it wrote on both outputs."""

    status: int
    output: bytes

    def text(self) -> str:
        """What it wrote."""
        return self.output.decode(errors="replace").strip()


class Dom0(Protocol):
    """Where `xl` can be run.

    Attributes:
        folder: a folder of ours in dom0.
        image: the path in dom0 where `bring` puts an image: known before there is one.
        serial: what xl's `serial` is to be for what it says to reach the stream.
        outlives: whether it is still there when we are gone, with the guests that run in it.
    """

    folder: str
    image: str
    serial: str
    outlives: bool

    async def run(self, *command: str, limit: float | None = ANSWER) -> Ran:
        """Runs a command to its end.

        Raises:
            BuildError: that takes longer than `limit` seconds, or dom0 is gone.
        """

    async def put(self, name: str, content: bytes) -> str:
        """Writes a small file of our own; its path in dom0."""

    async def bring(self, image: Path) -> None:
        """Makes a file, or a folder with the files in it, available; it stays as it is."""


Session: TypeAlias = AbstractAsyncContextManager[Dom0]


async def expect(dom0: Dom0, *command: str) -> bytes:
    """What a command wrote that must not fail.

    Raises:
        BuildError: it failed.
    """
    ran = await dom0.run(*command)
    if ran.status:
        raise BuildError(f"dom0: {shlex.join(command)} failed: {ran.text()}")
    return ran.output


@asynccontextmanager
async def in_time(command: Sequence[str], limit: float | None) -> AsyncIterator[None]:
    """Turns waiting for a command for too long into a BuildError."""
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError as error:
        raise BuildError(f"dom0: {shlex.join(command)} did not end in {limit:g} s") from error


class Host:
    """This host's dom0, by its `xl`; made by `Host.start`."""

    outlives = True

    def __init__(self, private: Path) -> None:
        self.folder = str(private)
        self.image = f"{private}/image"
        self.serial = f"file:{private}/serial"

    @classmethod
    @asynccontextmanager
    async def start(cls, receive: Receive) -> AsyncIterator["Host"]:
        """Takes what the guest's serial port says to `receive`, as it comes."""
        with tempfile.TemporaryDirectory(prefix="bootsplice-") as name:
            following = asyncio.create_task(_follow(Path(name) / "serial", receive))
            try:
                yield cls(Path(name))
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following

    async def run(self, *command: str, limit: float | None = ANSWER) -> Ran:
        """See Dom0."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with in_time(command, limit):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        return Ran(process.returncode or 0, output)

    async def put(self, name: str, content: bytes) -> str:
        """See Dom0."""
        path = Path(self.folder, name)
        path.write_bytes(content)
        return str(path)

    async def bring(self, image: Path) -> None:
        """See Dom0. The guest gets a copy to write to."""
        copy = shutil.copytree if image.is_dir() else shutil.copyfile
        await asyncio.to_thread(copy, image, self.image)


def host_is_one() -> bool:
    """Whether this host is a dom0: whether its `xl` answers."""
    if not shutil.which("xl"):
        return False
    return subprocess.run(["xl", "info"], capture_output=True, check=False).returncode == 0


async def _follow(path: Path, receive: Receive) -> None:
    while not path.exists():
        await asyncio.sleep(_LOOK)
    with path.open("rb") as stream:
        try:
            while True:
                receive(stream.read())
                await asyncio.sleep(_LOOK)
        finally:  # what came last, too
            receive(stream.read())
