"""The GDB remote serial protocol, as much of it as it takes to steer QEMU's gdbstub.

QEMU is started with `-S -gdb unix:NAME,server=on,wait=off`; connecting stops a running guest, and
one that is stopped stays so when the connection ends. Source: the GDB manual, "Remote Protocol".

Importing this takes 0.1 s, for asyncio: import it where a guest is run.
"""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

_ANSWER: Final = 10.0  # seconds for QEMU to answer
_CHUNK: Final = 1024  # bytes of memory in one packet; QEMU takes packets of 4096 characters


class RspError(Exception):
    """QEMU's gdbstub refused a command."""


class Rsp:
    """A connection to a gdbstub. Addresses are linear ones, as the guest's paging maps them.

    Attributes:
        features: QEMU's target description, in XML: an element `feature` each.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._layout: list[tuple[str, int]] = []  # a register's name and its size in bytes
        self.features: tuple[str, ...] = ()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, path: Path) -> AsyncIterator["Rsp"]:
        """Connects to a unix socket, whose path may have 107 bytes; the guest stops."""
        reader, writer = await asyncio.open_unix_connection(path)
        stub = cls(reader, writer)
        try:
            await stub._read_layout()
            yield stub
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def set_breakpoint(self, address: int) -> None:
        """A hardware one: what is loaded there later does not take it away.

        Remove it before `resume` once the guest stands there, or it stays there.
        """
        await self._command(f"Z1,{address:x},1")

    async def remove_breakpoint(self, address: int) -> None:
        """Takes back what `set_breakpoint` did."""
        await self._command(f"z1,{address:x},1")

    async def resume(self, seconds: float) -> str:
        """Lets the guest run until it stops; returns the stop reply, T05... for a breakpoint.

        Raises:
            TimeoutError: it ran for so many seconds. It is stopped then, to look at.
            asyncio.IncompleteReadError: QEMU is gone.
        """
        self._send("c")
        try:
            return await self._receive(seconds)
        except TimeoutError:
            self._writer.write(b"\x03")
            await self._receive(_ANSWER)
            raise

    async def step(self) -> None:
        """Lets the guest run one instruction."""
        self._send("s")
        await self._receive(_ANSWER)

    async def detach(self) -> None:
        """Removes all breakpoints and lets the guest run."""
        await self._command("D")

    async def read(self, address: int, length: int) -> bytes:
        """Reads memory."""
        data = bytearray()
        while len(data) < length:
            part = min(_CHUNK, length - len(data))
            data += bytes.fromhex(await self._command(f"m{address + len(data):x},{part:x}"))
        return bytes(data)

    async def registers(self) -> dict[str, int]:
        """The registers by the names that QEMU's target description gives them.

        qemu-system-x86_64 says rax ... r15, rip, eflags, cs ..., cr0 ... in every mode. Outside
        64-bit code the upper halves and r8 to r15 read as 0; rip is the offset in the segment.
        """
        data = bytes.fromhex(await self._command("g"))
        if len(data) != sum(size for _, size in self._layout):
            raise RspError("the registers don't have the sizes in the target description")
        rest = io.BytesIO(data)
        return {name: int.from_bytes(rest.read(size), "little") for name, size in self._layout}

    async def _read_layout(self) -> None:
        target = await self._description("target.xml")
        names = re.findall(r'<xi:include href="([^"]+)"', target)
        self.features = tuple([await self._description(name) for name in names])
        registers = re.sub(r"<!--.*?-->", "", "".join(self.features), flags=re.S)
        found = re.findall(r'<reg name="(\w+)" bitsize="(\d+)"', registers)
        self._layout = [(name, int(bits) // 8) for name, bits in found]

    async def _description(self, name: str) -> str:
        text, more = "", True
        while more:
            part = await self._command(f"qXfer:features:read:{name}:{len(text):x},{_CHUNK:x}")
            text, more = text + part[1:], part[0] == "m"
        return text

    async def _command(self, command: str) -> str:
        self._send(command)
        answer = await self._receive(_ANSWER)
        while answer.startswith("T"):  # a running guest's stop by our connecting
            answer = await self._receive(_ANSWER)
        if re.fullmatch(r"(E\d\d)?", answer):
            raise RspError(f"{command}: {answer or 'not supported'}")
        return answer

    def _send(self, command: str) -> None:
        self._writer.write(b"$%b#%02x" % (command.encode(), sum(command.encode()) % 256))

    async def _receive(self, seconds: float) -> str:
        async with asyncio.timeout(seconds):
            packet = (await self._reader.readuntil(b"#"))[:-1].partition(b"$")[2]
            await self._reader.readexactly(2)  # the checksum; a unix socket garbles nothing
        self._writer.write(b"+")
        return re.sub(r"\}(.)", lambda found: chr(ord(found[1]) ^ 0x20), packet.decode())
