"""The planner: where everything goes, who moves what, and which header fields change.

It follows `load_linux` of the 2007 QEMU patch series for every protocol version, with the rules
of boot.rst ("Memory Layout", "Details of Header Fields") where the patch had none. Pure: the same
input gives the same plan, and nothing is read or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import bootproto, cmdline, header, lowmemory, mover, phases, protected
from pybuild.bootproto import version_name
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.machine import Machine
from pybuild.plan import Load, Move, Plan
from pybuild.protected import ONE_MIB, PAGE
from pybuild.regions import Region, align_up, first_fit, last_fit

INITRD_ALIGNMENT: Final = 4  # of each initrd behind the first: the kernel's cpio reader needs it


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

    def busy(self, machine: Machine) -> tuple[Region, ...]:
        """What is not ours while the parts are loaded."""
        if self.load_address is not None:
            return machine.reserved
        return machine.busy(before_firmware=self.before_firmware)


def place(kernel: Kernel, machine: Machine, request: Request) -> Plan:
    """Makes the plan.

    Raises:
        InputError: something doesn't fit; the message names both sides with their numbers.
    """
    busy = request.busy(machine)
    text = _encode_cmdline(kernel, request.cmdline)
    setup, cmdline_load = lowmemory.place(kernel, machine, busy, len(text) + 1)
    stack = lowmemory.stack(kernel, setup, cmdline_load)
    low = [stack, cmdline_load.region]

    placed = protected.place(
        kernel, machine, busy, request.relocator_size, request.move, request.load_address
    )
    move = placed.move
    size = move.code.end - move.src if move else kernel.protected_size
    loads = [setup, cmdline_load, Load("kernel", placed.address, size, placed.why)]
    runtime = protected.runtime(kernel, placed.address, placed.alignment)

    if move and move.by == "early":
        low_end = cmdline_load.region.end
        loads.append(lowmemory.place_early(machine, request.early_size, low_end, [*busy, *low]))

    bounce = None
    if not request.before_firmware:
        loads.append(lowmemory.BOOT_SECTOR)
        bounce = lowmemory.place_bounce([*busy, *low, *(load.region for load in loads)])

    if sum(request.initrd_sizes):
        ours = [*low, *(load.region for load in loads), runtime]
        if move:
            ours.append(move.destination)
        unpacking = protected.unpacking(kernel, runtime)
        loads.append(_place_initrd(kernel, machine, request, busy, ours, unpacking))

    plan = Plan(
        kernel=Path(kernel.name).name,
        machine=machine.name,
        ram=_ram(machine, [*(load.region for load in loads), runtime], bounce),
        loads=tuple(loads),
        moves=(move,) if move else (),
        patches=header.patches(kernel, request.cmdline, loads, move, placed.alignment),
        entry=lowmemory.entry(setup, cmdline_load),
        stack=stack,
        runtime=runtime,
        bounce=bounce,
        long_mode=bool(kernel.get("xloadflags") & bootproto.XLF_KERNEL_64),
        notes=(*_notes(kernel, placed.address, move), *_doubts(machine, request)),
    )
    phases.check(plan, machine, phases.of(plan, machine, busy))
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
    bounds = {
        highest + 1: f"up to initrd_addr_max ({highest:#x})",
        limit: f"below mem= ({limit:#x})",
        machine.ram: f"below the RAM's end ({machine.ram:#x})",
    }
    # As high as possible, by convention, where the RAM's size is known; a loader's image wants to
    # need as little RAM as possible, so it has them above the kernel.
    low, fit = ONE_MIB, last_fit
    why = f"by convention as high as is free, {bounds[high]}"
    if not request.before_firmware:
        low, fit = max(region.end for region in ours), first_fit
        why = f"the first free page clear of the kernel's memory, {bounds[high]}"
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
    return Load("initrd", address, size, why)


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
