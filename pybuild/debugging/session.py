"""Boots an image in QEMU up to a place in its boot, and hands it to gdb.

The guest is steered there by the remote protocol that gdb itself talks, so it doesn't matter
whether gdb is installed: whoever attaches then finds a guest that is stopped. gdb only learns where
that is, and where our code lies, from a script.
"""

import asyncio
import contextlib
import shlex
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from elftools.elf.elffile import ELFFile

from pybuild import assembler, bootproto, drives, kernel, lines, linker, say
from pybuild.assembler import Tree
from pybuild.boot import SerialOutput, qemu_arguments, shown
from pybuild.debugging import gdbscript
from pybuild.debugging.arrival import Arrival, Journey, NotReachedError, Place
from pybuild.debugging.gdbscript import Files, Symbols
from pybuild.debugging.rsp import Rsp
from pybuild.drives import Drive
from pybuild.errors import BuildError
from pybuild.files import write_file
from pybuild.flat import FlatBinary
from pybuild.guest import PROGRAM, Guest
from pybuild.kernel import Kernel
from pybuild.regions import Region

_SECONDS: Final = 60.0  # that a guest may take from one place to the next
_QEMU_REAL_MODE: Final = 0x10000  # where QEMU's own loader puts what is new enough; hw/i386/x86.c
_FOR_EVER: Final = 3600.0  # seconds, again and again


def debug(
    image: Path,
    *,
    at: Place | int,
    drive: Drive | None = None,
    memory: int | None = None,
    vcpus: int | None = None,
    extra: Sequence[str] = (),
) -> None:
    """Boots an image up to a place and lets the user at it; the guest ends with gdb.

    Without gdb it waits for somebody to attach, until the guest ends or Ctrl-C.

    Args:
        image: as for `boot.boot`.
        at: where to stop, or a physical address.
        drive: as for `boot.boot`; so is all that follows.
        memory: MiB of RAM.
        vcpus: processors.
        extra: more arguments for QEMU.

    Raises:
        InputError: there is no such image, it cannot be attached so, or there is no such place in
            its boot.
        BuildError: the place isn't reached, or gdb fails.
    """
    arguments, directory = qemu_arguments(image, drive, memory, vcpus, extra)
    is_kernel = drive is None and drives.is_kernel(image)
    loaded = kernel.read(image) if is_kernel else None
    with say.late_steps() as progress:
        tree = assembler.own(progress)
    with tempfile.TemporaryDirectory(prefix="bootsplice-gdb-") as name:
        session = _Session(image, at, loaded, tree, Path(name))
        try:
            asyncio.run(session.run(arguments, directory))
        finally:
            session.output.end_line()


