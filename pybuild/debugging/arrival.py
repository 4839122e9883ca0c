"""Runs a guest to a place in its boot."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pybuild import loader, splice
from pybuild.bootproto import PARAGRAPH
from pybuild.debugging.findcode import BOOT_SECTOR, SETUP_ENTRY, Bits, Finder, Found
from pybuild.debugging.rsp import Rsp
from pybuild.errors import BuildError, InputError
from pybuild.flat import FlatBinary
from pybuild.regions import Region

Place = Literal["bootsect", "entry", "hook", "kernel"]

_CR0_PE: Final = 1
_EFER_LMA: Final = 1 << 10


class NotReachedError(BuildError):
    """A guest didn't come to where it was to stop."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A guest that has stopped.

    Attributes:
        place: the name of the place, or its address.
        address: physical, of the next instruction.
        bits: the CPU's mode.
        boot_params: its physical address, or before it is made that of the real-mode part; None if
            not known yet.
        found: what lies where.
    """

    place: str
    address: int
    bits: Bits
    boot_params: int | None
    found: Found


class Journey:
    """Runs a guest from its first instruction to where it is to stop."""

    def __init__(
        self, rsp: Rsp, code: Mapping[str, FlatBinary], image: str, seconds: float
    ) -> None:
        """Begins there.

        Args:
            rsp: the guest, stopped before its first instruction.
            code: the flat binaries.
            image: what it boots, for messages.
            seconds: how long it may run at a time.
        """
        self._rsp = rsp
        self._code = code
        self._image = image
        self._seconds = seconds
        self._finder = Finder(rsp, code)

    async def to_address(self, address: int) -> Arrival:
        """Runs to any address.

        Raises:
            BuildError: it isn't reached.
        """
        await self._run_to(address, f"{address:#x}")
        registers = await self._rsp.registers()
        await self._finder.at(address, _bits(registers), registers["rsi"])
        return await self._arrived(f"{address:#x}")

    async def of_kernel(self, place: Place, real_mode: int) -> Arrival:
        """Runs to a place in the boot of a kernel that QEMU loads.

        Args:
            place: the place.
            real_mode: where the real-mode part is loaded.

        Raises:
            InputError: there is no such place in its boot.
            BuildError: it isn't reached.
        """
        if place == "bootsect":
            raise InputError(
                f"{self._image}: is a kernel, which QEMU's own loader enters at its setup code: "
                "there is no boot sector; use --at entry"
            )
        entry = real_mode + SETUP_ENTRY
        await self._run_to(entry, "entry")
        await self._finder.setup(entry)
        return await self._to(place)

    async def of_image(self, place: Place) -> Arrival:
        """Runs to a place in the boot of an image of ours.

        Raises:
            InputError: it isn't an image of ours, or there is no such place in its boot.
            BuildError: the place isn't reached.
        """
        await self._run_to(BOOT_SECTOR, "bootsect")
        name = await self._finder.boot_sector()
        if place == "bootsect" and name:
            if name == splice.BOOT_SECTOR:
                await self._finder.follow_boot_sector()
            return await self._arrived(place)
        if name == loader.BOOT_SECTOR:  # the loader puts the other one there, and enters it
            await self._run_to(BOOT_SECTOR, "the register-state boot sector")
            name = await self._finder.boot_sector()
        if name != splice.BOOT_SECTOR:
            raise InputError(
                f"{self._image}: the boot sector at {BOOT_SECTOR:#x} is not made of the sources "
                "in asm/real as they are now; build the image again, or give --at an address"
            )
        await self._finder.follow_boot_sector()
        return await self._to(place)

    async def _to(self, place: Place) -> Arrival:
        """Runs on to a place that the finder has found."""
        found = self._finder.found
        if place == "hook" and found.hook is None:
            raise InputError(
                f"{self._image}: no relocator and no head of ours (as the sources are now) is "
                "where code32_start points, so nobody moves this kernel; use --at kernel"
            )
        address = {"entry": found.entry, "hook": found.hook, "kernel": found.kernel}[place]
        if address is None:
            raise AssertionError(f"nobody knows where {place} is")
        if place == "kernel" and found.relocator is not None:
            # Before it has run there is other code where the kernel goes: a head, perhaps.
            await self._run_to(found.relocator, "the relocator")
        if _position(await self._rsp.registers()) != address:
            await self._run_to(address, place)
        if place == "kernel" and found.values:
            self._drop_overwritten(found)
        return await self._arrived(place)

    def _drop_overwritten(self, found: Found) -> None:
        """Forgets the code that the kernel was moved over."""
        kernel = Region("kernel", found.values["dst"], found.values["dst"] + found.values["len"])
        for name, start in list(found.code.items()):
            if kernel.overlaps(Region(name, start, start + len(self._code[name].code))):
                del found.code[name]

    async def _run_to(self, address: int, what: str) -> None:
        if _position(await self._rsp.registers()) == address:
            await self._rsp.step()
        where = what if what == f"{address:#x}" else f"{what} ({address:#x})"
        failure = f"{self._image}: the guest did not come to {where}"
        await self._rsp.set_breakpoint(address)
        try:
            await self._rsp.resume(self._seconds)
        except TimeoutError as error:
            raise NotReachedError(f"{failure} within {self._seconds:g} s") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise NotReachedError(f"{failure}: it made QEMU exit") from error
        await self._rsp.remove_breakpoint(address)
        if _position(await self._rsp.registers()) != address:
            raise NotReachedError(f"{failure}: it ended before")

    async def _arrived(self, place: str) -> Arrival:
        registers = await self._rsp.registers()
        bits = _bits(registers)
        found = self._finder.found
        boot_params: int | None = registers["rsi"]
        # The early stage gives the relocator a boot_params of which there is one field.
        if bits == 16 or (place == "hook" and splice.EARLY in found.code):
            boot_params = None if found.entry is None else found.entry - SETUP_ENTRY
        return Arrival(place, _position(registers), bits, boot_params, found)


def _bits(registers: Mapping[str, int]) -> Bits:
    """The CPU's mode."""
    if not registers["cr0"] & _CR0_PE:
        return 16
    return 64 if registers["efer"] & _EFER_LMA else 32


def _position(registers: Mapping[str, int]) -> int:
    """The address of the next instruction; in protected mode segments are flat."""
    base = registers["cs"] * PARAGRAPH if _bits(registers) == 16 else 0
    return base + registers["rip"]
