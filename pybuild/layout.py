"""The planner: where everything goes, who moves what, and which header fields change.

It follows `load_linux` of the 2007 QEMU patch series for every protocol version, with the rules
of boot.rst ("Memory Layout", "Details of Header Fields") where the patch had none. Pure: the same
input gives the same plan, and nothing is read or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import bootproto, cmdline, header, mover, protected
from pybuild.bootproto import version_name
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.machine import Machine
from pybuild.plan import EntryState, Load, Move, Plan
from pybuild.protected import CODE_ALIGNMENT, ONE_MIB, PAGE
from pybuild.regions import Region, align_up, clash, first_fit, last_fit

INITRD_ALIGNMENT: Final = 4  # of each initrd behind the first: the kernel's cpio reader needs it
LOW_MEMORY_END: Final = 0xA0000  # nothing of ours lies between this and 1 MiB
STACK_SIZE: Final = 0x400  # the least that setup code gets between itself and the command line
STACK_MARGIN: Final = 16  # load_linux begins the stack so far below the command line
BOOT_SECTOR: Final = Region("boot sector", 0x7C00, 0x7E00)

# What the disk loader needs until it is done, up to the boot sector; asm/include/loadtable.inc says
# what lies where in it.
LOADER: Final = Region("loader", 0x1000, 0x7C00)
# The most that one BIOS call reads (EDD 3.0 allows 127 sectors), clear of the 64 KiB boundaries
# that ISA DMA cannot cross; and what is left where a zImage fills the memory above.
_BOUNCE: Final = (127 * bootproto.SECTOR, 0x10000)
_SMALL_BOUNCE: Final = Region("bounce buffer", 0x8000, 0x10000)

# Where load_linux puts the real-mode part and the command line. A recent, high kernel takes any
# place below the EBDA, so there is a second choice for a machine that has the first in use.
_OLD_CMDLINE_END: Final = 0x9A000  # "nothing above" it, up to protocol 2.01
_RECENT_PLACES: Final = ((0x10000, 0x20000), (bootproto.REAL_MODE_ADDRESS, 0x99000))


@dataclass(frozen=True, slots=True)
class Request:
    """What goes into a plan beside the kernel and the machine.

    Attributes:
        initrd_sizes: bytes of each initrd.
        cmdline: the command line.
        relocator_size: bytes of the relocator.
        early_size: bytes of the early stage.
        move: who is to enter the relocator; `auto` lets the planner decide.
        before_firmware: whether the parts are in memory before the firmware runs.
        load_address: where another loader puts the protected-mode part, and sees to it that it
            can; None where the planner says where it goes.
    """

    initrd_sizes: tuple[int, ...]
    cmdline: str
    relocator_size: int
    early_size: int
    move: mover.Choice
    before_firmware: bool
    load_address: int | None = None


def place(kernel: Kernel, machine: Machine, request: Request) -> Plan:
    """Makes the plan.

    Raises:
        InputError: something doesn't fit; the message names both sides with their numbers.
    """
    busy = machine.reserved
    if request.load_address is None:
        busy = machine.busy(before_firmware=request.before_firmware)
    text = _encode_cmdline(kernel, request.cmdline)
    real_address, cmdline_address = _place_real_mode(kernel, machine, busy, len(text) + 1)
    setup = Load("setup", real_address, kernel.setup_size)
    loads = [setup, Load("cmdline", cmdline_address, len(text) + 1)]
    stack = Region("real-mode part with heap and stack", real_address, cmdline_address)
    low = [stack, loads[1].region]

    load_address, alignment, move = protected.place(
        kernel, machine, busy, request.relocator_size, request.move, request.load_address
    )
    end = move.relocator + move.relocator_size if move else load_address + kernel.protected_size
    loads.append(Load("kernel", load_address, end - load_address))
    runtime = protected.runtime(kernel, load_address, alignment)

    if move and move.by == "early":
        low_end = loads[1].region.end
        address = first_fit(
            request.early_size,
            [*busy, *low],
            low=low_end,
            high=LOW_MEMORY_END,
            alignment=CODE_ALIGNMENT,
        )
        if address is None:
            raise InputError(
                f"machine '{machine.name}': no room for the early stage "
                f"({request.early_size} bytes) between {low_end:#x} and {LOW_MEMORY_END:#x}"
            )
        loads.append(Load("early", address, request.early_size))

    bounce = None
    if not request.before_firmware:
        loads.append(Load("bootsect", BOOT_SECTOR.start, BOOT_SECTOR.size))
        bounce = _place_bounce([*busy, *low, *(load.region for load in loads)])

    if sum(request.initrd_sizes):
        ours = [*low, *(load.region for load in loads), runtime]
        if move:
            ours.append(_destination(move))
        unpacking = protected.unpacking(kernel, runtime)
        loads.append(_place_initrd(kernel, machine, request, busy, ours, unpacking))

    plan = Plan(
        kernel=Path(kernel.name).name,
        machine=machine.name,
        ram=_ram(machine, [*(load.region for load in loads), runtime], bounce),
        loads=tuple(loads),
        moves=(move,) if move else (),
        patches=header.patches(kernel, request.cmdline, loads, move, alignment),
        entry=EntryState(
            cs=real_address // 16 + bootproto.SETUP_ENTRY_PARAGRAPHS,
            ip=0,
            data_segments=real_address // 16,
            esp=cmdline_address - real_address - STACK_MARGIN,
        ),
        stack=stack,
        runtime=runtime,
        bounce=bounce,
        long_mode=bool(kernel.get("xloadflags") & bootproto.XLF_KERNEL_64),
        notes=(*_notes(kernel, load_address, move), *_doubts(machine, request)),
    )
    _check(plan, machine, busy)
    return plan


def initrd_size(sizes: Sequence[int]) -> int:
    """Bytes of several initrds, each behind the first aligned as the kernel's cpio reader needs."""
    total = 0
    for size in sizes:
        total = align_up(total, INITRD_ALIGNMENT) + size
    return total


