"""Runs flat binaries in unicorn and holds them to the contracts in their header comments.

A run begins in the mode that `enter` names, with everything hostile that the contract does not
promise: DF and the other flags set, patterns in the registers, segments that are not the flat ones.
In `protected32` paging and IF are off and CS is 0x10; the GDT is in a page that the harness adds.

- Execution: a hook on every address that is not the binary's own, which costs nothing inside it.
  The `leaves` target is such an address: the run ends there, before its first instruction.
- Writes: with `trace` a hook on each, which is a call per element of a `rep movs`: too slow for a
  large copy. So with and without it all of memory is compared before and after, and whatever
  differs outside the declared ranges is a violation: fill memory with noise, not zeros.
- What the first binary calls is held to its own contract, from its first byte to its own `leaves`
  target; meanwhile its caller's contract does not count.
- Segments: unicorn enforces no limits (QEMU's TCG doesn't) and has no call to read bases and
  limits, but they are in its saved context: _segments_at() finds them.
"""

import functools
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc, UcError

from pybuild import contract
from pybuild.contract import GENERAL, SEGMENTS
from pybuild.flat import BASE_SYMBOL, FlatBinary

MODES: Final = {"real16": uc_const.UC_MODE_16, "protected32": uc_const.UC_MODE_32}
FLAGS: Final = {"df": 1 << 10, "if": 1 << 9}
PAGE: Final = 0x1000
TOP: Final = 1 << 32
BOOT_CS: Final = 0x10
_NUMBERS: Final = {r: getattr(x86_const, f"UC_X86_REG_{r.upper()}") for r in (*GENERAL, *SEGMENTS)}
_HOSTILE_FLAGS: Final = 0x8D7 | FLAGS["df"]  # and OF SF ZF AF PF CF
_CR0_PE: Final = 1
_CR0_PG: Final = 1 << 31
_CACHE: Final = struct.Struct("<I4xQII")  # selector, base, limit, descriptor's high dword


class ContractError(AssertionError):
    """A binary did not do what its header comment says."""


class Memory:
    """Guest memory: the pages that the parts touch, at least one each; later parts lie on top."""

    def __init__(self, parts: Iterable[tuple[int, bytes | bytearray]]) -> None:
        parts = list(parts)
        self.stretches: dict[int, bytearray] = {}
        start = end = -1
        for address, size in sorted((address, len(data) or 1) for address, data in parts):
            if address & -PAGE > end:
                start = end = address & -PAGE
                self.stretches[start] = bytearray()
            end = max(end, (address + size + PAGE - 1) & -PAGE)
            self.stretches[start].extend(bytes(end - start - len(self.stretches[start])))
        for address, data in parts:
            self.write(address, data)

    def _find(self, address: int, size: int) -> tuple[bytearray, slice]:
        for start, data in self.stretches.items():
            if start <= address and address + size <= start + len(data):
                return data, slice(address - start, address - start + size)
        raise KeyError(f"{address:#x}..{address + size:#x} is not mapped")

    def read(self, address: int, size: int) -> bytes:
        data, part = self._find(address, size)
        return bytes(data[part])

    def write(self, address: int, new: bytes | bytearray) -> None:
        data, part = self._find(address, len(new))
        data[part] = new

    def take(self, other: "Memory", ranges: Iterable[tuple[int, int]]) -> "Memory":
        """A copy, with the contents of these ranges from another memory of the same pages."""
        copy = Memory(self.stretches.items())
        for low, high in ranges:
            for start, data in copy.stretches.items():
                part = slice(max(low - start, 0), max(high - start, 0))
                data[part] = other.stretches[start][part]
        return copy

    def first_difference(self, other: "Memory") -> int | None:
        """The lowest address where two memories of the same pages differ."""
        for start, data in sorted(self.stretches.items()):
            if data != (theirs := other.stretches[start]):
                return start + next(i for i, byte in enumerate(data) if byte != theirs[i])
        return None


