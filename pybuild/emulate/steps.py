"""Runs flat binaries step by step: each instruction, the registers before it and what it wrote.

A callback for each instruction and for each write takes some microseconds; a turn of a `rep` is an
instruction, too. So a long one runs without any hook, and its registers tell what it wrote.
"""

import functools
import itertools
import re
from dataclasses import dataclass, field
from typing import Final

from unicorn import unicorn_const as uc_const

from pybuild.contract import GENERAL, LONG, SEGMENTS, WIDE
from pybuild.emulate.activation import Activation
from pybuild.emulate.cpu import (
    SELECTORS,
    Snapshots,
    State,
    changes,
    part_of,
    registers_of,
    with_halves,
)
from pybuild.emulate.machine import Machine, Start
from pybuild.emulate.memory import Memory

MOST_STEPS: Final = 200_000  # 100 MB of them
_MANY_TURNS: Final = 1000  # of a `rep`, which are worth the time that it takes to change the hooks
_LONGEST_INSTRUCTION: Final = 15  # bytes
_ANYWHERE: Final = (1 << 64) - 1
_STRING: Final = re.compile(
    rb"(?=[^\xf2\xf3]*[\xf2\xf3])"  # without `rep` it is an instruction like any other
    rb"([\x26\x2e\x36\x3e\x64-\x67\xf2\xf3]+)([\x40-\x4f]?)([\xa4-\xa7\xaa-\xaf])"
)
_WRITING: Final = b"\xa4\xa5\xaa\xab"  # movs, stos


@dataclass(slots=True)
class Step:
    """One instruction, executed once; with a `rep` prefix, to its end.

    Attributes:
        address: the instruction's.
        activation: the binary that it is of, since it was entered.
        before: the registers, for registers_of().
        writes: the ranges written, [start, end], in their order.
        repeats: whether it is a string instruction with a `rep` prefix.
        served: whether it is an interrupt that the hardware served; then the writes are its.
    """

    address: int
    activation: Activation
    before: bytes
    repeats: bool
    writes: list[list[int]] = field(default_factory=list)
    served: bool = False


@dataclass(frozen=True)
class Recorded:
    """A run, step by step.

    Attributes:
        machine: as the run left it.
        names: the general registers of its mode.
        steps: what was executed, in its order.
        last: the registers after the last step.
        left: what left where it should, first to last, with the number of steps until then.
        after: all of memory at the end.
    """

    machine: Machine
    names: tuple[str, ...]
    steps: list[Step]
    last: bytes
    left: list[tuple[Activation, State, int]]
    after: Memory

    @property
    def exhausted(self) -> bool:
        """Whether it took more steps than are recorded."""
        return len(self.steps) >= MOST_STEPS

    def snapshot_after(self, index: int) -> bytes:
        """The registers after a step."""
        return self.steps[index + 1].before if index + 1 < len(self.steps) else self.last

    def registers_before(self, index: int) -> dict[str, int]:
        """By name, with df and if; those of 64 bits by the names of their low halves, too."""
        return with_halves(registers_of(self.steps[index].before, self.names))

    def registers_after(self, index: int) -> dict[str, int]:
        """The same, after a step."""
        return with_halves(registers_of(self.snapshot_after(index), self.names))

    def last_change(self, register: str, end: int) -> int | None:
        """The last step before step `end` that changed a register; None if none did."""
        whole = WIDE.get(register, register) if register not in self.names else register
        part = part_of(whole, self.names)
        for index in reversed(self._segment_changes if register in SEGMENTS else range(end)):
            before, after = self.steps[index].before, self.snapshot_after(index)
            is_changed = index < end and before[part] != after[part]
            if is_changed and whole in changes(before, after, self.names):
                return index
        return None

    @functools.cached_property
    def _segment_changes(self) -> list[int]:
        """The steps that changed any segment register: few of many."""
        every = [step.before[SELECTORS] for step in self.steps] + [self.last[SELECTORS]]
        return [i for i, (old, new) in enumerate(itertools.pairwise(every)) if old != new]

    def last_write(self, address: int) -> int | None:
        """The last step that wrote the byte at an address; None if none did."""
        for index in range(len(self.steps) - 1, -1, -1):
            if any(low <= address < high for low, high in self.steps[index].writes):
                return index
        return None


def record(start: Start) -> Recorded:
    """Runs it to the end, or up to where a contract is broken so that it cannot go on."""
    recorder = _Recorder(start)
    after = recorder.run(0)
    names = LONG if start.placed[0].terms.enter == "long64" else GENERAL
    last = recorder.snapshots.take()
    return Recorded(recorder, names, recorder.steps, last, recorder.left, after)


