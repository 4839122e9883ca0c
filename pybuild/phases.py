"""What lies where in memory while a plan is carried out: while loading, while moving, afterwards.

The planner's own check that nothing overlaps is of these phases, and they are what
`bootsplice plan` draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pybuild.errors import InputError
from pybuild.lowmemory import LOADER
from pybuild.machine import Machine
from pybuild.plan import Plan
from pybuild.regions import Region, clash


@dataclass(frozen=True, slots=True)
class Phase:
    """A while in which nothing changes its place.

    Attributes:
        when: the name of it.
        ours: what must be kept then.
        theirs: what is not ours then.
        left: what is still there, and nobody's any more once it is moved.
    """

    when: str
    ours: tuple[Region, ...]
    theirs: tuple[Region, ...]
    left: tuple[Region, ...] = ()


def of(plan: Plan, machine: Machine, busy: Sequence[Region]) -> tuple[Phase, ...]:
    """The phases of a plan, in their order.

    Args:
        plan: the plan.
        machine: its machine.
        busy: what is not ours while the parts are loaded.
    """
    at = {load.part: load.region for load in plan.loads}
    kept = (plan.stack, at["cmdline"], *(at[part] for part in ("initrd",) if part in at))
    early = (at["early"],) if "early" in at else ()
    loader = (LOADER, at["bootsect"], plan.bounce) if plan.bounce else ()
    return (
        Phase("while loading", (*kept, at["kernel"], *early, *loader), tuple(busy)),
        *(
            Phase(
                "while moving",
                (*kept, *early, move.code, move.destination),
                machine.reserved,
                (move.source,),
            )
            for move in plan.moves
        ),
        Phase("when the kernel runs", (*kept, plan.runtime), machine.reserved),
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