class _Session:
    """A guest, a folder for gdb, and gdb."""

    def __init__(
        self, image: Path, at: Place | int, loaded: Kernel | None, tree: Tree, folder: Path
    ) -> None:
        self._image = image
        self._at = at
        self._loaded = loaded
        self._tree = tree
        self._code = {source.name: tree.load(source.name) for source in tree.sources()}
        self._files = Files(
            sources=tree.root,
            socket=folder / "socket",
            serial=folder / "serial.log",
            descriptions={bits: folder / f"{bits}.xml" for bits in gdbscript.ARCHITECTURES},
        )
        self._script = folder / "script.gdb"
        self._gdb = shutil.which("gdb")
        self.output = SerialOutput()

    async def run(self, arguments: Sequence[str], directory: Path) -> None:
        """All of it."""
        where = f"{self._at:#x}" if isinstance(self._at, int) else self._at
        socket = drives.option_value(str(self._files.socket))
        ours = ["-S", "-gdb", f"unix:{socket},server=on,wait=off"]
        say.detail(f"running {shlex.join([PROGRAM, *arguments, *ours])}")
        with self._files.serial.open("w", encoding="utf-8") as log:
            async with Guest.start(
                [*arguments, *ours], directory, lambda text: self._said(text, log)
            ) as guest:
                async with Rsp.connect(self._files.socket) as rsp:
                    try:
                        with say.late_steps(while_printing=self._gdb is None) as progress:
                            progress(f"running the guest up to {where}")
                            arrival = await self._go(rsp)
                    except NotReachedError as error:
                        screen = await guest.screen()
                        raise BuildError(f"{error}\n{shown(guest.serial, screen)}") from error
                    features = rsp.features
                self._write(arrival, features)
                self.output.end_line()
                say.note(f"stopped at {_where(arrival, self._code, self._tree)}")
                await self._hand_over(guest)

    def _said(self, text: str, log: TextIO) -> None:
        """On a terminal that gdb has the guest's text would be in the way of gdb's."""
        log.write(text)
        log.flush()
        if self._gdb is None:
            self.output.write(text)

    async def _go(self, rsp: Rsp) -> Arrival:
        journey = Journey(rsp, self._code, str(self._image), _SECONDS)
        if isinstance(self._at, int):
            return await journey.to_address(self._at)
        if self._loaded is None:
            return await journey.of_image(self._at)
        is_recent = self._loaded.is_high and self._loaded.version >= 0x202
        real_mode = _QEMU_REAL_MODE if is_recent else bootproto.REAL_MODE_ADDRESS
        return await journey.of_kernel(self._at, real_mode)

    def _write(self, arrival: Arrival, features: Sequence[str]) -> None:
        for bits, architecture in gdbscript.ARCHITECTURES.items():
            text = gdbscript.description(features, architecture)
            write_file(self._files.descriptions[bits], [text.encode()])
        symbols = list(_symbols(arrival, self._tree))
        if len(symbols) < len(arrival.found.code):
            say.note("an installed bootsplice has no source lines for gdb; a checkout has")
        write_file(self._script, [gdbscript.script(arrival, symbols, self._files).encode()])

    async def _hand_over(self, guest: Guest) -> None:
        quoted = shlex.quote(str(self._script))
        if self._gdb is None:
            say.note(
                f"gdb is not installed; attach with `gdb -x {quoted}`, or another debugger "
                f"at the socket {self._files.socket}; Ctrl-C ends the guest"
            )
            with contextlib.suppress(asyncio.CancelledError):  # by Ctrl-C
                while not guest.ended:
                    await guest.wait(_FOR_EVER)
            return
        say.note(f"gdb's script is {quoted}")
        with _ctrl_c_is_for_gdb():
            gdb = await asyncio.create_subprocess_exec(self._gdb, "-q", "-x", str(self._script))
            try:
                status = await gdb.wait()
            finally:
                if gdb.returncode is None:
                    gdb.terminate()
        if status:
            raise BuildError(f"{self._gdb} ended with exit status {status}")


@contextlib.contextmanager
def _ctrl_c_is_for_gdb() -> Iterator[None]:
    """Ctrl-C stops the guest that gdb lets run; SIGTERM does to us what Ctrl-C did."""
    # Not SIG_IGN, which gdb would inherit.
    interrupt = signal.signal(signal.SIGINT, lambda *_: None)
    terminate = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


def _where(arrival: Arrival, code: Mapping[str, FlatBinary], tree: Tree) -> str:
    """The place, and the source line that it is if the code is ours."""
    text = f"{arrival.place} ({arrival.address:#x}, {arrival.bits}-bit)"
    for name, start in arrival.found.code.items():
        offset = arrival.address - start
        if 0 <= offset < len(code[name].code):
            line = lines.load(tree.build / name).at(offset)
            return f"{text}: {line}" if line else text
    return text


def _symbols(arrival: Arrival, tree: Tree) -> Iterator[Symbols]:
    """The objects of all code that was found, where there are objects."""
    for name, start in arrival.found.code.items():
        path = tree.build / f"{name}.o"
        if not path.exists():
            continue
        with path.open("rb") as stream:
            placed = list(linker.place_sections(ELFFile(stream)).values())
        sections = tuple((s.name, start + s.offset) for s in placed if s.data)
        size = max(s.offset + len(s.data) for s in placed)
        yield Symbols(path, Region(name, start, start + size), sections)
