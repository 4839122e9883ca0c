"""Where everything lies when a relocator runs: by hand, and drawn by hypothesis."""

import random
from dataclasses import dataclass
from typing import ClassVar, Final

from cpu import ContractError
from emulator import Outcome
from hypothesis import assume
from hypothesis import strategies as st
from longmode import HIGHEST, Paging, Range, hold_mapped
from memory import PAGE, TOP, Memory

from pybuild.contract import Contract
from pybuild.longmode import tables_size

CODE32_START_AT = 0x214  # in boot_params
EXT_CMD_LINE_PTR_AT: Final = 0xC8
CMD_LINE_PTR_AT: Final = 0x228
PARAMS: Final = 0x1000  # bytes of boot_params
CMD_LINE: Final = 0x10000  # bytes that are mapped for the command line
GDT: Final = 0x48  # bytes of the harness's
# What ranges begin, end and straddle: areas that have page tables of their own.
_CORNERS: Final = (1 << 25, 1 << 32, 5 << 30, 1 << 39, HIGHEST - (1 << 26))


@dataclass(frozen=True)
class Layout:
    """Where everything lies for one run of a relocator; `noise` seeds what memory holds."""

    pointer: ClassVar[str] = "esi"  # has boot_params
    spared: ClassVar[tuple[str, ...]] = ("esp", "ebp", "edi")
    bits: ClassVar[int] = 32  # of a register

    src: int
    dst: int
    len: int
    base: int
    boot_params: int
    code32_start: int
    noise: int = 0

    @property
    def field(self) -> int:
        """The address of boot_params' code32_start."""
        return self.boot_params + CODE32_START_AT

    @property
    def registers(self) -> dict[str, int]:
        """What the relocator is told by its caller."""
        return {self.pointer: self.boot_params}

    @property
    def budget(self) -> int:
        """Instructions."""
        return 1000 + 8 * self.len

    @property
    def paging(self) -> Paging:
        """What is mapped, in long mode."""
        return Paging()

    @property
    def scratch(self) -> list[Range]:
        """Memory that may hold anything afterwards."""
        return []

    def hold(self, outcome: Outcome) -> None:
        """Looks at what else is to be seen when it has left."""

    def symbols(self, terms: Contract) -> dict[str, int]:
        """What the relocator's source leaves open."""
        return {read.symbol: getattr(self, read.symbol) for read in terms.reads}

    def names(self, terms: Contract) -> dict[str, int]:
        """What the conditions of its contract are about."""
        return {**self.symbols(terms), **self.registers, "$$": self.base}

    def memory(self, size: int) -> Memory:
        """Noise wherever something lies, and a little around it: `size` is the binary's."""
        low = min(self.src, self.dst, self.base, self.field)
        high = max(self.src + self.len, self.dst + self.len, self.base + size, self.field + 4)
        low, high = low & -0x1000, (high + 0xFFF) & -0x1000
        return Memory([(low, random.Random(self.noise).randbytes(high - low))])


@dataclass(frozen=True)
class LongLayout(Layout):
    """And what x86_64/relocator needs beside."""

    pointer: ClassVar[str] = "rsi"
    spared: ClassVar[tuple[str, ...]] = ("rsp", "rbp", "rdi")
    bits: ClassVar[int] = 64

    entry: int = 0
    init_size: int = 0
    tables: int = 0x80000
    tables_size: int = tables_size(1, 1)
    cmd_line: int = 0xE0000
    gdt: int = 0xD0000
    la57: bool = False

    @property
    def budget(self) -> int:
        return 1_000_000 + 2 * self.len

    @property
    def paging(self) -> Paging:
        promised = [
            (self.src, self.src + self.len),
            (self.boot_params, self.boot_params + PARAMS),
            (self.cmd_line, self.cmd_line + 1),
            *self.scratch,
        ]
        return Paging(promised, self.gdt, self.la57)

    @property
    def scratch(self) -> list[Range]:
        return [(self.tables, self.tables + self.tables_size)]

    def hold(self, outcome: Outcome) -> None:
        control = outcome.control
        if control != outcome.entered._replace(cr3=self.tables):
            raise ContractError(f"leaves with {control}, entered with {outcome.entered}")
        room = max(self.len, self.init_size)
        ranges = [
            (0, TOP),
            (self.dst, self.dst + room),
            (self.base, self.base + 1),
            (self.gdt, self.gdt + GDT),
            (self.cmd_line, self.cmd_line + CMD_LINE),
            *self.paging.promised,
        ]
        hold_mapped(outcome.after, control, ranges)

    def memory(self, size: int) -> Memory:
        noise = random.Random(self.noise)
        ranges = [
            *self.paging.promised,
            (self.dst, self.dst + self.len),
            (self.base, self.base + size),
        ]
        whole = [(low & -PAGE, (high + PAGE - 1) & -PAGE) for low, high in ranges]
        memory = Memory([(low, noise.randbytes(high - low)) for low, high in whole])
        for at, word in (
            (CMD_LINE_PTR_AT, self.cmd_line),
            (EXT_CMD_LINE_PTR_AT, self.cmd_line >> 32),
        ):
            memory.write(self.boot_params + at, (word % TOP).to_bytes(4, "little"))
        return memory


