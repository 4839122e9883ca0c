"""What lies where in memory while a kernel image that moves itself boots (headplan.py).

Its loader decides where. The phases are those of a loader that goes by the header: it takes
pref_address, or where that is in use the lowest aligned address with init_size bytes free.
"""

from collections.abc import Sequence

from pybuild import headplan
from pybuild.errors import InputError
from pybuild.headplan import HeadPlan
from pybuild.machine import Machine
from pybuild.phases import LOADING, MOVING, RUNNING, Phase
from pybuild.protected import PAGE
from pybuild.regions import Region, align_up, clash, first_fit

_WORK_WHY = "behind the image, clear of the kernel: GDT, relocator, command line, page tables"
_MOVED_WHY = "the head moves it up: the kernel needs the memory where it was"


def of(plan: HeadPlan, machine: Machine, busy: Sequence[Region]) -> tuple[Phase, ...]:
    """The phases of an image, in their order.

    Args:
        plan: the image's.
        machine: where it is to run.
        busy: what is not free there while it is loaded.

    Raises:
        InputError: no address has room for it.
    """
    image = _load(plan, machine, busy)
    at = image.start
    head = Region("head", at, at + plan.head_size, image.why)
    start = head.end
    kernel = Region("kernel", start, start + plan.len, "behind the head, which is whole pages")
    loaded = [head, kernel]
    built_in = Region("initrd", at + plan.initrd, at + plan.image_size, "behind the kernel")
    if plan.initrd_size:
        loaded.append(built_in)
    used = align_up(loaded[-1].end, PAGE)
    why = "what init_size asks of the loader beyond the image: for the head and the kernel"
    loaded.append(Region("memory asked for (init_size)", used, image.end, why))

    places = headplan.places(plan, at)
    work = Region("work area", places.work.start, places.work.end, _WORK_WHY)
    why = "the image's own first byte, whose alignment the loader has looked after"
    if not plan.follows:
        why = "it is not relocatable: that is where it must run"
    dst = places.kernel.start
    destination = Region("kernel's destination", dst, dst + plan.len, why)
    ways = [(kernel, destination)]
    kept = [work]
    if places.initrd and places.initrd.start == built_in.start:
        kept.append(built_in)
    elif places.initrd:
        kept.append(Region("initrd", places.initrd.start, places.initrd.end, _MOVED_WHY))
        ways.append((built_in, kept[-1]))
    why = "init_size bytes of the kernel's own, from where it is moved"
    running = Region("kernel at run time (init_size)", dst, places.kernel.end, why)
    return (
        Phase(LOADING, tuple(loaded), tuple(busy)),
        Phase(MOVING, (destination, *kept), machine.reserved, tuple(ways)),
        Phase(RUNNING, (*kept, running), machine.reserved),
    )


def _load(plan: HeadPlan, machine: Machine, busy: Sequence[Region]) -> Region:
    """All that the image asks for, at the address where a loader may well put it."""
    best = plan.pref_address
    image = Region("image", best, best + plan.memory, "pref_address: the loader is free to choose")
    in_the_way = clash([image], busy)
    if in_the_way is None and image.end <= machine.ram:
        return image
    alignment = max(plan.alignment, PAGE)
    start = first_fit(plan.memory, busy, low=best, high=machine.ram, alignment=alignment)
    if start is None:
        raise InputError(
            f"machine '{machine.name}': no room for an image of {plan.kernel} that needs "
            f"{plan.memory} bytes (init_size), from {best:#x} to {machine.ram:#x}"
        )
    why = (
        f"lowest multiple of {alignment:#x} with init_size free bytes; the loader is free to choose"
    )
    return Region("image", start, start + plan.memory, why)