@dataclass(frozen=True)
class Placed:
    """A binary, bound and in memory, and the terms that it is held to."""

    terms: contract.Contract
    binary: FlatBinary
    base: int
    symbols: Mapping[str, int]

    @property
    def end(self) -> int:
        return self.base + len(self.binary.code)

    def evaluate(self, expression: str, registers: Mapping[str, int]) -> int:
        """The value of an expression in the contract; `registers` as on entry."""
        return contract.evaluate(expression, {**registers, **self.symbols, BASE_SYMBOL: self.base})

    def writes(self, registers: Mapping[str, int]) -> list[tuple[int, int]]:
        """The ranges that may change, end exclusive."""
        evaluate = functools.partial(self.evaluate, registers=registers)
        return [(evaluate(low), evaluate(high)) for low, high in self.terms.writes]

    def target(self, registers: Mapping[str, int]) -> tuple[int | None, int, int]:
        """Where it goes next: the real-mode segment if it names one, the offset, the address."""
        segment, colon, offset = self.terms.leaves.rpartition(":")
        ip = self.evaluate(offset, registers)
        cs = self.evaluate(segment, registers) if colon else None
        return cs, ip, ip + 16 * (cs or 0)


class Outcome(NamedTuple):
    """All of memory, with the binaries and the GDT, before and after."""

    before: Memory
    after: Memory


class Segment(NamedTuple):
    """What a segment register keeps out of sight; `big` is the descriptor's D/B bit."""

    base: int
    limit: int
    big: bool

    def descriptor(self, access: int) -> bytes:
        granular = self.limit > 0xFFFFF
        limit = self.limit >> 12 if granular else self.limit
        flags = granular << 7 | self.big << 6 | limit >> 16
        high = (self.base >> 16 & 0xFF, access, flags, self.base >> 24)
        return struct.pack("<HHBBBB", limit & 0xFFFF, self.base & 0xFFFF, *high)


FLAT: Final = Segment(0, TOP - 1, True)
# What the segment registers but CS hold on entry to protected mode: selectors 0x20, 0x28 ...
_ODD: Final = [Segment(0x1357_0000 + 0x102_1110 * i, 0x1FFF + PAGE * i, True) for i in range(5)]
_GDT: Final = b"".join(
    [bytes(16), FLAT.descriptor(0x9B), FLAT.descriptor(0x93), *(s.descriptor(0x93) for s in _ODD)]
)


def run(
    entered: Placed,
    *others: Placed,
    memory: Memory,
    registers: Mapping[str, int],
    trace: bool = True,
    budget: int = 100_000,
) -> Outcome:
    """Runs `entered` to its `leaves` target.

    Args:
        entered: where the run begins.
        others: what else may be entered on the way, each at its first byte.
        memory: what is in memory; the harness adds the binaries, a GDT and the target's page.
        registers: the entry registers that matter; the others get patterns.
        trace: whether to look at every write as it happens.
        budget: the most instructions that it may take; each turn of a `rep` is one.

    Raises:
        ContractError: it broke its contract; the text says how.
    """
    protected = entered.terms.enter == "protected32"
    given = {**_patterns(protected), **registers}
    _, _, target = entered.target(given)
    # What is at the target is decoded, though never executed: up to a page of it.
    parts = [(at % TOP, b"\xf4") for at in (target, target + PAGE)]
    parts += [(start, bytes(data)) for start, data in memory.stretches.items()]
    parts += [(p.base, p.binary.bind(p.symbols, base=p.base)) for p in (entered, *others)]
    taken = Memory(parts).stretches.items()
    free = (at for at in range(PAGE, TOP, PAGE) if all(not s <= at < s + len(d) for s, d in taken))
    gdt = next(free)
    before = Memory([*parts, (gdt, _GDT)])

    machine = _Machine((entered, *others), before, trace)
    if protected:
        machine.uc.reg_write(x86_const.UC_X86_REG_GDTR, (0, gdt, len(_GDT) - 1, 0))
    for name, value in given.items():
        machine.uc.reg_write(_NUMBERS[name], value)
    flags = _HOSTILE_FLAGS | (0 if protected else FLAGS["if"])
    machine.uc.reg_write(x86_const.UC_X86_REG_EFLAGS, flags)
    return Outcome(before, machine.run(before, budget))


