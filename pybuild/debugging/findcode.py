"""Finds what of our code lies where in a guest's memory.

Nothing is taken from the image's file, whatever its form: the boot sector that the BIOS enters is
ours or isn't, and from there on each piece of our code says where the next one is. It is compared
with the flat binaries but for their relocated fields, which say what it is bound to.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pybuild import bootproto, headplaces, loader, lowmemory, splice
from pybuild.bootproto import PARAGRAPH, SECTOR
from pybuild.debugging.rsp import Rsp, RspError
from pybuild.flat import FlatBinary
from pybuild.headplan import ENTRY_64, HEAD_RELOCATOR

Bits = Literal[16, 32, 64]

BOOT_SECTOR: Final = lowmemory.BOOT_SECTOR.address
SETUP_ENTRY: Final = bootproto.SETUP_ENTRY_PARAGRAPHS * PARAGRAPH  # from the real-mode part
_HEADER_SIZE: Final = 2 * SECTOR  # bytes of the real-mode part that the setup header lies in
_ZIMAGE_ENTRY: Final = 0x1000  # where a zImage's setup code moves it
# What a debugger may want to know of a move, by the relocator's own names.
_MOVE: Final = ("src", "dst", "len")


@dataclass(slots=True)
class Found:
    """What was found in a guest's memory; addresses are physical.

    Attributes:
        code: pieces of our code, by the names of their sources.
        relocator: the one of them that moves the kernel, where it runs; None if none does.
        values: `src`, `dst` and `len`, if a relocator or a head is there.
        entry: where the setup code is entered; None if nothing says so.
        hook: where code32_start points, or where the early stage jumps; None if no code of ours is
            there.
        kernel: where the kernel's own protected-mode part is entered; None if nothing says so.
        header: the start of the real-mode part or of boot_params, with the setup header.
    """

    code: dict[str, int] = field(default_factory=dict)
    relocator: int | None = None
    values: dict[str, int] = field(default_factory=dict)
    entry: int | None = None
    hook: int | None = None
    kernel: int | None = None
    header: bytes = b""


class Finder:
    """Looks for our code in a guest's memory."""

    def __init__(self, rsp: Rsp, code: Mapping[str, FlatBinary]) -> None:
        """Begins to look.

        Args:
            rsp: the guest.
            code: the flat binaries.
        """
        self._rsp = rsp
        self._code = code
        self.found = Found()

    async def boot_sector(self) -> str | None:
        """Which boot sector of ours is at 0x7c00, if any; with the loader that it reads."""
        if await self._bound(splice.BOOT_SECTOR, BOOT_SECTOR) is not None:
            self.found.code = {splice.BOOT_SECTOR: BOOT_SECTOR}
            return splice.BOOT_SECTOR
        if await self._bound(loader.BOOT_SECTOR, BOOT_SECTOR) is not None:
            start = lowmemory.LOADER.start
            self.found.code = {loader.BOOT_SECTOR: BOOT_SECTOR, loader.LOADER: start}
            return loader.BOOT_SECTOR
        return None

    async def follow_boot_sector(self) -> None:
        """Finds all that is entered behind the register-state boot sector, which is there."""
        registers = await self._bound(splice.BOOT_SECTOR, BOOT_SECTOR)
        if registers is None:
            raise AssertionError("there is no boot sector to follow")
        target = registers["seg_cs"] * PARAGRAPH + registers["ip"]
        early = await self._bound(splice.EARLY, target)
        if early is None:
            await self.setup(target)
        else:
            self.found.code[splice.EARLY] = target
            await self.setup(early["setup_cs"] * PARAGRAPH, early["relocator"])

    async def setup(self, entry: int, relocator: int | None = None) -> None:
        """Finds all that is entered behind the setup code.

        Args:
            entry: where it is entered.
            relocator: what the early stage enters before that, if there is one.
        """
        self.found.entry = entry
        self.found.header = header = await self._rsp.read(entry - SETUP_ENTRY, _HEADER_SIZE)
        start = _value(header, "code32_start")
        is_high = _value(header, "loadflags") & bootproto.LOADED_HIGH
        self.found.kernel = start or (bootproto.BZIMAGE_LOAD_ADDRESS if is_high else _ZIMAGE_ENTRY)
        hook = relocator if relocator is not None else start
        values = await self._bound(splice.RELOCATOR, hook)
        if values is not None:
            self.found.code[splice.RELOCATOR] = hook
            self.found.values = {name: values[name] for name in _MOVE}
            if relocator is None:
                self.found.kernel = values["code32_start"]
            self.found.hook = self.found.relocator = hook
        elif await self.head(hook, header, 32):
            self.found.hook = hook

    async def head(self, image: int, header: bytes, bits: Bits) -> bool:
        """Finds all that is in an image with a head, and where that puts its relocator.

        Args:
            image: where its protected-mode part is.
            header: boot_params' start.
            bits: which of its heads runs.

        Returns:
            Whether there is one.
        """
        values = await self._bound(splice.HEAD_32, image)
        if values is None:
            return False
        kernel, work = headplaces.kernel_and_work(
            image,
            follows=bool(values["follows"]),
            dst=values["dst"],
            run=values["run"],
            alignment=_value(header, "kernel_alignment") or 1,
            init_size=values["init_size"],
            image_size=values["image_size"],
            work_size=values["work_size"],
        )
        self.found.relocator = relocator = work.start + HEAD_RELOCATOR  # its copy that runs
        self.found.code[splice.HEAD_32] = image
        if bits == 64:
            self.found.code[splice.HEAD_64] = image + values["head64"]
        self.found.code[splice.RELOCATOR if bits == 32 else splice.RELOCATOR_64] = relocator
        src, dst = image + values["kernel"], kernel.start
        self.found.values = {"src": src, "dst": dst, "len": values["len"]}
        self.found.kernel = dst + (values["entry32"] if bits == 32 else ENTRY_64)
        return True

    async def at(self, address: int, bits: Bits, esi: int) -> None:
        """Finds what is at an address where the guest has stopped.

        Args:
            address: the address.
            bits: the CPU's mode.
            esi: where boot_params is, if the boot protocol holds here.
        """
        if bits != 16:
            with contextlib.suppress(RspError):  # it doesn't hold
                self.found.header = await self._rsp.read(esi, _HEADER_SIZE)
        for image in (address, address - ENTRY_64):
            if await self.head(image, self.found.header, bits):
                return
        for name in self._code:
            if await self._bound(name, address) is not None:
                self.found.code[name] = address

    async def _bound(self, name: str, address: int) -> dict[str, int] | None:
        """What the flat binary at an address is bound to.

        Returns:
            The value of each symbol. None if the binary isn't there, or has run and changed itself.
        """
        binary = self._code[name]
        try:
            memory = await self._rsp.read(address, len(binary.code))
        except RspError:
            return None
        if address == BOOT_SECTOR:  # a disk's own part of it may be anything
            memory = splice.put_disk_own(memory, binary.code[splice.DISK_OWN])
        # Nobody knows where a head is loaded, so it is bound to address 0.
        return binary.unbind(memory, 0 if name in (splice.HEAD_32, splice.HEAD_64) else address)


def header_field(header: bytes, name: str) -> bootproto.Field | None:
    """A field of a setup header; None if this one hasn't it, or is none."""
    if len(header) < _HEADER_SIZE:
        return None
    magic, version = (bootproto.field(each, 0x200) for each in ("header", "version"))
    is_old = magic.get(header) != bootproto.HEADER_MAGIC
    number = bootproto.OLD_PROTOCOL if is_old else version.get(header)
    end = bootproto.HEADER_JUMP_END + header[bootproto.HEADER_JUMP_END - 1]
    try:
        found = bootproto.field(name, number)
    except KeyError:
        return None
    return found if found.exists(number, end) else None


def _value(header: bytes, name: str) -> int:
    found = header_field(header, name)
    return found.get(header) if found else 0