def simple(mode: str, src: int, dst: int, length: int, noise: int) -> Layout:
    """A move from above 2 MiB to above 1 MiB, say, with all the rest below 1 MiB."""
    if mode == "long64":
        return LongLayout(src, dst, length, 0xF0000, 0xFE000, dst, noise, entry=dst)
    return Layout(src, dst, length, 0x100000 - 0x200, 0xFF000, dst, noise)


def any_layouts(
    lengths: st.SearchStrategy[int], terms: Contract, size: int
) -> st.SearchStrategy[Layout]:
    """Layouts for a relocator of that contract and size."""
    return long_layouts(lengths, terms.limit) if terms.enter == "long64" else layouts(lengths, size)


def distances(length: int) -> st.SearchStrategy[int]:
    """How far a copy goes: with all kinds of overlap, and just not."""
    return st.one_of(
        st.just(0),
        st.integers(1, 8),
        st.integers(1, max(length, 1)),
        st.integers(max(length - 4, 0), length + 4),
        st.integers(length, length + 5000),
    )


@st.composite
def layouts(draw: st.DrawFn, lengths: st.SearchStrategy[int], size: int) -> Layout:
    """The copy, the binary and boot_params' field, in any order, close together, anywhere."""
    length = draw(lengths)
    distance = draw(distances(length))
    span = {"copy": length + distance, "code": size, "field": 4}
    gaps = {name: draw(st.integers(0, 40)) for name in span}
    total = sum(span.values()) + sum(gaps.values())
    at = draw(st.one_of(st.integers(CODE32_START_AT, TOP - total), st.just(TOP - total)))
    places = {}
    for name in draw(st.permutations(list(span))):
        places[name] = at + gaps[name]
        at = places[name] + span[name]
    upwards = draw(st.booleans())
    code32_start = draw(st.one_of(st.just(places["copy"]), st.integers(0, TOP - 1)))
    assume(not 0 <= code32_start - places["code"] < size)
    return Layout(
        src=places["copy"] + (distance if upwards else 0),
        dst=places["copy"] + (0 if upwards else distance),
        len=length,
        base=places["code"],
        boot_params=places["field"] - CODE32_START_AT,
        code32_start=code32_start,
        noise=draw(st.integers(0, 1 << 32)),
    )


@st.composite
def long_layouts(draw: st.DrawFn, lengths: st.SearchStrategy[int], limit: int) -> LongLayout:
    """The copy, in one piece or far apart, and all the rest, each at any of the corners."""
    length = draw(lengths)
    distance = draw(distances(length))
    init_size = draw(st.one_of(st.integers(0, 1 << 22), st.integers(0, TOP - 1)))
    room = tables_size(length, init_size)
    span = {"code": limit, "params": PARAMS, "cmd_line": 1, "gdt": GDT, "tables": room}
    apart = draw(st.booleans())
    span |= {"src": length, "dst": length} if apart else {"copy": length + distance}
    places: dict[str, int] = {}
    taken: list[Range] = []
    for name in draw(st.permutations(list(span))):
        at = draw(st.sampled_from(_CORNERS)) - draw(
            st.one_of(st.just(0), st.integers(0, span[name]))
        )
        align = PAGE if name == "tables" else 1
        for low, high in sorted(taken):
            if low < at + span[name] and at < high:
                at = high + draw(st.integers(0, 40))
            at += -at % align
        places[name] = at + -at % align
        taken.append((places[name], places[name] + span[name]))
    if not apart:
        upwards = draw(st.booleans())
        places["src"] = places["copy"] + (distance if upwards else 0)
        places["dst"] = places["copy"] + (0 if upwards else distance)
    dst, tables = places["dst"], places["tables"]
    init_size = min(init_size, HIGHEST - 2 * PAGE - dst)
    if dst < tables:
        init_size = min(init_size, tables - dst)
    entry = draw(st.integers(0, TOP - 1))
    if (most := max(length, init_size)) and draw(st.booleans()):
        entry = dst + draw(st.integers(0, most - 1))
    assume(not 0 <= entry - places["code"] < limit)
    return LongLayout(
        src=places["src"],
        dst=dst,
        len=length,
        base=places["code"],
        boot_params=places["params"],
        code32_start=draw(st.integers(0, TOP - 1)),
        noise=draw(st.integers(0, 1 << 32)),
        entry=entry,
        init_size=init_size,
        tables=tables,
        tables_size=room,
        cmd_line=places["cmd_line"],
        gdt=places["gdt"],
        la57=draw(st.booleans()),
    )