class _Recorder(Machine):
    """A machine that stops at no broken contract as long as execution can go on."""

    def __init__(self, start: Start) -> None:
        super().__init__(start, trace=False)
        self.snapshots = Snapshots(self.uc)
        self.steps: list[Step] = []
        self.left: list[tuple[Activation, State, int]] = []
        self._repeating = -1  # the address of the string instruction that has turns to go
        self._long: tuple[int, bytes] | None = None  # the one to run without hooks
        self._strings: dict[int, re.Match[bytes] | None] = {}
        self._hooks: list[int] = []

    def leave(self, activation: Activation, now: State) -> None:
        """Keeps it, for the verdict."""
        self.left.append((activation, now, len(self.steps)))

    def serve(self, written: list[tuple[int, int]]) -> None:
        """Keeps it, with the instruction that asked for it."""
        own = self.hardware.writes if self.hardware else ()
        self.steps[-1].served = True
        for start, end in written:
            if not any(low <= start and end <= high for low, high in own):
                self.steps[-1].writes.append([start, end])

    def go(self, address: int, budget: int, until: int | None = None) -> None:
        """Runs on from an address; what repeats for long runs without hooks."""
        if not self._hooks:  # it goes on behind each HLT
            self._add_hooks()
        super().go(address, budget, until)
        while self._long and not self.violation:
            at, code = self._long
            self._long = None
            before = State.of(self.uc)
            for hook in self._hooks:
                self.uc.hook_del(hook)
            self._hooks.clear()
            self.uc.ctl_flush_tb()  # the code that was translated with the hooks
            super().go(at, 0, at + len(code))
            self.steps[-1].writes += _written(code, before, State.of(self.uc))
            self.uc.ctl_flush_tb()
            if not self.violation:
                self._add_hooks()
                super().go(at + len(code), budget, until)

    def _add_hooks(self) -> None:
        self._hooks = [
            self.uc.hook_add(uc_const.UC_HOOK_CODE, self._on_step, begin=0, end=_ANYWHERE),
            self.uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, self._on_store, begin=0, end=_ANYWHERE),
        ]

    def _on_step(self, _uc: object, address: int, size: int, _data: object) -> None:
        if address == self._repeating or self.violation or not self.active:
            return
        if len(self.steps) == MOST_STEPS:
            self.fail(f"took more than {MOST_STEPS} instructions")
            return
        if address not in self._strings:
            # The size of what is no instruction is anything.
            code = self.uc.mem_read(address, size if size <= _LONGEST_INSTRUCTION else 1)
            self._strings[address] = _STRING.fullmatch(code)
        string = self._strings[address]
        before = self.snapshots.take()
        self.steps.append(Step(address, self.active[-1], before, bool(string)))
        self._repeating = address if string else -1
        is_long = string and registers_of(before, LONG)["rcx"] > _MANY_TURNS
        # unicorn 2.1 restarts right only in the mode that it was made for.
        if string and is_long and State.of(self.uc).mode == self.placed[0].terms.enter:
            self._long = (address, string[0])
            self.uc.emu_stop()

    def _on_store(
        self, _uc: object, _access: int, address: int, size: int, _value: int, _data: object
    ) -> None:
        if not self.steps:
            return
        writes = self.steps[-1].writes
        if writes and writes[-1][1] == address:
            writes[-1][1] += size
        elif writes and writes[-1][0] == address + size:
            writes[-1][0] = address
        else:
            writes.append([address, address + size])


def _written(code: bytes, before: State, after: State) -> list[list[int]]:
    """The range that a string instruction has written, by how its registers have changed."""
    string = _STRING.fullmatch(code)
    if string is None or string[3] not in _WRITING:
        return []
    prefixes, rex, opcode = string.groups()
    segment = before.segments["cs"]
    widths = {"long64": 64}.get(before.mode, 32 if segment.big else 16)
    if b"\x67" in prefixes:
        widths = {64: 32, 32: 16, 16: 32}[widths]
    size = 2 if (b"\x66" in prefixes) == (segment.big or before.mode == "long64") else 4
    if rex and rex[0] & 8 and before.mode == "long64":
        size = 8
    if not opcode[0] & 1:
        size = 1
    names = ("rcx", "rdi") if before.mode == "long64" else ("ecx", "edi")
    mask = (1 << widths) - 1
    count, at = (before.registers[name] & mask for name in names)
    done = (count - after.registers[names[0]]) & mask
    low = before.segments["es"].base + at
    if before.registers["df"]:
        low -= (done - 1) * size
    return [[low, low + done * size]] if done else []
