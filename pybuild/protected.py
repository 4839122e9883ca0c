"""Where the protected-mode part is loaded, where it runs, and what memory it needs there.

Sources: boot.rst, "Memory Layout" and the fields relocatable_kernel, kernel_alignment,
min_alignment, pref_address and init_size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pybuild import bootproto, mover
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.machine import Machine
from pybuild.plan import Move
from pybuild.regions import Region, align_up, clash, first_fit

PAGE: Final = 0x1000
ONE_MIB: Final = 0x100000  # where high memory begins; staging addresses are multiples of it
CODE_ALIGNMENT: Final = 16  # of the relocator and the early stage: NASM's own for code

# Where Linux's own setup code moves a zImage on to before it is entered.
_ZIMAGE_RUN_ADDRESS: Final = 0x1000
_AS_ASKED: Final = "the address that was given: another loader puts it there"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the protected-mode part goes.

    Attributes:
        address: where it is loaded.
        alignment: what that is aligned to.
        move: its move, if it runs elsewhere.
        why: the rule that the address is by.
    """

    address: int
    alignment: int
    move: Move | None
    why: str


def place(
    kernel: Kernel,
    machine: Machine,
    busy: Sequence[Region],
    relocator_size: int,
    choice: mover.Choice,
    load_address: int | None,
) -> Placed:
    """Finds a place for the protected-mode part, where it runs or from where it can be moved.

    Args:
        kernel: the kernel.
        machine: where it is to run.
        busy: memory that is not free while it is loaded.
        relocator_size: bytes of the relocator.
        choice: who is to enter it.
        load_address: where another loader puts it; None: wherever there is room.

    Raises:
        InputError: there is no room for it, or its header makes no sense.
    """
    alignment = kernel.get("kernel_alignment")
    home = kernel.load_address
    size = kernel.protected_size
    start = kernel.get("code32_start")
    if kernel.is_high and start and not kernel.contents.contains(start) and choice == "auto":
        raise InputError(
            f"{kernel.name}: code32_start is {start:#x}, outside {kernel.contents}: an image that "
            "was spliced already? Give the original (or --move early, if its setup code is known "
            "not to use that field)"
        )
    if not kernel.is_high and home + size > bootproto.REAL_MODE_ADDRESS:
        raise InputError(
            f"{kernel.name}: a zImage (loadflags bit 0 clear) with {size} bytes in its "
            f"protected-mode part, but only {bootproto.REAL_MODE_ADDRESS - home} fit "
            f"below {bootproto.REAL_MODE_ADDRESS:#x}"
        )
    in_the_way = None
    if load_address is None:
        in_the_way = clash([Region("kernel", home, home + size)], busy)
        is_free = in_the_way is None
    else:
        _check_load_address(kernel, load_address)
        is_free = load_address == home
    if kernel.is_relocatable and load_address is not None:
        return Placed(load_address, _alignment_at(kernel, load_address), None, _AS_ASKED)
    if kernel.is_relocatable:
        return _place_relocatable(kernel, machine, busy, in_the_way and in_the_way[1])
    if is_free:
        return Placed(home, alignment, None, _own(kernel))

    relocator_offset = align_up(size, CODE_ALIGNMENT)
    needed = relocator_offset + relocator_size
    src = load_address
    if src is None:
        src = first_fit(needed, busy, low=ONE_MIB, high=machine.ram, alignment=ONE_MIB)
    if src is None:
        raise InputError(
            f"machine '{machine.name}': no room for {kernel.name} and its relocator "
            f"({needed} bytes) in {machine.ram} bytes of RAM beside "
            f"{', '.join(str(region) for region in busy if region.end > ONE_MIB)}"
        )
    by, reason = mover.choose(kernel, choice)
    move = Move(
        src=src,
        dst=home,
        why=f"not relocatable, so it runs at {_own(kernel)}",
        len=size,
        by=by,
        reason=reason,
        relocator=src + relocator_offset,
        relocator_size=relocator_size,
        code32_start=start if kernel.contents.contains(start) else home,
    )
    why = _AS_ASKED
    if in_the_way:
        why = (
            "the lowest free multiple of 1 MiB with room for the relocator, too, "
            f"as {in_the_way[1]} is in its place"
        )
    return Placed(src, alignment, move, why)


def _own(kernel: Kernel) -> str:
    """The protocol's own address, and what decides it."""
    flag = "set" if kernel.is_high else "clear"
    return f"the protocol's own address {kernel.load_address:#x} (loadflags bit 0 {flag})"


