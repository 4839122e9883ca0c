"""Runs flat binaries and holds them to the contracts in their header comments."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Final, NamedTuple

from unicorn import x86_const

from pybuild.emulate.activation import Placed
from pybuild.emulate.cpu import ContractError, State
from pybuild.emulate.effects import effects
from pybuild.emulate.machine import Hardware, Machine, Start
from pybuild.emulate.memory import Memory
from pybuild.emulate.paging import Control, Paging
from pybuild.emulate.steps import record
from pybuild.emulate.verdict import judge

_NOTHING_PROMISED: Final = Paging()


class Outcome(NamedTuple):
    """All of memory, with the binaries and the GDT, before and after; how the run ended."""

    before: Memory
    after: Memory
    registers: dict[str, int]
    stopped: str  # what the hardware said; empty if the binary left
    entered: Control
    control: Control  # as it ended
    gdt: tuple[int, int]  # where it is then, and its limit

    @classmethod
    def of(cls, machine: Machine, after: Memory) -> "Outcome":
        """That of a machine that has run."""
        registers = State.of(machine.uc).registers
        stopped = machine.hardware.stopped if machine.hardware else ""
        _, gdt, limit, _ = machine.uc.reg_read(x86_const.UC_X86_REG_GDTR)
        control = Control.of(machine.uc)
        return cls(machine.before, after, registers, stopped, machine.begun, control, (gdt, limit))


def run(
    entered: Placed,
    *others: Placed,
    memory: Memory,
    registers: Mapping[str, int],
    trace: bool = True,
    budget: int = 100_000,
    hardware: Hardware | None = None,
    paging: Paging = _NOTHING_PROMISED,
    explain: bool = True,
) -> Outcome:
    """Runs `entered` to its `leaves` target, or to where the hardware stops it.

    Args:
        entered: where the run begins.
        others: what else may be entered on the way, each at its first byte. Without `trace`
            nobody looks at where execution goes inside of any of them.
        memory: what is in memory; the machine adds the binaries, a GDT and the target's page.
        registers: the entry registers that matter; the others get patterns.
        trace: whether to look at every write as it happens.
        budget: the most instructions that it may take; each turn of a `rep` is one.
        hardware: what serves its interrupts and ports; without it an interrupt breaks a contract.
        paging: what is mapped, in long mode.
        explain: whether an error names the source line that is to blame. That takes a second run,
            step by step, of a copy of the hardware.

    Raises:
        ContractError: it broke its contract; the text says how.
    """
    start = Start((entered, *others), memory, registers, hardware, paging)
    return execute(start, trace=trace, budget=budget, explain=explain)


def execute(
    start: Start, *, trace: bool = True, budget: int = 100_000, explain: bool = True
) -> Outcome:
    """The same for a run as it is to begin."""
    spare = copy.deepcopy(start.hardware) if explain else None
    machine = Machine(start, trace)
    after = machine.run(budget)
    machine.hold_unchanged(after)
    if machine.first and not machine.active:
        wrong = (effect.finding.wrong for effect in effects(machine.first, machine.before, after))
        if broken := next(filter(None, wrong), None):
            machine.fail(broken)
    if machine.violation:
        again = dataclasses.replace(start, hardware=spare)
        raise _explained(machine.violation, again) if explain else machine.violation
    return Outcome.of(machine, after)


def _explained(violation: ContractError, start: Start) -> ContractError:
    """The same, with the source line that is to blame: found by a second run, step by step."""
    recorded = record(start)
    broken = [promise for promise in judge(recorded) if promise.finding.wrong]
    if recorded.exhausted or not broken:
        return violation
    same = [promise for promise in broken if str(promise.finding.wrong) in str(violation)]
    why = (same or broken)[0].why
    return ContractError(f"{violation}; {why}" if why else str(violation))
