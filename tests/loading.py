"""Runs the disk loader's two stages on the simulated PC of bios.py and holds them to their work."""

from collections.abc import Mapping, Sequence

from held import MIB, TREE, load, placed

from pybuild import loadtable
from pybuild.assembler import Tree
from pybuild.emulate import stages
from pybuild.emulate.activation import Placed
from pybuild.emulate.bios import Bios
from pybuild.emulate.biosdisk import SECTOR, Disk, Image
from pybuild.emulate.run import Outcome, execute
from pybuild.emulate.stages import BOOT_SECTOR, DRIVE, LOADER, Part
from pybuild.loader import diskboot_symbols
from pybuild.loadtable import Entry
from pybuild.regions import align_up

BUDGET = 30_000_000  # instructions
BOUNCE, BOUNCE_SECTORS = 0x20000, 127
TRACED = 0x3000  # bytes of all parts up to which each write is looked at


def disk_of(lba: int, data: bytes, sectors: int = 4 * MIB, **more: object) -> Disk:
    """A disk with that data, from that sector on in the drive's own sectors."""
    disk = Disk(Image(sectors), **more)  # type: ignore[arg-type]
    disk.image.put(lba * disk.sector // SECTOR, data)
    return disk


def run_diskboot(
    bios: Bios, symbols: Mapping[str, int], dl: int = DRIVE, cs: int = 0, tree: Tree = TREE
) -> Outcome:
    """Runs the boot sector, from the BIOS's jump to the loader's first byte or to its end."""
    it = placed("real/diskboot", BOOT_SECTOR, symbols, tree)
    start = stages.start_diskboot(it, bios, edx=0x5A_0000 | dl, cs=cs)
    return execute(start, budget=BUDGET, explain=tree is TREE)


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
    stages.hold_diskboot(outcome, bios, loader, boots, shift)
    return outcome


def said(bios: Bios) -> str:
    """What is on the screen, and also went to COM1."""
    assert bios.screen == (bios.serial if bios.com1 == "ready" else bios.screen)
    return bios.screen


def table_address(tree: Tree = TREE) -> int:
    """Where the load table goes, behind the code."""
    return LOADER + align_up(len(load("real/loader", tree)[1].code), loadtable.ALIGNMENT)


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
    table = table or table_address(tree)
    symbols = {"table": table, "bounce": bounce[0], "bounce_sectors": bounce[1]}
    start = stages.start_loader(
        placed("real/loader", LOADER, symbols, tree),
        bios,
        entries,
        edx=0xA5_0000 | drive,
        ecx=0x5A_0000 | shift,
        long_mode=long_mode,
    )
    size = sum(entry.size for entry in entries if entry.lba) + SECTOR
    explain = tree is TREE  # what is wrong in another is known, and telling it takes time
    trace = size <= TRACED
    return start.placed[0], execute(start, trace=trace, budget=BUDGET, explain=explain)


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
    stages.hold_loader(outcome, bios, it, parts, drive, quiet=quiet)
    return outcome