def _patterns(protected: bool) -> dict[str, int]:
    """What the registers hold on entry: each another value."""
    registers = {name: 0x9E37_79B1 * (i + 3) % TOP for i, name in enumerate(GENERAL)}
    if not protected:
        return registers | {name: 0x1B51 * (i + 1) for i, name in enumerate(SEGMENTS)}
    data = [name for name in SEGMENTS if name != "cs"]
    return registers | {name: 0x20 + 8 * i for i, name in enumerate(data)} | {"cs": BOOT_CS}


@functools.cache
def _segments_at() -> int:
    """Where the segment registers are in a saved context: QEMU's `SegmentCache segs[6]`."""
    uc = Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_16)
    expected = b""
    for i, name in enumerate(SEGMENTS):
        uc.reg_write(_NUMBERS[name], 0x4321 + i)
        expected += _CACHE.pack(0x4321 + i, 16 * (0x4321 + i), 0xFFFF, 0x9300)
    found = bytes(uc.context_save()).find(expected)
    if found < 0:
        raise NotImplementedError("this unicorn keeps its segment registers in another way")
    return found


class _State(NamedTuple):
    registers: dict[str, int]  # and eip, df, if
    segments: dict[str, Segment]
    protected: bool  # and not paged

    @classmethod
    def of(cls, uc: Uc) -> "_State":
        registers = {name: uc.reg_read(number) for name, number in _NUMBERS.items()}
        registers["eip"] = uc.reg_read(x86_const.UC_X86_REG_EIP)
        flags = uc.reg_read(x86_const.UC_X86_REG_EFLAGS)
        registers |= {name: int(bool(flags & bit)) for name, bit in FLAGS.items()}
        saved = bytes(uc.context_save())[_segments_at() :]
        caches = [_CACHE.unpack_from(saved, _CACHE.size * i) for i in range(len(SEGMENTS))]
        segments = {
            name: Segment(base, limit, bool(high & 1 << 22))
            for name, (_, base, limit, high) in zip(SEGMENTS, caches, strict=True)
        }
        mode = uc.reg_read(x86_const.UC_X86_REG_CR0) & (_CR0_PE | _CR0_PG)
        return cls(registers, segments, mode == _CR0_PE)


class _Activation:
    """A binary that was entered and has not left yet."""

    def __init__(self, placed: Placed, entry: _State) -> None:
        self.placed = placed
        self.entry = entry
        self.writes = placed.writes(entry.registers)
        self.target = placed.target(entry.registers)

    def wrong_on_entry(self) -> str | None:
        """What the caller did not keep to."""
        if self.placed.terms.enter == "real16":
            return "is entered in protected mode" if self.entry.protected else None
        if not self.entry.protected or self.entry.segments["cs"] != FLAT:
            return "is not entered in flat protected mode"
        if self.entry.registers["if"] or self.entry.registers["cs"] != BOOT_CS:
            return "is entered with IF set, or not through BOOT_CS"
        return None

    def wrong_on_leaving(self, now: _State) -> str | None:
        """What it did not keep to."""
        terms, cs, entry = self.placed.terms, self.target[0], self.entry.registers
        if now.protected != self.entry.protected:
            return "leaves in another mode than it was entered in"
        if now.registers["eip"] != self.target[1] or cs not in (None, now.registers["cs"]):
            return f"leaves to {now.registers['cs']:#x}:{now.registers['eip']:#x}"
        for name, found in now.registers.items():
            if name in terms.state:
                expected = self.placed.evaluate(terms.state[name], entry)
            elif name in (*terms.clobbers, *FLAGS, "eip"):
                continue
            else:
                expected = entry[name]
            if found != expected:
                return f"leaves with {name}={found:#x}, expected {expected:#x}"
        for name, segment in now.segments.items():
            wanted = self.entry.segments[name]
            if name in terms.state:
                real = Segment(16 * now.registers[name], 0xFFFF, False)
                wanted = FLAT if now.protected else real
            if segment != wanted:
                return f"leaves with {name} as {segment}, expected {wanted}"
        return None


