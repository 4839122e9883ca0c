"""Where everything lies when a relocator runs, and what is seen there when it has."""

import random
from dataclasses import dataclass
from typing import ClassVar, Final

from pybuild.contract import Contract
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.memory import PAGE, TOP, Memory
from pybuild.emulate.paging import Paging, Range, hold_mapped
from pybuild.emulate.run import Outcome
from pybuild.longmode import tables_size

CODE32_START_AT = 0x214  # in boot_params
EXT_CMD_LINE_PTR_AT: Final = 0xC8
CMD_LINE_PTR_AT: Final = 0x228
PARAMS: Final = 0x1000  # bytes of boot_params
CMD_LINE: Final = 0x10000  # bytes that are mapped for the command line
GDT: Final = 0x48  # bytes of the harness's


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
        """Instructions: page tables take many."""
        return 1_000_000 + 2 * self.len

    @property
    def paging(self) -> Paging:
        """What the contract's prose says, and no more."""
        promised = [
            (self.src, self.src + self.len),
            (self.boot_params, self.boot_params + PARAMS),
            (self.cmd_line, self.cmd_line + 1),
            *self.scratch,
        ]
        return Paging(promised, self.gdt, self.la57)

    @property
    def scratch(self) -> list[Range]:
        """The page tables."""
        return [(self.tables, self.tables + self.tables_size)]

    def hold(self, outcome: Outcome) -> None:
        """Looks at the page tables that it leaves in use.

        Raises:
            ContractError: they do not map what the contract's prose says.
        """
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
        """Noise in the pages of each thing; boot_params tells of the command line."""
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
