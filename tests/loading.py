"""Runs the disk loader's two stages on the simulated PC of bios.py and holds them to their work."""

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bios import Bios
from biosdisk import SECTOR, Disk, Image
from biosram import Ram, Range
from held import MIB, TREE, load, placed

from pybuild import loadtable
from pybuild.assembler import Tree
from pybuild.emulate.activation import Placed
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.memory import PAGE, TOP, Memory
from pybuild.emulate.run import Outcome, run
from pybuild.loadtable import Entry

DRIVE = 0x80
BOOT_SECTOR, LOADER = 0x7C00, 0x1000
LOW_END = 0x110000
BUDGET = 30_000_000  # instructions
BOUNCE, BOUNCE_SECTORS = 0x20000, 127
TABLE_ALIGNMENT = 16
TRACED = 0x3000  # bytes of all parts up to which each write is looked at


@functools.cache
def low_noise() -> bytes:
    return random.Random(1).randbytes(LOW_END)


@functools.lru_cache(maxsize=64)
def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(size * 31 + seed).randbytes(size)


def disk_of(lba: int, data: bytes, sectors: int = 4 * MIB, **more: object) -> Disk:
    """A disk with that data, from that sector on in the drive's own sectors."""
    disk = Disk(Image(sectors), **more)  # type: ignore[arg-type]
    disk.image.put(lba * disk.sector // SECTOR, data)
    return disk


def diskboot_symbols(loader: bytes, lba: int, shift: int) -> dict[str, int]:
    """What pybuild's boot_sector() binds it to."""
    return {
        "loader_lba_low": lba & 0xFFFF_FFFF,
        "loader_lba_high": lba >> 32,
        "loader_sectors": -(-len(loader) >> shift),
        "loader_size": len(loader),
        "loader_sum": loadtable.loader_sum(loader),
        "sector_shift": shift,
    }


def run_diskboot(
    bios: Bios, symbols: Mapping[str, int], dl: int = DRIVE, cs: int = 0, tree: Tree = TREE
) -> Outcome:
    """Runs the boot sector, from the BIOS's jump to the loader's first byte or to its end."""
    return run(
        placed("real/diskboot", BOOT_SECTOR, symbols, tree),
        memory=Memory([(0, low_noise())]),
        registers={"cs": cs, "edx": 0x5A_0000 | dl},
        budget=BUDGET,
        hardware=bios,
    )


def hold_diskboot(
    loader: bytes,
    lba: int,
    bios: Bios,
    *,
    boots: int = DRIVE,
    dl: int = DRIVE,
    symbols: Mapping[str, int] | None = None,
    tree: Tree = TREE,
) -> Outcome:
    """Holds the boot sector to entering this loader, from drive `boots`."""
    shift = bios.drives[boots].sector.bit_length() - 1
    symbols = symbols or diskboot_symbols(loader, lba, shift)
    outcome = run_diskboot(bios, symbols, dl, tree=tree)
    if outcome.stopped:
        raise ContractError(f"real/diskboot gives up: {bios.screen!r}")
    if outcome.after.read(LOADER, len(loader)) != loader:
        raise ContractError("real/diskboot enters something else than the loader")
    if (outcome.registers["edx"] & 0xFF, outcome.registers["ecx"] & 0xFF) != (boots, shift):
        raise ContractError(f"real/diskboot enters the loader with {outcome.registers}")
    if bios.screen or bios.serial:
        raise ContractError(f"real/diskboot says {bios.screen!r} when all is well")
    return outcome


def said(bios: Bios) -> str:
    """What is on the screen, and also went to COM1."""
    assert bios.screen == (bios.serial if bios.com1 == "ready" else bios.screen)
    return bios.screen


@dataclass(frozen=True)
class Part:
    """What the loader is to read; the sectors have 512 bytes whatever the drive's have."""

    lba: int
    address: int
    data: bytes
    name: str = "kernel"

    @property
    def end(self) -> int:
        return self.address + len(self.data)

    @property
    def entry(self) -> Entry:
        checksum = loadtable.checksum([self.data])
        return Entry(self.name, self.lba, len(self.data), self.address, checksum)


BOOTSECT = Part(90, BOOT_SECTOR, noise(SECTOR), "bootsect")


def plenty() -> Ram:
    """RAM wherever a part may be put."""
    return Ram(e820=(Range(0, 0x9FC00), Range(MIB, TOP - MIB)))


def with_parts(disk: Disk, *parts: Part) -> Disk:
    """The disk, with the parts on it."""
    for part in (*parts, BOOTSECT):
        disk.image.put(part.lba, part.data)
    return disk


def table_address(tree: Tree = TREE) -> int:
    """Where the load table goes, behind the code."""
    return LOADER - -len(load("real/loader", tree)[1].code) // TABLE_ALIGNMENT * TABLE_ALIGNMENT


def run_loader(
    bios: Bios,
    entries: Sequence[Entry],
    *,
    drive: int = DRIVE,
    shift: int = 9,
    bounce: tuple[int, int] = (BOUNCE, BOUNCE_SECTORS),
    long_mode: bool = False,
    table: int | None = None,
    tree: Tree = TREE,
) -> tuple[Placed, Outcome]:
    """Runs the loader with these entries and the boot sector's, to the boot sector or a halt."""
    entries = [*entries, BOOTSECT.entry]
    read = [entry for entry in entries if entry.lba]
    table = table or table_address(tree)
    symbols = {"table": table, "bounce": bounce[0], "bounce_sectors": bounce[1]}
    it = placed("real/loader", LOADER, symbols, tree)
    it = replace(it, also=[(e.address, e.address + e.size) for e in read])
    parts = [(0, low_noise())]
    for number, entry in enumerate(read):
        low = max(entry.address & -PAGE, LOW_END)
        high = min((entry.address + entry.size + 2 * PAGE - 1) & -PAGE, TOP)
        parts.append((low, noise(max(high - low, 0), seed=number + 2)))
    parts.append((table, loadtable.encode(entries, long_mode=long_mode)))
    outcome = run(
        it,
        memory=Memory(part for part in parts if part[1]),
        registers={"cs": 0, "edx": 0xA5_0000 | drive, "ecx": 0x5A_0000 | shift},
        trace=sum(entry.size for entry in read) <= TRACED,
        budget=BUDGET,
        hardware=bios,
    )
    return it, outcome


def hold_loader(
    parts: Sequence[Part],
    bios: Bios,
    *,
    memory_only: Sequence[Entry] = (),
    drive: int = DRIVE,
    bounce: tuple[int, int] = (BOUNCE, BOUNCE_SECTORS),
    long_mode: bool = False,
    table: int | None = None,
    quiet: bool = True,
    tree: Tree = TREE,
) -> Outcome:
    """Holds the loader to having the parts, which are on the drive, where they belong."""
    shift = bios.drives[drive].sector.bit_length() - 1
    it, outcome = run_loader(
        bios,
        [*memory_only, *(part.entry for part in parts)],
        drive=drive,
        shift=shift,
        bounce=bounce,
        long_mode=long_mode,
        table=table,
        tree=tree,
    )
    if outcome.stopped:
        raise ContractError(f"real/loader gives up: {bios.screen!r}")
    its_own = [*replace(it, also=()).writes({}), *bios.writes]
    # The boot sector's own place comes behind the loader's stack.
    expected = outcome.before.take(outcome.after, its_own)
    expected.write(0x500, outcome.before.read(0x500, 1))
    for part in (*parts, BOOTSECT):
        expected.write(part.address, part.data)
    if (wrong := expected.first_difference(outcome.after)) is not None:
        raise ContractError(f"real/loader: {wrong:#x} is not as expected, of {parts}")
    if outcome.registers["edx"] & 0xFF != drive:
        raise ContractError(f"real/loader enters the boot sector with {outcome.registers}")
    if quiet and (bios.screen or bios.serial):
        raise ContractError(f"real/loader says {bios.screen!r} when all is well")
    return outcome
