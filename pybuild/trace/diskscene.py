"""The disk loader's two stages on a PC with one drive, which has what they read: all goes well.

But that the BIOS leaves noise wherever one that is out there may leave something.
"""

from collections.abc import Mapping
from typing import Final

from pybuild import contract, loader, loadtable
from pybuild.assembler import Tree
from pybuild.bootproto import SECTOR
from pybuild.contract import Contract
from pybuild.emulate import stages
from pybuild.emulate.activation import Placed
from pybuild.emulate.bios import DISK_SPOILS, SPOILS, Bios
from pybuild.emulate.biosdisk import Disk, Image
from pybuild.emulate.stages import DRIVE, LOADER, Part, noise
from pybuild.errors import InputError
from pybuild.loadtable import Entry
from pybuild.regions import align_up
from pybuild.trace.scene import Scene, check_open

NAMES: Final = (loader.BOOT_SECTOR, loader.LOADER)
_SECTORS: Final = 1 << 20  # of the disk, 512 bytes each
_PARTS: Final = (
    Part(0x901, 0x200000, noise(0x1203)),
    Part(0x1103, 0x300004, noise(0x207), "initrd"),
)
_MEMORY: Final = Entry("init_size", 0, 0x10000, 0x400000)  # has to be RAM, and is not read
_USUAL: Final = {
    "loader_lba_low": 0x801,
    "loader_lba_high": 0,
    "sector_shift": loader.DISK_SHIFT,
    "bounce": 0x20000,
    "bounce_sectors": 127,
}


def scene(tree: Tree, name: str, given: Mapping[str, int]) -> Scene:
    """The run of a stage.

    Args:
        tree: with the flat binaries of both, up to date.
        name: one of NAMES.
        given: symbols and registers, by name.

    Raises:
        InputError: a value is worked out from others, or no drive is so.
    """
    terms = contract.read(tree.asm / f"{name}.asm")
    check_open(name, terms, given, [read.symbol for read in terms.reads if read.symbol in _USUAL])
    values = {**_USUAL, **given}
    return (_diskboot if name == loader.BOOT_SECTOR else _loader)(tree, terms, values)


def _diskboot(tree: Tree, terms: Contract, values: Mapping[str, int]) -> Scene:
    """It reads a loader of the tree's, with a load table."""
    shift = _shift("sector_shift", values["sector_shift"])
    code = tree.load(loader.LOADER).code
    code += bytes(-len(code) % loadtable.ALIGNMENT)
    code += loadtable.encode([part.entry for part in _PARTS], long_mode=False)
    read = code + bytes(align_up(len(code), 1 << shift) - len(code))
    lba = values["loader_lba_high"] << 32 | values["loader_lba_low"]
    disk = _disk(shift, lba + 1)
    disk.image.put(lba << shift >> loader.DISK_SHIFT, read)
    bios = _bios(DRIVE, disk)
    symbols = loader.diskboot_symbols(read, lba, shift)
    placed = Placed(terms, tree.load(loader.BOOT_SECTOR), stages.BOOT_SECTOR, symbols)
    return Scene(
        f"a drive with sectors of {1 << shift} bytes",
        stages.start_diskboot(placed, bios, edx=values.get("edx", DRIVE)),
        lambda outcome: stages.hold_diskboot(outcome, bios, read, DRIVE, shift),
        "the loader is in memory, and told its drive; nothing is said",
    )


def _loader(tree: Tree, terms: Contract, values: Mapping[str, int]) -> Scene:
    """It reads two parts, and the boot sector that it enters."""
    ecx, edx = values.get("ecx", loader.DISK_SHIFT), values.get("edx", DRIVE)
    shift, drive = _shift("ecx", ecx & 0xFF), edx & 0xFF
    bios = _bios(drive, stages.with_parts(_disk(shift, 0), *_PARTS))
    binary = tree.load(loader.LOADER)
    symbols = {
        "table": LOADER + align_up(len(binary.code), loadtable.ALIGNMENT),
        "bounce": values["bounce"],
        "bounce_sectors": values["bounce_sectors"],
    }
    placed = Placed(terms, binary, LOADER, symbols)
    entries = [_MEMORY, *(part.entry for part in _PARTS)]
    start = stages.start_loader(placed, bios, entries, edx=edx, ecx=ecx, long_mode=False)
    return Scene(
        f"two parts and the boot sector on a drive with sectors of {1 << shift} bytes",
        start,
        lambda outcome: stages.hold_loader(outcome, bios, start.placed[0], _PARTS, drive),
        "the parts are where they belong, and nothing is said",
    )


def _bios(drive: int, disk: Disk) -> Bios:
    return Bios({drive: disk}, stages.plenty(), spoils=SPOILS, disk_spoils=DISK_SPOILS)


def _shift(name: str, shift: int) -> int:
    if shift not in (loader.DISK_SHIFT, loader.CD_SHIFT):
        raise InputError(
            f"--set {name}: found sectors of 1 << {shift} bytes, expected 1 << "
            f"{loader.DISK_SHIFT}, a disk's, or 1 << {loader.CD_SHIFT}, a CD's"
        )
    return shift


def _disk(shift: int, least: int) -> Disk:
    """A drive with that many of its own sectors, or more; a CD has no geometry."""
    sectors = max(_SECTORS, least + _SECTORS << shift - loader.DISK_SHIFT)
    geometry = None if shift == loader.CD_SHIFT else (1024, 255, 63)
    return Disk(Image(sectors), sector=SECTOR << shift - loader.DISK_SHIFT, geometry=geometry)
