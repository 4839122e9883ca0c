"""What is held to its contract while it runs: a binary in its place, from its entry to its exit."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pybuild import contract
from pybuild.contract import GENERAL, WIDE
from pybuild.emulate.cpu import FLAGS, Segment, State
from pybuild.emulate.memory import TOP
from pybuild.flat import BASE_SYMBOL, FlatBinary

BOOT_CS: Final = 0x10
FLAT: Final = Segment(0, TOP - 1, True)
FLAT_64: Final = Segment(0, TOP - 1, False, True)  # of code in long mode


@dataclass(frozen=True)
class Placed:
    """A binary, bound and in memory, and the terms that it is held to."""

    terms: contract.Contract
    binary: FlatBinary
    base: int
    symbols: Mapping[str, int]
    also: Sequence[tuple[int, int]] = ()  # what it may write and no expression can tell
    there: bool = False  # its code need not be put in its place: something else does that
    through: bool = False  # what it enters leaves for it; its target may be code of its own first
    way_in: int | None = None  # a jump to its first byte, which is entered instead

    @property
    def entry(self) -> int:
        """Where it is entered."""
        return self.base if self.way_in is None else self.way_in

    def has(self, address: int) -> bool:
        """Whether it is its own code that is executed there."""
        return self.base <= address < self.end or address == self.way_in

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.base + len(self.binary.code)

    def evaluate(self, expression: str, registers: Mapping[str, int]) -> int:
        """The value of an expression in the contract; `registers` as on entry."""
        return contract.evaluate(expression, {**registers, **self.symbols, BASE_SYMBOL: self.base})

    def writes(self, registers: Mapping[str, int]) -> list[tuple[int, int]]:
        """The ranges that may change, end exclusive."""
        evaluate = functools.partial(self.evaluate, registers=registers)
        ranges = [(evaluate(low), evaluate(high)) for low, high in self.terms.writes]
        return [*ranges, *self.also]

    def target(self, registers: Mapping[str, int]) -> tuple[int | None, int, int]:
        """Where it goes next: the real-mode segment if it names one, the offset, the address."""
        segment, colon, offset = self.terms.leaves.rpartition(":")
        ip = self.evaluate(offset, registers)
        cs = self.evaluate(segment, registers) if colon else None
        return cs, ip, ip + 16 * (cs or 0)


class Finding(NamedTuple):
    """What became of one promise.

    Attributes:
        keyword: of the contract's line that has it.
        promise: what was promised, for people.
        wrong: how it was broken; None if it was kept.
        register: the one that it is about; empty if it is about none.
    """

    keyword: str
    promise: str
    wrong: str | None
    register: str = ""


class Activation:
    """A binary that was entered and has not left yet."""

    def __init__(self, placed: Placed, entry: State) -> None:
        self.placed = placed
        self.entry = entry
        self.writes = placed.writes(entry.registers)
        self.target = placed.target(entry.registers)

    def wrong_on_entry(self) -> str | None:
        """What the caller did not keep to."""
        enter = self.placed.terms.enter
        if enter == "real16":
            return None if self.entry.mode == enter else "is entered in protected mode"
        if self.entry.mode != enter or self.entry.segments["cs"] != self._flat("cs"):
            return f"is not entered in flat {enter}"
        if self.entry.registers["if"] or self.entry.registers["cs"] != BOOT_CS:
            return "is entered with IF set, or not through BOOT_CS"
        return None

    def wrong_on_leaving(self, now: State) -> str | None:
        """What it did not keep to first."""
        return next((found.wrong for found in self.on_leaving(now) if found.wrong), None)

    def on_leaving(self, now: State) -> Iterator[Finding]:
        """What it promised of the CPU's state as it leaves, one after the other."""
        terms, cs, entry = self.placed.terms, self.target[0], self.entry.registers
        wrong = None
        if now.mode != self.entry.mode:
            wrong = "leaves in another mode than it was entered in"
        elif now.registers["ip"] != self.target[1] or cs not in (None, now.registers["cs"]):
            wrong = f"leaves to {now.registers['cs']:#x}:{now.registers['ip']:#x}"
        yield Finding("leaves", f"{terms.leaves} ({self.target[2]:#x})", wrong)
        undefined = {*terms.clobbers, *FLAGS, "ip"}
        if now.mode == "long64":  # the low half of a register counts only where it is named
            undefined |= {*GENERAL, *(WIDE.get(name, name) for name in terms.clobbers)}
            undefined |= {WIDE.get(name, name) for name in terms.state}
        broken = set()
        for name, found in now.registers.items():
            keyword, promise = "preserves", name
            if name in terms.state:
                expected = self.placed.evaluate(terms.state[name], entry)
                keyword, promise = "leaves", f"{name}={expected:#x}"
            elif name in undefined:
                continue
            else:
                expected = entry[name]
            wrong = None
            if found != expected:
                broken.add(name)
                wrong = f"leaves with {name}={found:#x}, expected {expected:#x}"
            yield Finding(keyword, promise, wrong, name)
        for name, segment in now.segments.items():
            wanted = self.entry.segments[name]
            if name in (*terms.state, *terms.clobbers):
                real = Segment(16 * now.registers[name], 0xFFFF, False)
                wanted = real if now.mode == "real16" else self._flat(name)
            if segment != wanted and name not in broken:
                wrong = f"leaves with {name} as {segment}, expected {wanted}"
                yield Finding("leaves", f"{name}'s base and limit", wrong, name)

    def _flat(self, segment: str) -> Segment:
        return FLAT_64 if (self.entry.mode, segment) == ("long64", "cs") else FLAT
