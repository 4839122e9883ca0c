"""Long mode as the harness sets it up and looks at it: page tables, control registers.

On entry the tables map, in pages of 4 KiB and address for address, what a contract promises and not
a byte more, but for the rest of those pages. They lie where no run has memory, and are not mapped
themselves. unicorn's CPU has 40 bits of physical addresses. It has CR4.LA57, and walks five levels.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc

from pybuild.emulate.cpu import CR0_PE, CR0_PG, ContractError
from pybuild.emulate.memory import PAGE, Memory

HIGHEST: Final = (1 << 40) - (1 << 30)  # where memory must end: the harness's tables begin
_CR0_WP: Final = 1 << 16
_CR4_PAE: Final = 1 << 5
_CR4_PGE: Final = 1 << 7
_CR4_LA57: Final = 1 << 12
_PRESENT: Final = 1
_WRITABLE: Final = 2
_LARGE: Final = 1 << 7
_NO_EXECUTE: Final = 1 << 63
_ADDRESS: Final = (1 << 52) - PAGE
_ENTRIES: Final = struct.Struct("<512Q")

Range = tuple[int, int]  # end exclusive


class Control(NamedTuple):
    """The control registers that paging has to do with."""

    cr0: int
    cr3: int
    cr4: int

    @classmethod
    def of(cls, uc: Uc) -> "Control":
        """Those of a unicorn."""
        return cls(
            *(uc.reg_read(getattr(x86_const, f"UC_X86_REG_{n.upper()}")) for n in cls._fields)
        )


@dataclass(frozen=True)
class Paging:
    """What of memory a binary finds mapped, beside itself and the GDT.

    Attributes:
        promised: the ranges.
        gdt: where the GDT is; None is anywhere.
        la57: whether the tables have five levels.
    """

    promised: Sequence[Range] = ()
    gdt: int | None = None
    la57: bool = False


def enter(uc: Uc, paging: Paging) -> None:
    """Has a unicorn in UC_MODE_64 use the page tables at HIGHEST."""
    la57 = _CR4_LA57 if paging.la57 else 0
    control = Control(CR0_PG | _CR0_WP | CR0_PE, HIGHEST, _CR4_PAE | _CR4_PGE | la57)
    uc.reg_write(x86_const.UC_X86_REG_CR3, control.cr3)
    uc.reg_write(x86_const.UC_X86_REG_CR4, control.cr4)
    uc.reg_write(x86_const.UC_X86_REG_CR0, uc.reg_read(x86_const.UC_X86_REG_CR0) | control.cr0)


def _shifts(la57: bool) -> tuple[int, ...]:
    """The lowest bit of each level's index, the root's first."""
    return (48, 39, 30, 21, 12) if la57 else (39, 30, 21, 12)


def tables_of(paging: Paging, also: Iterable[Range]) -> bytes:
    """Tables for HIGHEST that map what is promised, and `also`; the root is the first."""
    ranges, la57 = [*paging.promised, *also], paging.la57
    tables = [[0] * 512]
    below: dict[tuple[int, int], int] = {}  # by a level's shift and the bits above it
    for low, high in ranges:
        for page in range(low & -PAGE, high, PAGE):
            table = 0
            *above, last = _shifts(la57)
            for shift in above:
                key = (shift, page >> shift)
                if key not in below:
                    below[key] = len(tables)
                    entry = HIGHEST + PAGE * len(tables) | _WRITABLE | _PRESENT
                    tables[table][page >> shift & 511] = entry
                    tables.append([0] * 512)
                table = below[key]
            tables[table][page >> last & 511] = page | _WRITABLE | _PRESENT
    return b"".join(_ENTRIES.pack(*table) for table in tables)


class Mapped(NamedTuple):
    """A page, as tables map it; `usable` is writable and executable."""

    start: int
    size: int
    physical: int
    usable: bool


def pages(memory: Memory, control: Control) -> Iterator[Mapped]:
    """Every page that the tables in memory map, by address.

    Raises:
        ContractError: an entry leads to where no memory is.
    """
    yield from _walk(
        memory, control.cr3 & _ADDRESS, _shifts(bool(control.cr4 & _CR4_LA57)), 0, True
    )


def _walk(
    memory: Memory, table: int, shifts: Sequence[int], start: int, usable: bool
) -> Iterator[Mapped]:
    try:
        entries = _ENTRIES.unpack(memory.read(table, PAGE))
    except KeyError as error:
        raise ContractError(f"page tables: one is at {table:#x}, where no memory is") from error
    shift, *rest = shifts
    for i, entry in enumerate(entries):
        if not entry & _PRESENT:
            continue
        at = start + (i << shift)
        fine = usable and entry & (_WRITABLE | _NO_EXECUTE) == _WRITABLE
        if rest and not (shift <= 30 and entry & _LARGE):
            yield from _walk(memory, entry & _ADDRESS, rest, at, fine)
        else:
            yield Mapped(at, 1 << shift, entry & _ADDRESS & -1 << shift, fine)


def hold_mapped(memory: Memory, control: Control, ranges: Iterable[Range]) -> None:
    """Raises ContractError unless each byte of the ranges is mapped to itself and is usable.

    Whatever else is mapped must be mapped to itself, too, and no page may be larger than 2 MiB.
    """
    end, stretches = -1, []
    for page in pages(memory, control):
        if page.physical != page.start or not page.usable or page.size > 1 << 21:
            raise ContractError(f"page tables: {page} is not what it should be")
        if page.start != end:
            stretches.append([page.start, page.start])
        stretches[-1][1] = end = page.start + page.size
    for low, high in ranges:
        if low < high and not any(start <= low and high <= end for start, end in stretches):
            raise ContractError(f"page tables: {low:#x}..{high:#x} is not mapped")