def _place_relocatable(
    kernel: Kernel, machine: Machine, busy: Sequence[Region], in_the_way: Region | None
) -> Placed:
    """Where a relocatable kernel is loaded.

    The protocol's own address, if nothing is in the way there; else the lowest that keeps the
    kernel's alignment, or else a smaller one. The memory that it needs to run must be free as well.
    """
    home = kernel.load_address
    found = []
    alignments = _alignments(kernel)  # first of all, for it refuses what makes no sense
    why_not = f"{in_the_way} has {home:#x}"
    if not in_the_way:
        running = runtime(kernel, home, kernel["kernel_alignment"])
        found.append(Placed(home, kernel["kernel_alignment"], None, _own(kernel)))
        if running.end <= machine.ram and not clash([running], machine.reserved):
            return found[0]
        why_not = f"from {home:#x} it has no room to run (init_size)"
    for alignment in alignments:
        why = f"relocatable_kernel: the lowest free multiple of {alignment:#x}: {why_not}"
        low = ONE_MIB
        while True:
            address = first_fit(
                kernel.protected_size, busy, low=low, high=machine.ram, alignment=alignment
            )
            if address is None:
                break
            found.append(Placed(address, alignment, None, why))
            running = runtime(kernel, address, alignment)
            under = clash([running], machine.reserved)
            if running.end > machine.ram:
                break
            if under is None:
                return found[-1]
            low = max(address + alignment, under[1].end)
    if found:
        return found[0]  # and the planner's check says what is in the way of its init_size
    raise InputError(
        f"machine '{machine.name}': no room for {kernel.name} ({kernel.protected_size} bytes, "
        f"kernel_alignment {kernel['kernel_alignment']:#x}) in {machine.ram} bytes of RAM"
    )


def _check_load_address(kernel: Kernel, load_address: int) -> None:
    if load_address == kernel.load_address:  # the protocol's own, whatever the alignment
        return
    if not kernel.is_high or load_address < ONE_MIB:
        raise InputError(
            f"{kernel.name}: load address {load_address:#x}: expected "
            + ("1 MiB or more" if kernel.is_high else f"{kernel.load_address:#x}, it is a zImage")
        )
    if kernel.is_relocatable and load_address % _alignments(kernel)[-1]:
        raise InputError(
            f"{kernel.name}: load address {load_address:#x}: expected a multiple of "
            f"{_alignments(kernel)[-1]:#x} (kernel_alignment, min_alignment)"
        )


def _alignment_at(kernel: Kernel, load_address: int) -> int:
    """The best alignment that an address keeps; the kernel's own at the protocol's own address."""
    if load_address == kernel.load_address:
        return kernel["kernel_alignment"]
    return next(each for each in _alignments(kernel) if load_address % each == 0)


def _alignments(kernel: Kernel) -> list[int]:
    """What a relocatable kernel may be aligned to, best first (boot.rst, min_alignment)."""
    if kernel["kernel_alignment"].bit_count() > 1:
        raise InputError(
            f"{kernel.name}: kernel_alignment is {kernel['kernel_alignment']:#x}, "
            "expected a power of two"
        )
    alignment = max(kernel["kernel_alignment"], PAGE)
    least = 1 << kernel["min_alignment"] if kernel.get("min_alignment") else alignment
    found = [alignment]
    while alignment > max(least, PAGE):
        alignment //= 2
        found.append(alignment)
    return found


def runtime(kernel: Kernel, load_address: int, alignment: int) -> Region:
    """The memory that the kernel needs from its runtime start (boot.rst, init_size)."""
    size = max(kernel.get("init_size"), kernel.protected_size)
    what = "init_size" if size == kernel.get("init_size") else "protected-mode part's"
    if kernel.is_relocatable:
        start = max(load_address, kernel.get("pref_address"))
        start = align_up(start, max(alignment, 1))
        why = f"{what} bytes from the higher of load address and pref_address, aligned"
    elif kernel.is_high:
        start = kernel.get("pref_address") or kernel.load_address
        why = f"{what} bytes from where it runs"
    else:
        start = _ZIMAGE_RUN_ADDRESS
        size = max(size, kernel.contents.end - start)  # it is moved there from above
        why = f"a zImage's setup code moves it on to {start:#x}"
    return Region("kernel at run time (init_size)", start, start + size, why)


def unpacking(kernel: Kernel, running: Region) -> Region:
    """Where a kernel whose header has no init_size unpacks itself, at a guess.

    A zImage unpacks itself to 1 MiB. The factor is what other boot loaders take; and memdisk, which
    is small, has 200 KiB of bss.
    """
    if kernel.has("init_size") and kernel.is_high:
        return running
    start = running.start if kernel.is_high else ONE_MIB
    size = 3 * align_up(kernel.protected_size, PAGE) + ONE_MIB
    return Region("kernel unpacked", start, start + size)
