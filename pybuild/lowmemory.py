"""What lies below 1 MiB: the real-mode part, the command line, the early stage, the loader.

The addresses are `load_linux`'s of the 2007 QEMU patch series, which keeps to boot.rst ("Memory
Layout"); those of the loader are its own.
"""

from collections.abc import Sequence
from typing import Final

from pybuild import bootproto
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.machine import Machine
from pybuild.plan import EntryState, Load
from pybuild.protected import CODE_ALIGNMENT
from pybuild.regions import Region, align_up, clash, first_fit

STACK_SIZE: Final = 0x400  # the least that setup code gets between itself and the command line
STACK_MARGIN: Final = 16  # load_linux begins the stack so far below the command line
BOOT_SECTOR: Final = Load("bootsect", 0x7C00, 0x200, "where a BIOS puts a boot sector")

# What the disk loader needs until it is done, up to the boot sector; asm/include/loadtable.inc says
# what lies where in it.
LOADER: Final = Region(
    "loader", 0x1000, BOOT_SECTOR.address, "between the BIOS's own data and the boot sector"
)
# The most that one BIOS call reads, clear of the 64 KiB boundaries that ISA DMA cannot cross; and
# what is left where a zImage fills the memory above.
_BOUNCE_SIZE: Final = 127 * bootproto.SECTOR
_BOUNCE_ALIGNMENT: Final = 0x10000
_BOUNCE_WHY: Final = "127 sectors, EDD's most for one read; ISA DMA cannot cross 64 KiB boundaries"
_SMALL_BOUNCE: Final = Region(
    "bounce buffer", 0x8000, 0x10000, "64 sectors, as a zImage fills the memory above"
)

_END: Final = 0xA0000  # nothing of ours lies between this and 1 MiB
_OLD_CMDLINE_END: Final = 0x9A000  # "nothing above" it, up to protocol 2.01
# Where load_linux puts the real-mode part and the command line. A recent, high kernel takes any
# place below the EBDA, so there is a second choice for a machine that has the first in use.
_RECENT_PLACES: Final = ((0x10000, 0x20000), (bootproto.REAL_MODE_ADDRESS, 0x99000))


def place(
    kernel: Kernel, machine: Machine, busy: Sequence[Region], cmdline_bytes: int
) -> tuple[Load, Load]:
    """The real-mode part and the command line.

    Args:
        kernel: the kernel.
        machine: where it is to run.
        busy: memory that is not free while they are loaded.
        cmdline_bytes: the command line's size with its NUL.

    Raises:
        InputError: the setup part is too large, or no place is free.
    """
    if kernel.is_high and kernel.version >= 0x202:
        places: tuple[tuple[int, int], ...] = _RECENT_PLACES
        why = "a bzImage from 2.02 on takes any place below the EBDA"
        cmdline_why = "cmd_line_ptr (2.02): behind the real-mode part's heap and stack"
    else:
        cmdline_address = _OLD_CMDLINE_END - align_up(cmdline_bytes, 16)
        places = ((bootproto.REAL_MODE_ADDRESS, cmdline_address),)
        why = "a zImage fills the memory below"
        if kernel.version < 0x202:
            why = "before 2.02 the real-mode part lies there, or moves there"
        cmdline_why = f"in the real-mode part's 64 KiB, and nothing above {_OLD_CMDLINE_END:#x}"
    clashes: list[str] = []
    for real_address, cmdline_address in places:
        room = cmdline_address - real_address - STACK_SIZE
        if kernel.setup_size > room:
            raise InputError(
                f"{kernel.name}: the real-mode part has {kernel.setup_size} bytes, "
                f"but only {room} fit below the command line (setup_sects)"
            )
        ours = Region("real-mode part", real_address, cmdline_address + cmdline_bytes)
        in_the_way = clash([ours], busy)
        if in_the_way is None:
            if clashes:
                why += f"; not at {places[0][0]:#x}: {clashes[0]}"
            return (
                Load("setup", real_address, kernel.setup_size, why),
                Load("cmdline", cmdline_address, cmdline_bytes, cmdline_why),
            )
        clashes.append(f"{in_the_way[0]} and {in_the_way[1]} overlap")
    raise InputError(
        f"machine '{machine.name}': no place for the real-mode part and the command line: "
        f"{'; '.join(clashes)}"
    )


def stack(kernel: Kernel, setup: Load, cmdline: Load) -> Region:
    """The real-mode part with its heap and stack."""
    told = "heap_end_ptr, %esp" if kernel.has("heap_end_ptr") else "%esp"
    why = f"{setup.why}; heap and stack have all up to the command line ({told})"
    return Region("real-mode part with heap and stack", setup.address, cmdline.address, why)


def entry(setup: Load, cmdline: Load) -> EntryState:
    """How the setup code is entered."""
    return EntryState(
        cs=setup.address // 16 + bootproto.SETUP_ENTRY_PARAGRAPHS,
        ip=0,
        data_segments=setup.address // 16,
        esp=cmdline.address - setup.address - STACK_MARGIN,
    )


def place_early(machine: Machine, size: int, low: int, taken: Sequence[Region]) -> Load:
    """The early stage.

    Args:
        machine: where it is to run.
        size: its bytes.
        low: the end of the command line.
        taken: memory that is not free.

    Raises:
        InputError: there is no room for it.
    """
    address = first_fit(size, taken, low=low, high=_END, alignment=CODE_ALIGNMENT)
    if address is None:
        raise InputError(
            f"machine '{machine.name}': no room for the early stage "
            f"({size} bytes) between {low:#x} and {_END:#x}"
        )
    return Load("early", address, size, "real-mode code: below 1 MiB, behind the command line")


def place_bounce(taken: Sequence[Region]) -> Region:
    """What the BIOS reads into."""
    start = first_fit(
        _BOUNCE_SIZE,
        taken,
        low=_BOUNCE_ALIGNMENT,
        high=bootproto.REAL_MODE_ADDRESS,
        alignment=_BOUNCE_ALIGNMENT,
    )
    if start is None:
        return _SMALL_BOUNCE
    return Region(_SMALL_BOUNCE.name, start, start + _BOUNCE_SIZE, _BOUNCE_WHY)
