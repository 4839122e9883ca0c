"""A unicorn with flat binaries in it, watched while it runs: what holds them to their contracts.

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
from dataclasses import dataclass, field
from typing import Final, Protocol

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


class Hardware(Protocol):
    """What there is round the CPU: a BIOS and what ports lead to."""

    cpu: int | None  # unicorn's number of a model; None is unicorn's own choice
    writes: Sequence[tuple[int, int]]  # memory of its own
    stopped: str  # why the machine goes no further; empty while it does

    def attach(self, uc: Uc) -> None:
        """Adds its hooks to a machine whose memory is in place."""

    def interrupt(self, number: int, now: State) -> list[tuple[int, int]]:
        """Serves an interrupt, and says what of memory it wrote for its caller.

        Raises:
            ContractError: no PC would survive how it was asked.
        """

    def halted(self, now: State) -> None:
        """Passes the time until an interrupt ends the HLT, or stops."""

    def detach(self) -> None:
        """Leaves all of memory where it can be read."""


@dataclass(frozen=True)
class Start:
    """How a run begins.

    Attributes:
        placed: what may be entered, each at its first byte; the run begins in the first.
        memory: what is in memory; the machine adds the binaries, a GDT and the target's page.
        registers: the entry registers that matter; the others get patterns.
        hardware: what serves its interrupts and ports; without it an interrupt breaks a contract.
        paging: what is mapped, in long mode.
    """

    placed: tuple[Placed, ...]
    memory: Memory
    registers: Mapping[str, int]
    hardware: Hardware | None = None
    paging: Paging = field(default_factory=Paging)


# What the segment registers but CS hold on entry to protected mode: selectors 0x20, 0x28 ...
_ODD: Final = [Segment(0x1357_0000 + 0x102_1110 * i, 0x1FFF + PAGE * i, True) for i in range(5)]
_DATA: Final = b"".join(segment.descriptor(0x93) for segment in (FLAT, *_ODD))
SELECTORS: Final = range(BOOT_CS + 8, BOOT_CS + 8 + len(_DATA), 8)  # of data, there on entry
_GDTS: Final = {
    "real16": b"",
    "protected32": bytes(16) + FLAT.descriptor(0x9B) + _DATA,
    "long64": bytes(16) + FLAT_64.descriptor(0x9B) + _DATA,
}


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


def _next_instruction(uc: Uc) -> int:
    """The linear address of what would be executed next."""
    now = State.of(uc)
    return now.segments["cs"].base + now.registers["ip"]


def _filled(start: Start, registers: Mapping[str, int], gdt: bytes) -> tuple[Memory, int]:
    """Memory as the run begins, and where the GDT is in it."""
    entered = start.placed[0]
    _, _, target = entered.target(registers)
    # What is at the target is decoded, though never executed: up to a page of it.
    top = HIGHEST if entered.terms.enter == "long64" else TOP
    parts = [(at % top, _HLT) for at in (target, target + PAGE)]
    parts += [(at, bytes(data)) for at, data in start.memory.stretches.items()]
    missing = [p for p in start.placed if not p.there]
    parts += [(p.base, p.binary.bind(p.symbols, base=p.base)) for p in missing]
    taken = Memory(parts).stretches.items()
    free = (at for at in range(PAGE, TOP, PAGE) if all(not s <= at < s + len(d) for s, d in taken))
    at = next(free) if start.paging.gdt is None else start.paging.gdt
    return Memory([*parts, (at, gdt)]), at


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


class Machine:
    """A unicorn with the hooks that watch one run.

    Attributes:
        before: all of memory, with the binaries and the GDT, as the run begins.
        begun: the control registers then.
        active: what was entered and has not left, the one that runs last.
        violation: the first contract that was broken; None while none is.
        may_change: the ranges of memory that something declared, and the hardware's.
    """

    def __init__(self, start: Start, trace: bool) -> None:
        placed, hardware = start.placed, start.hardware
        self.placed = placed
        self.hardware = hardware
        self.trace = trace
        self.real = any(each.terms.enter == "real16" for each in placed)
        self.active: list[Activation] = []
        self.first: Activation | None = None  # what the run began in
        self.may_change: list[tuple[int, int]] = []
        self.violation: ContractError | None = None
        mode = placed[0].terms.enter
        given = {**_patterns(mode), **start.registers}
        table = _GDTS[mode]
        self.before, gdt = _filled(start, given, table)
        hidden = {}
        if mode == "long64":
            also = [(placed[0].base, placed[0].end), (gdt, gdt + len(table))]
            hidden = {HIGHEST: page_tables.tables_of(start.paging, also)}
        self.uc = Uc(uc_const.UC_ARCH_X86, MODES[mode], hardware.cpu if hardware else None)
        # From the largest on: unicorn 2.1.4 confuses the pages of a larger one that comes later
        # with those of others, and then takes a write there for one to the code that runs.
        parts = [*self.before.stretches.items(), *hidden.items()]
        for at, data in sorted(parts, key=lambda part: -len(part[1])):
            self.uc.mem_map(at, len(data))
            self.uc.mem_write(at, bytes(data))
        quiet = len(placed) == 1 or not trace
        for low, high in _outside(placed) if quiet else [(0, _ANYWHERE)]:
            self.uc.hook_add(uc_const.UC_HOOK_CODE, self._on_code, begin=low, end=high)
        self.uc.hook_add(uc_const.UC_HOOK_MEM_INVALID, self._on_unmapped)
        self.uc.hook_add(uc_const.UC_HOOK_INTR, self._on_interrupt)
        if hardware:
            hardware.attach(self.uc)
            self.may_change += hardware.writes
        self._enter_mode(mode, start.paging, given, (gdt, table))
        self.begun = Control.of(self.uc)

    def _enter_mode(
        self, mode: str, paging: Paging, registers: Mapping[str, int], gdt: tuple[int, bytes]
    ) -> None:
        address, table = gdt
        if mode == "long64":
            page_tables.enter(self.uc, paging)
        if mode == "real16":
            self.uc.reg_write(x86_const.UC_X86_REG_IDTR, (0, 0, REAL_MODE_VECTORS - 1, 0))
        else:
            self.uc.reg_write(x86_const.UC_X86_REG_GDTR, (0, address, len(table) - 1, 0))
        for name, value in registers.items():
            self.uc.reg_write(NUMBERS[name], value)
        if mode == "long64":
            load_segments(self.uc, registers, table)
        flags = _HOSTILE_FLAGS | (FLAGS["if"] if mode == "real16" else 0)
        self.uc.reg_write(x86_const.UC_X86_REG_EFLAGS, flags)

    def run(self, budget: int) -> Memory:
        """Runs the first binary to its `leaves` target, or to where the hardware stops it.

        Args:
            budget: the most instructions that it may take; each turn of a `rep` is one.

        Returns:
            Memory as it is then; `violation` says whether a contract was broken on the way.
        """
        self._enter(self.placed[0])
        self.first = self.active[0]
        if self.trace or self.hardware:
            self._watch_writes()
        self.go(self.placed[0].entry, budget)
        while self.hardware and self.active and not (self.violation or self.hardware.stopped):
            at = _next_instruction(self.uc)
            if State.of(self.uc).mode != "real16" or self.uc.mem_read(at - 1, 1) != _HLT:
                break
            self.hardware.halted(State.of(self.uc))
            self.go(at, budget)
        if self.hardware:
            self.hardware.detach()
        stopped = self.violation or (self.hardware and self.hardware.stopped)
        if self.active and not stopped:
            halts = self.uc.mem_read(_next_instruction(self.uc) - 1, 1) == _HLT
            self.fail("halts" if halts else f"took more than {budget} instructions")
        stretches = self.before.stretches.items()
        return Memory((at, self.uc.mem_read(at, len(data))) for at, data in stretches)

    def hold_unchanged(self, after: Memory) -> None:
        """Holds it to `writes` where nobody looked at each write."""
        changed = self.before.take(after, self.may_change).first_difference(after)
        if changed is not None:
            self.fail(f"changed {changed:#x}, outside of what it declares")

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

    def go(self, address: int, budget: int, until: int | None = None) -> None:
        """Runs on from an address, to another if one is given; budget 0 is no limit."""
        try:
            never = _NEVER[self.placed[0].terms.enter]
            self.uc.emu_start(address, never if until is None else until, count=budget)
        except UcError as error:
            self.fail(f"stopped by unicorn: {error}")
        except ContractError as error:  # the hardware's
            self.fail(str(error))

    def fail(self, how: str) -> None:
        """Stops the run: what runs, or ran last, broke its contract."""
        if self.violation is None:
            who = self.active[-1].placed if self.active else self.placed[0]
            self.violation = ContractError(f"{who.binary.name} at {who.base:#x} {how}")
        self.uc.emu_stop()

    def leave(self, activation: Activation, now: State) -> None:
        """Holds one that leaves to what it promised of the CPU."""
        if wrong := activation.wrong_on_leaving(now):
            self.fail(wrong)

    def serve(self, written: list[tuple[int, int]]) -> None:
        """Told what the hardware wrote as it served an interrupt."""

    def _enter(self, placed: Placed) -> None:
        self.active.append(Activation(placed, State.of(self.uc)))
        self.may_change += self.active[-1].writes
        if wrong := self.active[-1].wrong_on_entry():
            self.fail(wrong)

    def _on_code(self, _uc: Uc, address: int, _size: int, _data: object) -> None:
        if self.violation or not self.active:
            return
        now = self.active[-1]
        if address == now.target[2] and not now.placed.through:
            # Where a binary goes, the one that jumped to it may have promised to go, too.
            while self.active and address == self.active[-1].target[2]:
                self.leave(self.active[-1], State.of(self.uc))
                self.active.pop()
            if not self.active:
                self.uc.emu_stop()
        elif not now.placed.has(address):
            called = [p for p in self.placed[1:] if p.base == address]
            if called:
                self._enter(called[0])
            else:
                self.fail(f"executes {address:#x}, outside of the binary")

    def _on_write(
        self, _uc: Uc, _access: int, address: int, size: int, _value: int, _data: object
    ) -> None:
        if not self.active:
            return
        what = f"writes {address:#x}..{address + size:#x}"
        ranges = self.active[-1].writes
        if not any(low <= address and address + size <= high for low, high in ranges):
            self.fail(f"{what}, outside of what it declares")
        elif address + size > 0x10000 and self.real and not self._reaches(address + size):
            self.fail(f"{what} in real mode, where no segment register reaches")

    def _reaches(self, end: int) -> bool:
        """Whether real-mode segments of 64 KiB reach so far, which unicorn does not look at."""
        if self.uc.reg_read(x86_const.UC_X86_REG_CR0) & 1:
            return True
        bases = (16 * self.uc.reg_read(NUMBERS[name]) for name in SEGMENTS)
        return any(end <= base + 0x10000 for base in bases if base < end)

    def _on_unmapped(
        self, _uc: Uc, _access: int, address: int, _size: int, _value: int, _data: object
    ) -> bool:
        self.fail(f"touches {address:#x}, where no memory is")
        return False

    def _on_interrupt(self, _uc: Uc, number: int, _data: object) -> None:
        now = State.of(self.uc)
        if self.hardware and now.mode == "real16":
            self.serve(self.hardware.interrupt(number, now))
        elif now.mode == "long64" and number == _PAGE_FAULT:
            at = self.uc.reg_read(x86_const.UC_X86_REG_CR2)
            self.fail(f"touches {at:#x}, which is not mapped")
        else:
            self.fail(f"raises interrupt or exception {number:#x}")
