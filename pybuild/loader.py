"""Binds the disk loader's two stages to a plan and to where things lie on the disk."""

from collections.abc import Mapping, Sequence
from typing import Final

from pybuild import loadtable, lowmemory
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.flat import FlatBinary
from pybuild.loadtable import Entry
from pybuild.plan import Plan
from pybuild.regions import Region, align_up

# The sources whose flat binaries go into an image.
BOOT_SECTOR: Final = "real/diskboot"
LOADER: Final = "real/loader"

DISK_SHIFT: Final = 9  # a disk's or a floppy's sectors have 1 << 9 bytes
CD_SHIFT: Final = 11

SCRATCH: Final = 0x5000  # LOADER_SCRATCH in asm/include/loadtable.inc: code and table end below
_MOST_SECTORS: Final = 32  # that diskboot.asm takes


def memory(plan: Plan) -> list[Entry]:
    """What has to be RAM beside the parts that are read, for the loader to check."""
    regions = [Region("stack", plan.stack.start, plan.stack.end)]
    regions += [Region("init_size", plan.runtime.start, plan.runtime.end)]
    regions += [Region("dst", move.dst, move.dst + move.len) for move in plan.moves]
    if plan.bounce:
        regions.append(Region("bounce", plan.bounce.start, plan.bounce.end))
    return [Entry(r.name, 0, r.size, r.start) for r in regions]


def size(code: Mapping[str, FlatBinary], entries: int, shift: int) -> int:
    """Bytes of the loader with a table of so many entries, in whole sectors.

    Raises:
        InputError: so many do not fit.
    """
    table = _table_offset(code[LOADER])
    needed = table + loadtable.size(entries)
    if lowmemory.LOADER.start + needed > SCRATCH:
        room = SCRATCH - lowmemory.LOADER.start - table - loadtable.size(0)
        fit = room // (loadtable.size(1) - loadtable.size(0))
        raise InputError(
            f"{entries} parts (initrds among them) are too many for the loader's table, "
            f"{fit} fit; join initrds into one file"
        )
    return align_up(needed, 1 << shift)


def bind(code: Mapping[str, FlatBinary], plan: Plan, entries: Sequence[Entry], shift: int) -> bytes:
    """The loader with its table, in whole sectors of 1 << `shift` bytes.

    Args:
        code: the flat binaries.
        plan: the plan; it has a bounce buffer.
        entries: what the loader reads and checks.
        shift: of the drive's sectors.
    """
    if plan.bounce is None:
        raise AssertionError("the plan is for a target without a loader")
    binary = code[LOADER]
    table = _table_offset(binary)
    symbols = {
        "table": lowmemory.LOADER.start + table,
        "bounce": plan.bounce.start,
        "bounce_sectors": plan.bounce.size // SECTOR,
    }
    bound = binary.bind(symbols, base=lowmemory.LOADER.start)
    bound += bytes(table - len(bound)) + loadtable.encode(entries, long_mode=plan.long_mode)
    return bound + bytes(size(code, len(entries), shift) - len(bound))


def boot_sector(code: Mapping[str, FlatBinary], lba: int, loader: bytes, shift: int) -> bytes:
    """The boot sector that reads the loader.

    Args:
        code: the flat binaries.
        lba: where the loader lies, in the drive's own sectors from its start.
        loader: the loader with its table.
        shift: of the drive's sectors.
    """
    sectors = len(loader) >> shift
    if not 0 < sectors <= _MOST_SECTORS:
        raise AssertionError(f"a loader of {sectors} sectors")
    return code[BOOT_SECTOR].bind(diskboot_symbols(loader, lba, shift))


def diskboot_symbols(loader: bytes, lba: int, shift: int) -> dict[str, int]:
    """What the boot sector that reads the loader is bound to; see boot_sector()."""
    return {
        "loader_lba_low": lba & 0xFFFFFFFF,
        "loader_lba_high": lba >> 32,
        "loader_sectors": -(-len(loader) >> shift),
        "loader_size": len(loader),
        "loader_sum": loadtable.loader_sum(loader),
        "sector_shift": shift,
    }


def _table_offset(loader: FlatBinary) -> int:
    """Where the table lies behind the loader's code."""
    return align_up(len(loader.code), loadtable.ALIGNMENT)