class _Machine:
    """A unicorn with the hooks that watch one run."""

    def __init__(self, placed: tuple[Placed, ...], memory: Memory, trace: bool) -> None:
        self.placed = placed
        self.active: list[_Activation] = []
        self.may_change: list[tuple[int, int]] = []
        self.violation: ContractError | None = None
        self.uc = Uc(uc_const.UC_ARCH_X86, MODES[placed[0].terms.enter])
        for start, data in memory.stretches.items():
            self.uc.mem_map(start, len(data))
            self.uc.mem_write(start, bytes(data))
        outside = [(0, placed[0].base - 1), (placed[0].end, TOP - 1)]
        for low, high in outside if len(placed) == 1 else [(0, TOP - 1)]:
            if low <= high:
                self.uc.hook_add(uc_const.UC_HOOK_CODE, self._on_code, begin=low, end=high)
        if trace:
            self.uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, self._on_write)
        self.uc.hook_add(uc_const.UC_HOOK_MEM_INVALID, self._on_unmapped)
        self.uc.hook_add(uc_const.UC_HOOK_INTR, self._on_interrupt)

    def run(self, before: Memory, budget: int) -> Memory:
        """Runs the first binary; returns memory as it is then."""
        self._enter(self.placed[0])
        try:
            self.uc.emu_start(self.placed[0].base, 1 << 40, count=budget)
        except UcError as error:
            self._fail(f"stopped by unicorn: {error}")
        if self.active:
            self._fail(f"took more than {budget} instructions")
        after = Memory((s, self.uc.mem_read(s, len(d))) for s, d in before.stretches.items())
        changed = before.take(after, self.may_change).first_difference(after)
        if changed is not None:
            self._fail(f"changed {changed:#x}, outside of what it declares")
        if self.violation:
            raise self.violation
        return after

    def _fail(self, how: str) -> None:
        if self.violation is None:
            who = self.active[-1].placed if self.active else self.placed[0]
            self.violation = ContractError(f"{who.binary.name} at {who.base:#x} {how}")
        self.uc.emu_stop()

    def _enter(self, placed: Placed) -> None:
        self.active.append(_Activation(placed, _State.of(self.uc)))
        self.may_change += self.active[-1].writes
        if wrong := self.active[-1].wrong_on_entry():
            self._fail(wrong)

    def _on_code(self, _uc: Uc, address: int, _size: int, _data: object) -> None:
        if self.violation or not self.active:
            return
        now = self.active[-1]
        if address == now.target[2]:
            if wrong := now.wrong_on_leaving(_State.of(self.uc)):
                self._fail(wrong)
            self.active.pop()
            if not self.active:
                self.uc.emu_stop()
        elif not now.placed.base <= address < now.placed.end:
            called = [p for p in self.placed[1:] if p.base == address]
            if called:
                self._enter(called[0])
            else:
                self._fail(f"executes {address:#x}, outside of the binary")

    def _on_write(
        self, _uc: Uc, _access: int, address: int, size: int, _value: int, _data: object
    ) -> None:
        if self.active and not any(
            low <= address and address + size <= high for low, high in self.active[-1].writes
        ):
            self._fail(f"writes {address:#x}..{address + size:#x}, outside of what it declares")

    def _on_unmapped(
        self, _uc: Uc, _access: int, address: int, _size: int, _value: int, _data: object
    ) -> bool:
        self._fail(f"touches {address:#x}, where no memory is")
        return False

    def _on_interrupt(self, _uc: Uc, number: int, _data: object) -> None:
        self._fail(f"raises interrupt or exception {number:#x}")
