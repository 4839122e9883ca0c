"""The disk loader's two stages as they begin on the PC of bios.py, and what they must have done."""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pybuild import loadtable
from pybuild.emulate.activation import Placed
from pybuild.emulate.bios import Bios
from pybuild.emulate.biosdisk import SECTOR, Disk
from pybuild.emulate.biosram import HIGH, Ram, Range
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.machine import Start
from pybuild.emulate.memory import PAGE, TOP, Memory
from pybuild.emulate.run import Outcome
from pybuild.loadtable import Entry

DRIVE: Final = 0x80  # the BIOS's number of the first hard disk
BOOT_SECTOR, LOADER = 0x7C00, 0x1000
_LOW_END: Final = 0x110000
_A20_TEST: Final = 0x500  # a byte that the loader changes, and puts back


@functools.cache
def low_noise() -> bytes:
    """What is below 1 MiB and 64 KiB."""
    return random.Random(1).randbytes(_LOW_END)


@functools.lru_cache(maxsize=64)
def noise(size: int, seed: int = 0) -> bytes:
    """So many bytes, the same each time."""
    return random.Random(size * 31 + seed).randbytes(size)


@dataclass(frozen=True)
class Part:
    """What the loader is to read; the sectors have 512 bytes whatever the drive's have."""

    lba: int
    address: int
    data: bytes
    name: str = "kernel"

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + len(self.data)

    @property
    def entry(self) -> Entry:
        """Its entry in the load table."""
        checksum = loadtable.checksum([self.data])
        return Entry(self.name, self.lba, len(self.data), self.address, checksum)


BOOTSECT: Final = Part(90, BOOT_SECTOR, noise(SECTOR), "bootsect")  # what the loader reads last


def plenty() -> Ram:
    """RAM wherever a part may be put."""
    return Ram(e820=(Range(0, 0x9FC00), Range(HIGH, TOP - HIGH)))


def with_parts(disk: Disk, *parts: Part) -> Disk:
    """The disk, with the parts on it, and the boot sector."""
    for part in (*parts, BOOTSECT):
        disk.image.put(part.lba, part.data)
    return disk


def start_diskboot(diskboot: Placed, bios: Bios, *, edx: int, cs: int = 0) -> Start:
    """The boot sector, as the BIOS jumps to it."""
    memory = Memory([(0, low_noise())])
    return Start((diskboot,), memory, {"cs": cs, "edx": edx}, bios)


def hold_diskboot(outcome: Outcome, bios: Bios, loader: bytes, drive: int, shift: int) -> None:
    """Raises ContractError unless the boot sector enters this loader, of that drive."""
    if outcome.stopped:
        raise ContractError(f"real/diskboot gives up: {bios.screen!r}")
    found = outcome.after.read(LOADER, len(loader))
    if found != loader:
        at = next(i for i, byte in enumerate(found) if byte != loader[i])
        raise ContractError("real/diskboot enters something else than the loader", LOADER + at)
    dl, cl = (outcome.registers[name] & 0xFF for name in ("edx", "ecx"))
    if (dl, cl) != (drive, shift):
        raise ContractError(
            f"real/diskboot enters the loader with dl={dl:#x} and cl={cl:#x}, "
            f"expected {drive:#x} and {shift:#x}"
        )
    if bios.screen or bios.serial:
        raise ContractError(f"real/diskboot says {bios.screen!r} when all is well")


def start_loader(
    loader: Placed, bios: Bios, entries: Sequence[Entry], *, edx: int, ecx: int, long_mode: bool
) -> Start:
    """The loader with a load table of these entries and the boot sector's, as it is entered.

    Args:
        loader: with its symbols; it may write what the entries say, too.
        bios: the machine.
        entries: of the load table.
        edx: the boot drive is in its lowest byte.
        ecx: in its lowest byte is the drive's `sector_shift`.
        long_mode: whether the table says that the kernel is a 64-bit one.
    """
    entries = [*entries, BOOTSECT.entry]
    read = [entry for entry in entries if entry.lba]
    loader = replace(loader, also=[(e.address, e.address + e.size) for e in read])
    parts = [(0, low_noise())]
    for number, entry in enumerate(read):
        low = max(entry.address & -PAGE, _LOW_END)
        high = min((entry.address + entry.size + 2 * PAGE - 1) & -PAGE, TOP)
        parts.append((low, noise(max(high - low, 0), seed=number + 2)))
    parts.append((loader.symbols["table"], loadtable.encode(entries, long_mode=long_mode)))
    memory = Memory(part for part in parts if part[1])
    return Start((loader,), memory, {"cs": 0, "edx": edx, "ecx": ecx}, bios)


def hold_loader(
    outcome: Outcome,
    bios: Bios,
    loader: Placed,
    parts: Sequence[Part],
    drive: int,
    *,
    quiet: bool = True,
) -> None:
    """Raises ContractError unless the parts of the drive are where they belong, and no more.

    And unless it has said nothing, if it is to be `quiet`.
    """
    if outcome.stopped:
        raise ContractError(f"real/loader gives up: {bios.screen!r}")
    its_own = [*replace(loader, also=()).writes({}), *bios.writes]
    # The boot sector's own place comes behind the loader's stack.
    expected = outcome.before.take(outcome.after, its_own)
    expected.write(_A20_TEST, outcome.before.read(_A20_TEST, 1))
    for part in (*parts, BOOTSECT):
        expected.write(part.address, part.data)
    if (wrong := expected.first_difference(outcome.after)) is not None:
        raise ContractError(f"real/loader: {wrong:#x} is not as expected, of {parts}", wrong)
    dl = outcome.registers["edx"] & 0xFF
    if dl != drive:
        raise ContractError(
            f"real/loader enters the boot sector with dl={dl:#x}, expected {drive:#x}"
        )
    if quiet and (bios.screen or bios.serial):
        raise ContractError(f"real/loader says {bios.screen!r} when all is well")
