"""All that `bootsplice plan` tells of a boot, as data: `planreport` and `svgmap` show it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pybuild import contract, headphases, paths, phases, splice
from pybuild.build import Prepared
from pybuild.drawing import picture
from pybuild.drawing.picture import Picture
from pybuild.headplan import ENTRY_64, HeadPlan
from pybuild.machine import Machine
from pybuild.phases import Phase
from pybuild.plan import Patch, Plan
from pybuild.regions import Region

# Of the plan of an image that another loader loads: what that loader decides for itself.
_OF_LOADER: Final = ("loads", "patches", "entry", "stack", "bounce")


@dataclass(frozen=True, slots=True)
class Part:
    """Something that has a place in memory.

    Attributes:
        name: what it is.
        loaded_at: where it is loaded; None if it comes into being later.
        runs_at: where it is used.
        size: bytes.
        why: the rules that the addresses are by.
    """

    name: str
    loaded_at: int | None
    runs_at: int
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Memory that is not ours.

    Attributes:
        name: what the machine profile calls it.
        start: its first address.
        end: the address behind its last.
        when: in which phases.
    """

    name: str
    start: int
    end: int
    when: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """See the module.

    Attributes:
        kernel: the kernel's file name.
        target: the target's name.
        machine: the machine profile's name.
        summary: what happens, in half a sentence.
        reason: why, in a sentence or two.
        parts: what has a place in memory.
        taken: what of the memory is not ours.
        moves: what is moved; the keys are Move's, as far as they are known.
        patches: the header fields that change.
        entry_is: what is entered in the state `entry`.
        entry: registers and their values, or for an image the addresses that loaders enter.
        kernel_entry: the same for where the relocator goes on, as its contract says.
        notes: what `build` says.
        picture: memory.
        plan: the plan, or as much of it as is not another loader's.
        head: the plan of an image that moves itself.
    """

    kernel: str
    target: str
    machine: str
    summary: str
    reason: str
    parts: tuple[Part, ...]
    taken: tuple[Taken, ...]
    moves: tuple[Mapping[str, int | str], ...]
    patches: tuple[Patch, ...]
    entry_is: str
    entry: Mapping[str, int]
    kernel_entry: Mapping[str, int | str]
    notes: tuple[str, ...]
    picture: Picture
    plan: Mapping[str, object] | None
    head: Mapping[str, object] | None

    def to_json(self) -> str:
        """The sheet as JSON, with the picture's rows; the same sheet gives the same text."""
        told = dataclasses.asdict(self)
        del told["picture"]
        told["phases"] = [
            {
                "when": column.when,
                "regions": [
                    {**dataclasses.asdict(row.region), "kind": row.kind} for row in column.rows
                ],
            }
            for column in self.picture.columns
        ]
        return json.dumps(told, indent=1) + "\n"


def of(prepared: Prepared, target: str) -> Sheet:
    """The sheet of what would be written for a target.

    Raises:
        InputError: the machine has no room for an image that moves itself.
    """
    plan, machine = prepared.plan, prepared.machine
    if prepared.head:
        sheet = of_head(prepared.head, machine)
    else:
        sheet = of_plan(plan, machine, prepared.busy, image_only=prepared.image_only)
    return dataclasses.replace(sheet, target=target, notes=plan.notes)


def of_plan(
    plan: Plan, machine: Machine, busy: Sequence[Region], *, image_only: bool = False
) -> Sheet:
    """The sheet of a plan.

    Args:
        plan: the plan.
        machine: its machine.
        busy: what of its memory is not ours while the parts are loaded.
        image_only: whether another loader sees to all but the protected-mode part.
    """
    found = phases.of(plan, machine, busy, image_only=image_only)
    told = json.loads(plan.to_json())
    if image_only:
        for key in _OF_LOADER:
            del told[key]
    top_is = "end of RAM" if plan.bounce is None else "end of the RAM that this needs"
    entry, first = plan.entry, "the setup code"
    if plan.load("early"):
        first = f"the early stage, which goes on to {first} at {entry.cs:#x}:{entry.ip:#x}"
    hooks = [move for move in plan.moves if move.by == "hook"]
    return Sheet(
        kernel=plan.kernel,
        target="",
        machine=machine.name,
        summary=_summary(found),
        reason=_reason(found),
        parts=_parts(found),
        taken=_taken(found, plan.ram),
        moves=tuple({"what": "kernel", **dataclasses.asdict(move)} for move in plan.moves),
        patches=plan.image_patches if image_only else plan.patches,
        entry_is=first,
        entry={} if image_only else _registers(plan),
        kernel_entry=_kernel_entry(hooks[0].code32_start) if hooks else {},
        notes=(),
        picture=picture.draw(found, plan.ram, top_is),
        plan=told,
        head=None,
    )


