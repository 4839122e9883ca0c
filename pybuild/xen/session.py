"""A lab that runs: a dom0 to be told what to do, for as long as one guest needs it.

Importing this takes 0.1 s, for asyncio: import it where a guest is run.
"""

import asyncio
import base64
import contextlib
import json
import shlex
import socket
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from qemu.qmp import QMPError

from pybuild import drives
from pybuild.errors import BuildError
from pybuild.guest import Guest
from pybuild.xen import dom0 as domain0
from pybuild.xen import machine
from pybuild.xen.dom0 import Ran, Receive

_READY: Final = b"ready\n"  # what dom0's init says when it can be told what to do
_START: Final = 180.0  # seconds for Xen and dom0 to start, on a busy machine
_FOLDER: Final = "/run/lab"  # in dom0
_LOADING: Final = 10.0  # seconds for QEMU to take the state: many times what it needs
_SAVING: Final = 0.05  # seconds between two looks at whether the state is saved
_REMEDY: Final = "`bootsplice lab xen --clean` makes the next use start afresh"


class Lab:
    """A dom0 in QEMU; made by `Lab.boot` or `Lab.resume`. See `dom0.Dom0`."""

    folder = _FOLDER
    image = f"{_FOLDER}/image"
    serial = f"file:/dev/virtio-ports/{machine.SERIAL}"
    outlives = False

    def __init__(
        self,
        guest: Guest,
        place: machine.Place,
        control: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._guest = guest
        self._place = place
        self._from_dom0, self._to_dom0 = control
        self._answers: dict[int, asyncio.Future[Ran]] = {}
        self._asked = 0
        self._disks = 0

    @classmethod
    @asynccontextmanager
    async def boot(cls, place: machine.Place) -> AsyncIterator["Lab"]:
        """Boots Xen and dom0: 12 s.

        Raises:
            BuildError: QEMU is missing, or dom0 did not start.
        """
        async with cls._start(place, lambda _: None, restore=False) as lab:
            await lab._until_ready()
            yield lab

    @classmethod
    @asynccontextmanager
    async def resume(cls, place: machine.Place, receive: Receive) -> AsyncIterator["Lab"]:
        """Goes on from the template; what the guest's serial port says goes to `receive`.

        Raises:
            BuildError: QEMU is missing, or does not take the template.
        """
        async with cls._start(place, receive, restore=True) as lab:
            await lab._load()
            listening = asyncio.create_task(lab._listen())
            try:
                yield lab
            finally:
                listening.cancel()

    async def run(self, *command: str, limit: float | None = domain0.ANSWER) -> Ran:
        """See Dom0."""
        self._asked += 1
        answer: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        self._answers[self._asked] = answer
        if self._guest.ended:
            raise BuildError(self._gone())
        self._to_dom0.write(f"{self._asked} {shlex.join(command)}\n".encode())
        async with domain0.in_time(command, limit):
            return await answer

    async def put(self, name: str, content: bytes) -> str:
        """See Dom0."""
        path = f"{_FOLDER}/{name}"
        encoded = base64.b64encode(content).decode()
        await self._must(f"echo {encoded} | base64 -d >{shlex.quote(path)}")
        return path

    async def bring(self, image: Path) -> None:
        """See Dom0. A file becomes a disk of dom0's, which writes to a temporary overlay."""
        if image.is_dir():
            with tempfile.NamedTemporaryFile(prefix="bootsplice-", suffix=".tar") as archive:
                with tarfile.open(fileobj=archive, mode="w") as tar:
                    tar.add(image, arcname="image")
                archive.flush()
                disk = await self._plug(Path(archive.name))
                await self._must(f"tar -xf {disk} -C {_FOLDER}")
        else:
            await self._must(f"ln -s {await self._plug(image)} {self.image}")

    async def save(self) -> None:
        """Stops the lab and saves its state; its RAM is in its file already.

        Raises:
            BuildError: QEMU can't.
        """
        try:
            await self._guest.execute("stop")
            await self._leave_ram_out()
            uri = f"exec:cat >{shlex.quote(f'{self._place.template}/devices')}"
            await self._guest.execute("migrate", {"uri": uri})
            while (status := await self._query("query-migrate")) != "completed":
                if status in ("failed", "cancelled"):
                    raise BuildError("the Xen lab: QEMU cannot save its state")
                await asyncio.sleep(_SAVING)
        except (QMPError, TimeoutError) as error:
            raise BuildError(f"the Xen lab: QEMU cannot save its state: {error}") from error

    @classmethod
    @asynccontextmanager
    async def _start(
        cls, place: machine.Place, receive: Receive, *, restore: bool
    ) -> AsyncIterator["Lab"]:
        arguments = machine.arguments(place.template, restore=restore)
        if restore:
            arguments += ["-S", "-incoming", "defer"]
        async with contextlib.AsyncExitStack() as stack:
            ends = []
            theirs = []
            for name in (machine.CONTROL, machine.SERIAL):
                ours, end = socket.socketpair()
                ends.append(await asyncio.open_unix_connection(sock=ours))
                stack.callback(ends[-1][1].close)
                theirs.append(stack.enter_context(end))
                arguments += machine.port(name, end.fileno())
            guest = await stack.enter_async_context(
                Guest.start(
                    arguments,
                    place.folder,
                    lambda _: None,
                    inherited=[end.fileno() for end in theirs],
                )
            )
            for end in theirs:  # or we would not notice that QEMU is gone
                end.close()
            control, serial = ends
            following = asyncio.create_task(_follow(serial[0], receive))
            try:
                yield cls(guest, place, control)
            finally:
                following.cancel()

    async def _until_ready(self) -> None:
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START):
                line = await self._from_dom0.readline()
        if line != _READY:
            raise BuildError(
                f"the Xen lab: dom0 did not start within {_START:g} s\n--- Xen's console\n"
                f"{self._guest.serial.rstrip()}\n---"
            )

    async def _load(self) -> None:
        try:
            await self._leave_ram_out()
            uri = f"exec:cat {shlex.quote(f'{self._place.template}/devices')}"
            await self._guest.execute("migrate-incoming", {"uri": uri})
            async with asyncio.timeout(_LOADING):  # for a file that is empty QEMU waits for ever
                while await self._query("query-status") == "inmigrate":
                    await asyncio.sleep(0)
            await self._guest.execute("cont")
        except (QMPError, TimeoutError) as error:
            reason = str(error) or "no answer"
            raise BuildError(
                f"the Xen lab: QEMU does not take its saved state ({reason}); {_REMEDY}"
            ) from error

    async def _leave_ram_out(self) -> None:
        capability = {"capability": "x-ignore-shared", "state": True}
        await self._guest.execute("migrate-set-capabilities", {"capabilities": [capability]})

    async def _query(self, command: str) -> object:
        answer = await self._guest.execute(command)
        return answer.get("status") if isinstance(answer, dict) else None

    async def _plug(self, file: Path) -> str:
        """Makes a file a disk of dom0's; its path there."""
        number = self._disks
        self._disks += 1
        name = f"image{number}"
        path = drives.option_value(str(file.absolute()))
        options = f"if=none,id={name},format=raw,snapshot=on,file={path}"
        drive = f"drive_add 0 {json.dumps(options, ensure_ascii=False)}"
        device = {"driver": "scsi-hd", "drive": name, "bus": f"{machine.CONTROLLER}.0"}
        try:
            said = await self._guest.execute("human-monitor-command", {"command-line": drive})
            if str(said).strip() != "OK":
                raise BuildError(f"{file}: the Xen lab cannot have it: {said}")
            await self._guest.execute("device_add", {**device, "lun": number, "id": name})
        except (QMPError, TimeoutError) as error:
            raise BuildError(f"{file}: the Xen lab cannot have it: {error}") from error
        block = f"/sys/bus/scsi/devices/0:0:0:{number}/block"
        said = await self._must(f"until ls {block} 2>/dev/null; do sleep 0.05; done")
        return f"/dev/{said.decode().strip()}"

    async def _must(self, command: str) -> bytes:
        return await domain0.expect(self, "sh", "-c", command)

    async def _listen(self) -> None:
        """Gives each answer of dom0's to whoever asked."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while line := await self._from_dom0.readline():
                number, status, length = map(int, line.split())
                ran = Ran(status, await self._from_dom0.readexactly(length))
                answer = self._answers.pop(number)
                if not answer.cancelled():
                    answer.set_result(ran)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BuildError(self._gone()))

    def _gone(self) -> str:
        console = self._guest.serial.rstrip()
        return f"the Xen lab ended; {_REMEDY}\n--- Xen's console\n{console}\n---"


async def _follow(serial: asyncio.StreamReader, receive: Receive) -> None:
    while data := await serial.read(1 << 16):
        receive(data)
