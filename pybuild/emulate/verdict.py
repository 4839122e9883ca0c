"""The verdict on a recorded run: what became of each promise, and which line is to blame."""

from collections.abc import Iterator
from typing import NamedTuple

from pybuild.contract import FLAGS, SEGMENTS
from pybuild.emulate.activation import Activation, Finding, Placed
from pybuild.emulate.cpu import ContractError, State
from pybuild.emulate.effects import effects
from pybuild.emulate.sources import Where, contract_line, where
from pybuild.emulate.steps import Recorded, Step


class Promise(NamedTuple):
    """What became of a promise of a contract.

    Attributes:
        finding: what was promised, and how that was broken.
        placed: whose promise it is.
        why: how it came to be broken, for people; empty if it was kept.
        line: the line to blame: the instruction that did it, or, if none did what was to be done,
            the contract's. None if it was kept, or there is no table of lines.
    """

    finding: Finding
    placed: Placed
    why: str = ""
    line: Where | None = None

    def __str__(self) -> str:
        return f"{self.finding.wrong}; {self.why}" if self.why else str(self.finding.wrong)


def judge(run: Recorded) -> list[Promise]:
    """What became of all that was promised, in the order in which the contract's lines mostly are.

    Of the binaries that the first one enters there is only what they broke.
    """
    promises = list(_ended(run))
    for activation, state, end in run.left:
        is_first = activation is run.machine.first
        for finding in activation.on_leaving(state):
            if finding.wrong:
                promises.append(_about_register(run, activation.placed, finding, end))
            elif is_first:
                promises.append(Promise(finding, activation.placed))
        if is_first:
            promises += _wrong_writes(run)
            promises += _effects(run, activation)
    if not any(activation is run.machine.first for activation, _, _ in run.left):
        promises += _wrong_writes(run)
    return promises


def unlike(run: Recorded, promise: str, error: ContractError) -> Promise:
    """A promise that is in no contract and was not kept, with the line that wrote the byte."""
    finding = Finding("", promise, str(error))
    placed = run.machine.placed[0]
    hardware = run.machine.hardware
    if hardware and hardware.stopped:
        line = _line(run, len(run.steps) - 1)
        return Promise(finding, placed, f"at {line}", line)
    if error.at is None:
        return Promise(finding, placed)
    return Promise(finding, placed, *_writer(run, error.at))


def _ended(run: Recorded) -> Iterator[Promise]:
    if run.machine.violation is None:
        return
    placed = run.steps[-1].activation.placed if run.steps else run.machine.placed[0]
    finding = Finding("leaves", placed.terms.leaves, str(run.machine.violation))
    if not run.steps:
        yield Promise(finding, placed)
        return
    index = len(run.steps) - 1
    line = _line(run, index)
    ip = State.of(run.machine.uc).registers["ip"]
    source = _since(run, index, ip, "")
    yield Promise(finding, placed, f"at {line}{source}", line)


def _about_register(run: Recorded, placed: Placed, finding: Finding, end: int) -> Promise:
    if not finding.register:
        line = _line(run, end - 1)
        return Promise(finding, placed, f"at {line}", line)
    index = run.last_change(finding.register, end)
    if index is None:
        verb = {**dict.fromkeys(SEGMENTS, "loads"), **dict.fromkeys(FLAGS, "changes")}
        line = contract_line(placed, placed.terms.numbers[finding.keyword][0])
        does = verb.get(finding.register, "sets")
        return Promise(
            finding,
            placed,
            f"nothing {does} it, but {line.file}:{line.number} promises {finding.promise}",
            line,
        )
    line = _line(run, index)
    value = run.registers_after(index)[finding.register]
    source = _since(run, index, value, finding.register) if finding.register in SEGMENTS else ""
    verb_done = "loaded" if finding.register in SEGMENTS else "changed"
    return Promise(finding, placed, f"last {verb_done} at {line}{source}", line)


def _since(run: Recorded, index: int, value: int, register: str) -> str:
    """Which general register had a value as a step used it, and where it got that."""
    before = run.registers_before(index)
    for name in run.names:
        changed = run.last_change(name, index) if before[name] == value else None
        if name != register and changed is not None:
            return f" ({value:#x} is in {name} since {_line(run, changed)})"
    return ""


def _wrong_writes(run: Recorded) -> list[Promise]:
    """One for each line that wrote where nothing may be written; else that none did."""
    first = run.machine.placed[0]
    found: dict[int, tuple[int, Step, list[int]]] = {}
    for index, step in enumerate(run.steps):
        allowed = step.activation.writes
        for low, high in step.writes:
            if outside := _outside(low, high, allowed):
                _, _, whole = found.setdefault(step.address, (index, step, outside))
                whole[:] = [min(whole[0], outside[0]), max(whole[1], outside[1])]
    if not found:
        return [Promise(Finding("writes", "nothing outside of what is declared", None), first)]
    promises = []
    for index, step, (low, high) in found.values():
        placed = step.activation.placed
        size = high - low
        writes = "has the BIOS write" if step.served else "writes"
        wrong = f"{writes} {low:#x}..{high:#x}, outside of what it declares"
        finding = Finding("writes", f"{size} byte{'s' * (size > 1)} outside", wrong)
        line = where(placed, step.address)
        promises.append(Promise(finding, placed, f"at {line}{_downwards(run, index)}", line))
    return promises


def _downwards(run: Recorded, index: int) -> str:
    """Why a string instruction goes downwards; nothing if it is none, or goes upwards."""
    if not (run.steps[index].repeats and run.registers_before(index)["df"]):
        return ""
    changed = run.last_change("df", index)
    since = "as it was on entry" if changed is None else f"set at {_line(run, changed)}"
    return f", with df {since}"


def _outside(low: int, high: int, allowed: list[tuple[int, int]]) -> list[int] | None:
    """What of a range is in none of the others, as one range; None if nothing is."""
    left, at = [], low
    for start, end in sorted(allowed):
        if at < min(start, high):
            left.append((at, min(start, high)))
        at = max(at, end)
    if at < high:
        left.append((at, high))
    return [left[0][0], left[-1][1]] if left else None


def _effects(run: Recorded, activation: Activation) -> Iterator[Promise]:
    placed = activation.placed
    for effect in effects(activation, run.machine.before, run.after):
        if effect.at is None:
            yield Promise(effect.finding, placed)
            continue
        why, line = _writer(run, effect.at)
        if line is None:
            line = contract_line(placed, effect.line)
            why += f", but {line.file}:{line.number} promises that"
        yield Promise(effect.finding, placed, why, line)


def _writer(run: Recorded, at: int) -> tuple[str, Where | None]:
    """Which line wrote a byte, or what is beside it; no line if none did."""
    index = run.last_write(at)
    if index is not None:
        line = _line(run, index)
        return f"last written at {line}", line
    beside = [run.last_write(at - 1), run.last_write(at + 1)]
    near = next((index for index in beside if index is not None), None)
    if near is None:
        return "nothing writes it", None
    line = _line(run, near)
    return f"nothing writes it; what is beside it was written at {line}", line


def _line(run: Recorded, index: int) -> Where | None:
    step = run.steps[index]
    return where(step.activation.placed, step.address)