def of_head(head: HeadPlan, machine: Machine) -> Sheet:
    """The sheet of an image that moves itself.

    Raises:
        InputError: the machine has no room for it.
    """
    found = headphases.of(head, machine, machine.busy(before_firmware=False))
    loading, moving, _ = found
    at, asked = loading.ours[0].start, loading.ours[-1]
    entries = {"32-bit": at} | ({"64-bit": at + ENTRY_64} if head.long_mode else {})
    return Sheet(
        kernel=head.kernel,
        target="",
        machine=machine.name,
        summary=_summary(found),
        reason="The image works wherever its loader puts it: its head has the kernel moved.",
        parts=_parts(found),
        taken=_taken(found, asked.end),
        moves=tuple(
            {"what": source.name, "src": source.start, "dst": goal.start, "len": source.size}
            for source, goal in moving.moves
        ),
        patches=head.patches,
        entry_is="the head",
        entry=entries,
        kernel_entry=_kernel_entry(moving.moves[0][1].start + head.entry32),
        notes=(),
        picture=picture.draw(found, asked.end, "end of what the image asks for"),
        plan=None,
        head=dataclasses.asdict(head),
    )


def _summary(found: Sequence[Phase]) -> str:
    for phase in found:
        for source, goal in phase.moves:
            return f"{source.name} moved from {source.start:#x} to {goal.start:#x}"
    return f"kernel loaded at {_kernel(found).start:#x}, not moved"


def _reason(found: Sequence[Phase]) -> str:
    """Why the kernel is moved: what is in its place at first; or else why it is where it is."""
    running = found[-1].ours[-1]
    goal = next((goal for phase in found for _, goal in phase.moves), None)
    at = goal or _kernel(found)
    moves_on = f" Its own code moves it on to {running.start:#x}." * (at.start != running.start)
    if goal is None:
        return f"Why there: {at.why}.{moves_on}"
    there = [other.name for other in found[0].theirs if goal.overlaps(other)]
    while_loading = f": while it is loaded, {there[0]} is there" if there else ""
    return (
        f"The kernel must {'be' if moves_on else 'run'} at {at.start:#x}{while_loading}.{moves_on}"
    )


def _kernel(found: Sequence[Phase]) -> Region:
    """The kernel where it is loaded."""
    return next(region for region in found[0].ours if region.name == "kernel")


def _parts(found: Sequence[Phase]) -> tuple[Part, ...]:
    goals = {(s.start, s.end): goal for phase in found for s, goal in phase.moves}
    parts = []
    seen: set[Region] = set(goals.values())
    for number, phase in enumerate(found):
        for region in phase.ours:
            if region in seen:
                continue
            seen.add(region)
            goal = None if number else goals.get((region.start, region.end))
            runs_at = goal.start if goal else region.start
            why = f"{region.why}; {goal.why}" if goal else region.why
            parts.append(
                Part(region.name, None if number else region.start, runs_at, region.size, why)
            )
    return tuple(parts)


def _taken(found: Sequence[Phase], top: int) -> tuple[Taken, ...]:
    """What is not ours, up to `top`."""
    regions = dict.fromkeys(region for phase in found for region in phase.theirs)
    return tuple(
        Taken(r.name, r.start, r.end, tuple(phase.when for phase in found if r in phase.theirs))
        for r in sorted(regions, key=lambda region: region.start)
        if r.start < top
    )


def _registers(plan: Plan) -> dict[str, int]:
    """The boot sector's register state, by the registers' names."""
    symbols = splice.boot_sector_symbols(plan)
    return {symbol.rpartition("_")[2]: value for symbol, value in symbols.items()}


def _kernel_entry(address: int) -> dict[str, int | str]:
    """The state in which the 32-bit relocator enters the kernel, by its own contract."""
    terms = contract.read(paths.ROOT / "asm" / f"{splice.RELOCATOR}.asm")
    state = {register: int(value, 0) for register, value in terms.state.items()}
    return {"eip": address, **state, **dict.fromkeys(terms.preserves, "as it was")}
