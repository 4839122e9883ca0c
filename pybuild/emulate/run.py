"""Runs flat binaries in unicorn and holds them to the contracts in their header comments.

A run begins in the mode that `enter` names, with everything hostile that the contract does not
promise: DF and the other flags set, patterns in the registers, segments that are not the flat ones.
In `protected32` paging and IF are off and CS is 0x10; the GDT is in a page that the harness adds.
In `long64` there is that, too, but for the paging: paging.py has what is mapped.

- Execution: a hook on every address that is not the binary's own, which costs nothing inside it.
  The `leaves` target is such an address: the run ends there, before its first instruction.
- Writes: with `trace` a hook on each that may break a contract. Where binaries call each other or
  segments matter that is a call per element of a `rep movs`: too slow for a large copy. So with
  and without it all of memory is compared before and after, and whatever differs outside the
  declared ranges is a violation: fill memory with noise, not zeros.
  Real-mode segments end after 64 KiB, which unicorn doesn't look at: for writes the hook does.
- Interrupts and ports are served by what `hardware` is given (bios.py); it may also end the run.
- What the first binary calls is held to its own contract, from its first byte to its own `leaves`
  target; meanwhile its caller's contract does not count.
- Segments: unicorn enforces no limits (QEMU's TCG doesn't) and has no call to read bases and
  limits, but they are in its saved context: cpu.py finds them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc, UcError

from pybuild.contract import GENERAL, LONG, SEGMENTS
from pybuild.emulate import paging as page_tables
from pybuild.emulate.activation import BOOT_CS, FLAT, FLAT_64, Activation, Placed
from pybuild.emulate.cpu import FLAGS, NUMBERS, ContractError, Segment, State, load_segments
from pybuild.emulate.memory import PAGE, TOP, Memory
from pybuild.emulate.paging import HIGHEST, Control, Paging

MODES: Final = {
    "real16": uc_const.UC_MODE_16,
    "protected32": uc_const.UC_MODE_32,
    "long64": uc_const.UC_MODE_64,
}
_ANYWHERE: Final = (1 << 64) - 1
_NEVER: Final = {"real16": 1 << 40, "protected32": 1 << 40, "long64": 1 << 63}  # an address
_PAGE_FAULT: Final = 14
_WIDEST_WRITE: Final = 16  # bytes
REAL_MODE_VECTORS: Final = 0x400  # bytes of the interrupt table
_HOSTILE_FLAGS: Final = 0x8D7 | FLAGS["df"]  # and OF SF ZF AF PF CF
_HLT: Final = b"\xf4"
_REAL_MODE_END: Final = 0x10FFF0  # what is beyond no real-mode segment reaches


class Outcome(NamedTuple):
    """All of memory, with the binaries and the GDT, before and after; how the run ended."""

    before: Memory
    after: Memory
    registers: dict[str, int]
    stopped: str  # what the hardware said; empty if the binary left
    entered: Control
    control: Control  # as it ended
    gdt: tuple[int, int]  # where it is then, and its limit


class Hardware(Protocol):
    """What there is round the CPU: a BIOS and what ports lead to."""

    cpu: int | None  # unicorn's number of a model; None is unicorn's own choice
    writes: Sequence[tuple[int, int]]  # memory of its own
    stopped: str  # why the machine goes no further; empty while it does

    def attach(self, uc: Uc) -> None:
        """Adds its hooks to a machine whose memory is in place."""

    def interrupt(self, number: int, now: State) -> None:
        """Serves an interrupt, or raises ContractError: no PC would survive how it was asked."""

    def halted(self, now: State) -> None:
        """Passes the time until an interrupt ends the HLT, or stops."""

    def detach(self) -> None:
        """Leaves all of memory where it can be read."""


# What the segment registers but CS hold on entry to protected mode: selectors 0x20, 0x28 ...
_ODD: Final = [Segment(0x1357_0000 + 0x102_1110 * i, 0x1FFF + PAGE * i, True) for i in range(5)]
_DATA: Final = b"".join(segment.descriptor(0x93) for segment in (FLAT, *_ODD))
_GDTS: Final = {
    "real16": b"",
    "protected32": bytes(16) + FLAT.descriptor(0x9B) + _DATA,
    "long64": bytes(16) + FLAT_64.descriptor(0x9B) + _DATA,
}


_NOTHING_PROMISED: Final = Paging()


def run(
    entered: Placed,
    *others: Placed,
    memory: Memory,
    registers: Mapping[str, int],
    trace: bool = True,
    budget: int = 100_000,
    hardware: Hardware | None = None,
    paging: Paging = _NOTHING_PROMISED,
) -> Outcome:
    """Runs `entered` to its `leaves` target, or to where the hardware stops it.

    Args:
        entered: where the run begins.
        others: what else may be entered on the way, each at its first byte. Without `trace`
            nobody looks at where execution goes inside of any of them.
        memory: what is in memory; the harness adds the binaries, a GDT and the target's page.
        registers: the entry registers that matter; the others get patterns.
        trace: whether to look at every write as it happens.
        budget: the most instructions that it may take; each turn of a `rep` is one.
        hardware: what serves its interrupts and ports; without it an interrupt breaks a contract.
        paging: what is mapped, in long mode.

    Raises:
        ContractError: it broke its contract; the text says how.
    """
    mode = entered.terms.enter
    given = {**_patterns(mode), **registers}
    _, _, target = entered.target(given)
    # What is at the target is decoded, though never executed: up to a page of it.
    top = HIGHEST if mode == "long64" else TOP
    parts = [(at % top, b"\xf4") for at in (target, target + PAGE)]
    parts += [(start, bytes(data)) for start, data in memory.stretches.items()]
    missing = [p for p in (entered, *others) if not p.there]
    parts += [(p.base, p.binary.bind(p.symbols, base=p.base)) for p in missing]
    taken = Memory(parts).stretches.items()
    free = (at for at in range(PAGE, TOP, PAGE) if all(not s <= at < s + len(d) for s, d in taken))
    table = _GDTS[mode]
    gdt = next(free) if paging.gdt is None else paging.gdt
    before = Memory([*parts, (gdt, table)])

    hidden = {}
    if mode == "long64":
        also = [(entered.base, entered.end), (gdt, gdt + len(table))]
        hidden = {HIGHEST: page_tables.tables_of(paging, also)}
    machine = _Machine((entered, *others), before, hidden, trace, hardware)
    if mode == "long64":
        page_tables.enter(machine.uc, paging)
    if mode == "real16":
        machine.uc.reg_write(x86_const.UC_X86_REG_IDTR, (0, 0, REAL_MODE_VECTORS - 1, 0))
    else:
        machine.uc.reg_write(x86_const.UC_X86_REG_GDTR, (0, gdt, len(table) - 1, 0))
    for name, value in given.items():
        machine.uc.reg_write(NUMBERS[name], value)
    if mode == "long64":
        load_segments(machine.uc, given, table)
    flags = _HOSTILE_FLAGS | (FLAGS["if"] if mode == "real16" else 0)
    machine.uc.reg_write(x86_const.UC_X86_REG_EFLAGS, flags)
    begun = Control.of(machine.uc)
    after = machine.run(before, budget)
    registers = State.of(machine.uc).registers
    stopped = hardware.stopped if hardware else ""
    _, gdt, limit, _ = machine.uc.reg_read(x86_const.UC_X86_REG_GDTR)
    return Outcome(before, after, registers, stopped, begun, Control.of(machine.uc), (gdt, limit))


def _patterns(mode: str) -> dict[str, int]:
    """What the registers hold on entry: each another value."""
    if mode == "long64":
        registers = {n: 0x9E37_79B9_7F4A_7C15 * (i + 3) % (1 << 64) for i, n in enumerate(LONG)}
    else:
        registers = {name: 0x9E37_79B1 * (i + 3) % TOP for i, name in enumerate(GENERAL)}
    if mode == "real16":
        return registers | {name: 0x1B51 * (i + 1) for i, name in enumerate(SEGMENTS)}
    data = [name for name in SEGMENTS if name != "cs"]
    return registers | {name: 0x20 + 8 * i for i, name in enumerate(data)} | {"cs": BOOT_CS}


def _outside(placed: Sequence[Placed]) -> Iterator[tuple[int, int]]:
    """What is in none of these, and where the others begin and leave to; ends included."""
    low = 0
    for each in sorted(placed, key=lambda p: p.base):
        if low < each.base:
            yield low, each.base - 1
        low = each.end
    yield low, _ANYWHERE
    for each in placed[1:]:
        yield each.base, each.base
        _, _, target = each.target({})
        if any(p.has(target) for p in placed):
            yield target, target


class _Machine:
    """A unicorn with the hooks that watch one run."""

    def __init__(
        self,
        placed: tuple[Placed, ...],
        memory: Memory,
        hidden: Mapping[int, bytes],
        trace: bool,
        hardware: Hardware | None,
    ) -> None:
        self.placed = placed
        self.hardware = hardware
        self.trace = trace
        self.real = any(each.terms.enter == "real16" for each in placed)
        self.active: list[Activation] = []
        self.may_change: list[tuple[int, int]] = []
        self.violation: ContractError | None = None
        mode = MODES[placed[0].terms.enter]
        self.uc = Uc(uc_const.UC_ARCH_X86, mode, hardware.cpu if hardware else None)
        # From the largest on: unicorn 2.1.4 confuses the pages of a larger one that comes later
        # with those of others, and then takes a write there for one to the code that runs.
        parts = [*memory.stretches.items(), *hidden.items()]
        for start, data in sorted(parts, key=lambda part: -len(part[1])):
            self.uc.mem_map(start, len(data))
            self.uc.mem_write(start, bytes(data))
        quiet = len(placed) == 1 or not trace
        for low, high in _outside(placed) if quiet else [(0, _ANYWHERE)]:
            self.uc.hook_add(uc_const.UC_HOOK_CODE, self._on_code, begin=low, end=high)
        self.uc.hook_add(uc_const.UC_HOOK_MEM_INVALID, self._on_unmapped)
        self.uc.hook_add(uc_const.UC_HOOK_INTR, self._on_interrupt)
        if hardware:
            hardware.attach(self.uc)
            self.may_change += hardware.writes

    def run(self, before: Memory, budget: int) -> Memory:
        """Runs the first binary; returns memory as it is then."""
        self._enter(self.placed[0])
        if self.trace or self.hardware:
            self._watch_writes()
        self._go(self.placed[0].entry, budget)
        while self.hardware and self.active and not (self.violation or self.hardware.stopped):
            now = State.of(self.uc)
            at = 16 * now.registers["cs"] + now.registers["ip"]
            if now.mode != "real16" or self.uc.mem_read(at - 1, 1) != _HLT:
                break
            self.hardware.halted(now)
            self._go(at, budget)
        if self.hardware:
            self.hardware.detach()
        if self.active and not (self.hardware and self.hardware.stopped):
            self._fail(f"took more than {budget} instructions")
        after = Memory((s, self.uc.mem_read(s, len(d))) for s, d in before.stretches.items())
        changed = before.take(after, self.may_change).first_difference(after)
        if changed is not None:
            self._fail(f"changed {changed:#x}, outside of what it declares")
        if self.violation:
            raise self.violation
        return after

    def _watch_writes(self) -> None:
        """Hooks what may break a contract: a write that cannot costs nothing then."""
        most = _ANYWHERE if self.trace else _REAL_MODE_END - 1
        unwatched = sorted(self.active[0].writes)
        if len(self.placed) > 1 or self.hardware or self.real:
            unwatched = []
        at = 0
        for low, high in [*unwatched, (most + 1, most + 1)]:
            if at < low:
                self.uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, self._on_write, begin=at, end=low - 1)
            at = max(at, high - _WIDEST_WRITE)

    def _go(self, address: int, budget: int) -> None:
        try:
            self.uc.emu_start(address, _NEVER[self.placed[0].terms.enter], count=budget)
        except UcError as error:
            self._fail(f"stopped by unicorn: {error}")
        except ContractError as error:  # the hardware's
            self._fail(str(error))

    def _fail(self, how: str) -> None:
        if self.violation is None:
            who = self.active[-1].placed if self.active else self.placed[0]
            self.violation = ContractError(f"{who.binary.name} at {who.base:#x} {how}")
        self.uc.emu_stop()

    def _enter(self, placed: Placed) -> None:
        self.active.append(Activation(placed, State.of(self.uc)))
        self.may_change += self.active[-1].writes
        if wrong := self.active[-1].wrong_on_entry():
            self._fail(wrong)

    def _on_code(self, _uc: Uc, address: int, _size: int, _data: object) -> None:
        if self.violation or not self.active:
            return
        now = self.active[-1]
        if address == now.target[2] and not now.placed.through:
            # Where a binary goes, the one that jumped to it may have promised to go, too.
            while self.active and address == self.active[-1].target[2]:
                if wrong := self.active[-1].wrong_on_leaving(State.of(self.uc)):
                    self._fail(wrong)
                self.active.pop()
            if not self.active:
                self.uc.emu_stop()
        elif not now.placed.has(address):
            called = [p for p in self.placed[1:] if p.base == address]
            if called:
                self._enter(called[0])
            else:
                self._fail(f"executes {address:#x}, outside of the binary")

    def _on_write(
        self, _uc: Uc, _access: int, address: int, size: int, _value: int, _data: object
    ) -> None:
        if not self.active:
            return
        what = f"writes {address:#x}..{address + size:#x}"
        ranges = self.active[-1].writes
        if not any(low <= address and address + size <= high for low, high in ranges):
            self._fail(f"{what}, outside of what it declares")
        elif address + size > 0x10000 and self.real and not self._reaches(address + size):
            self._fail(f"{what} in real mode, where no segment register reaches")

    def _reaches(self, end: int) -> bool:
        """Whether real-mode segments of 64 KiB reach so far, which unicorn does not look at."""
        if self.uc.reg_read(x86_const.UC_X86_REG_CR0) & 1:
            return True
        bases = (16 * self.uc.reg_read(NUMBERS[name]) for name in SEGMENTS)
        return any(end <= base + 0x10000 for base in bases if base < end)

    def _on_unmapped(
        self, _uc: Uc, _access: int, address: int, _size: int, _value: int, _data: object
    ) -> bool:
        self._fail(f"touches {address:#x}, where no memory is")
        return False

    def _on_interrupt(self, _uc: Uc, number: int, _data: object) -> None:
        now = State.of(self.uc)
        if self.hardware and not now.protected:
            self.hardware.interrupt(number, now)
        elif now.mode == "long64" and number == _PAGE_FAULT:
            at = self.uc.reg_read(x86_const.UC_X86_REG_CR2)
            self._fail(f"touches {at:#x}, which is not mapped")
        else:
            self._fail(f"raises interrupt or exception {number:#x}")
