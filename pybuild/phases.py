"""What lies where in memory while a plan is carried out: while loading, while moving, afterwards.

The planner's own check that nothing overlaps is of these phases, and they are what
`bootsplice plan` draws.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pybuild.errors import InputError
from pybuild.lowmemory import LOADER
from pybuild.machine import Machine
from pybuild.plan import Plan
from pybuild.regions import Region, clash

LOADING: Final = "while loading"
MOVING: Final = "while moving"
RUNNING: Final = "when the kernel runs"


@dataclass(frozen=True, slots=True)
class Phase:
    """A while in which everything has its place.

    Attributes:
        when: the name of it.
        ours: what must be kept then.
        theirs: what is not ours then.
        moves: what is moved then, each from its source to one of `ours`.
    """

    when: str
    ours: tuple[Region, ...]
    theirs: tuple[Region, ...]
    moves: tuple[tuple[Region, Region], ...] = ()


def of(
    plan: Plan, machine: Machine, busy: Sequence[Region], *, image_only: bool = False
) -> tuple[Phase, ...]:
    """The phases of a plan, in their order.

    Args:
        plan: the plan.
        machine: its machine.
        busy: what is not ours while the parts are loaded.
        image_only: whether another loader sees to all but the protected-mode part.
    """
    at = {load.part: load.region for load in plan.loads}
    kept: tuple[Region, ...] = ()
    loader: tuple[Region, ...] = ()
    if not image_only:
        kept = (plan.stack, *(at[part] for part in ("cmdline", "early", "initrd") if part in at))
        loader = (LOADER, at["bootsect"], plan.bounce) if plan.bounce else ()
    kernel: tuple[Region, ...] = (at["kernel"],)
    moving = []
    for move in plan.moves:
        kernel = (dataclasses.replace(move.source, why=at["kernel"].why), move.code)
        parts = (*kept, move.code, move.destination)
        way = ((move.source, move.destination),)
        moving.append(Phase(MOVING, parts, machine.reserved, way))
    running = (*(region for region in kept if region.name != "early"), plan.runtime)
    return (
        Phase(LOADING, (*loader, *kept, *kernel), tuple(busy)),
        *moving,
        Phase(RUNNING, running, machine.reserved),
    )


def check(plan: Plan, machine: Machine, phases: Sequence[Phase]) -> None:
    """Holds every region against every other of its phase, and against the RAM.

    Raises:
        InputError: two overlap, or one ends above the RAM.
    """
    for phase in phases:
        pair = clash(phase.ours, phase.theirs)
        if pair:
            raise InputError(
                f"machine '{machine.name}', {plan.kernel}: {phase.when}, "
                f"{pair[0]} and {pair[1]} overlap"
            )
        for region in phase.ours:
            if region.end > machine.ram:
                raise InputError(
                    f"machine '{machine.name}', {plan.kernel}: {phase.when}, {region} ends above "
                    f"the {machine.ram:#x} bytes of RAM; give a --machine with more ram"
                )