def _encode_cmdline(kernel: Kernel, text: str) -> bytes:
    encoded = cmdline.encode(text)
    limit = kernel.get("cmdline_size") or bootproto.DEFAULT_CMDLINE_SIZE
    if len(encoded) > limit:
        source = "cmdline_size" if kernel.get("cmdline_size") else "no cmdline_size in its header"
        raise InputError(
            f"command line: {len(encoded)} characters, but {kernel.name} takes at most {limit} "
            f"({source})"
        )
    if encoded and kernel.version >= 0x202 and not kernel.has("cmd_line_ptr"):
        raise InputError(
            f"{kernel.name}: takes no command line: its header ends at {kernel.header_end:#x}, "
            "before cmd_line_ptr"
        )
    return encoded


def _place_real_mode(
    kernel: Kernel, machine: Machine, busy: Sequence[Region], cmdline_bytes: int
) -> tuple[int, int]:
    """The addresses of the real-mode part and of the command line."""
    if kernel.is_high and kernel.version >= 0x202:
        places: tuple[tuple[int, int], ...] = _RECENT_PLACES
    else:
        cmdline_address = _OLD_CMDLINE_END - align_up(cmdline_bytes, 16)
        places = ((bootproto.REAL_MODE_ADDRESS, cmdline_address),)
    clashes = []
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
            return real_address, cmdline_address
        clashes.append(f"{in_the_way[0]} and {in_the_way[1]} overlap")
    raise InputError(
        f"machine '{machine.name}': no place for the real-mode part and the command line: "
        f"{'; '.join(clashes)}"
    )


def _place_bounce(taken: Sequence[Region]) -> Region:
    """What the BIOS reads into."""
    size, alignment = _BOUNCE
    high = bootproto.REAL_MODE_ADDRESS
    start = first_fit(size, taken, low=alignment, high=high, alignment=alignment)
    return _SMALL_BOUNCE if start is None else Region(_SMALL_BOUNCE.name, start, start + size)


def _ram(machine: Machine, ours: Sequence[Region], bounce: Region | None) -> int:
    """Bytes of RAM that the plan counts on: with a loader as few as it takes."""
    highest = max(region.end for region in ours)
    return machine.ram if bounce is None else min(align_up(highest, ONE_MIB), machine.ram)


def _place_initrd(
    kernel: Kernel,
    machine: Machine,
    request: Request,
    busy: Sequence[Region],
    ours: Sequence[Region],
    unpacking: Region,
) -> Load:
    if kernel.version < 0x200:
        raise InputError(
            f"{kernel.name}: protocol {version_name(kernel.version)} is too old to load a ram disk"
        )
    if not kernel.has("ramdisk_size"):
        raise InputError(
            f"{kernel.name}: takes no initrd: its header ends at {kernel.header_end:#x}, "
            "before ramdisk_image and ramdisk_size"
        )
    size = initrd_size(request.initrd_sizes)
    highest = kernel.get("initrd_addr_max", bootproto.DEFAULT_INITRD_ADDR_MAX)
    limit = cmdline.memory_limit(request.cmdline) or machine.ram
    high = min(highest + 1, limit, machine.ram)
    # As high as possible, by convention, where the RAM's size is known; a loader's image wants to
    # need as little RAM as possible, so it has them above the kernel.
    low, fit = ONE_MIB, last_fit
    if not request.before_firmware:
        low, fit = max(region.end for region in ours), first_fit
    # What is only guessed to be in use is better kept free, but no reason to refuse.
    fits = (
        fit(size, [*busy, *ours, *guessed], low=max(lowest, ONE_MIB), high=high, alignment=PAGE)
        for lowest, guessed in ((low, [unpacking]), (ONE_MIB, []))
    )
    address = next((fit for fit in fits if fit is not None), None)
    if address is None:
        raise InputError(
            f"initrd: {size} bytes, but no free range of that size lies between {ONE_MIB:#x} and "
            f"{high:#x} (initrd_addr_max {highest:#x}, machine '{machine.name}' has "
            f"{machine.ram:#x} bytes of RAM, mem= {limit:#x}); give a --machine with more ram"
        )
    return Load("initrd", address, size)


def _destination(move: Move) -> Region:
    return Region("kernel's destination", move.dst, move.dst + move.len)


def _notes(kernel: Kernel, load_address: int, move: Move | None) -> tuple[str, ...]:
    if move is None:
        if load_address == kernel.load_address:
            return (f"kernel is loaded at {load_address:#x}, its own address",)
        return ("kernel is relocatable", f"kernel is loaded at {load_address:#x}")
    return (
        "kernel is NOT relocatable",
        f"helper at {move.relocator:#x} of size {move.relocator_size} bytes, to move kernel of "
        f"{move.len} bytes from {move.src:#x} to {move.dst:#x}",
        f"move: {move.by}, {move.reason}",
    )


def _doubts(machine: Machine, request: Request) -> tuple[str, ...]:
    """What is allowed, but hardly meant."""
    found = []
    if not any(region.start < ONE_MIB for region in machine.reserved):
        found.append(
            f"machine '{machine.name}' reserves nothing below 1 MiB, not even the BIOS's own "
            'memory: for a PC its file begins with base = "pc"'
        )
    if 0 in request.initrd_sizes:
        found.append("an initrd is empty: nothing is loaded for it")
    return tuple(found)


def _check(plan: Plan, machine: Machine, busy: Sequence[Region]) -> None:
    """Every region against every other, while loading, while moving and when the kernel runs."""
    at = {load.part: load.region for load in plan.loads}
    kept = [plan.stack, at["cmdline"], *(at[part] for part in ("initrd",) if part in at)]
    early = [at["early"]] if "early" in at else []
    loader = [LOADER, at["bootsect"], plan.bounce] if plan.bounce else []
    loading = [*kept, at["kernel"], *early, *loader]
    phases = [
        ("while loading", loading, busy),
        ("when the kernel runs", [*kept, plan.runtime], machine.reserved),
    ]
    for move in plan.moves:
        relocator = Region("relocator", move.relocator, move.relocator + move.relocator_size)
        moving = [*kept, *early, relocator, _destination(move)]
        phases.append(("while moving", moving, machine.reserved))
    for when, ours, theirs in phases:
        pair = clash(ours, theirs)
        if pair:
            raise InputError(
                f"machine '{machine.name}', {plan.kernel}: {when}, {pair[0]} and {pair[1]} overlap"
            )
        for region in ours:
            if region.end > machine.ram:
                raise InputError(
                    f"machine '{machine.name}', {plan.kernel}: {when}, {region} ends above "
                    f"the {machine.ram:#x} bytes of RAM; give a --machine with more ram"
                )
