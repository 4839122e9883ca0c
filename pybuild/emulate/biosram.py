"""What the BIOS of bios.py says about memory: int 12h, and int 15h AX=E820h, AX=E801h, AH=88h."""

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pybuild.emulate.cpu import ContractError
from pybuild.emulate.memory import TOP
from pybuild.emulate.registers import Registers

RAM: Final = 1
RESERVED: Final = 2
KIB, MIB = 1 << 10, 1 << 20
HIGH: Final = MIB  # what E801h and 88h count from
HIGHER: Final = 16 * MIB  # what E801h's BX counts from

SMAP: Final = 0x534D4150
_ENTRY: Final = struct.Struct("<QQI")
_ENTRY_WITH_ATTRIBUTES: Final = struct.Struct("<QQII")
_UNKNOWN_FUNCTION: Final = 0x86
_E820_MOST: Final = 1000  # calls; a reader that has not given up by then never will


class Range(NamedTuple):
    """An entry of E820h; with `attributes` the BIOS gives 24 bytes to who has room for them."""

    base: int
    length: int
    type: int = RAM
    attributes: int | None = None


def usual(high: int) -> tuple[Range, ...]:
    """The map of a PC with that much memory above 1 MiB."""
    return (
        Range(0, 0x9FC00),
        Range(0x9FC00, 0x400, RESERVED),
        Range(0xF0000, 0x10000, RESERVED),
        Range(HIGH, high),
        Range(0xFFFC0000, 0x40000, RESERVED),
    )


@dataclass
class Ram:
    """How much memory the machine says that it has, and by which functions.

    Attributes:
        e820: the entries; None = there is no such function.
        e820_end: "ebx" = 0 with the last entry; "cf" = set by the call behind the last one;
            "never" = from the last entry on to the first again.
        e820_signature: what EAX is afterwards.
        e801: AX, BX, CX and DX; None = there is no such function.
        ah88: KiB above 1 MiB; None = there is no such function.
        conventional: int 12h's KiB.
    """

    e820: Sequence[Range] | None = usual(63 * MIB)
    e820_end: str = "ebx"
    e820_signature: int = SMAP
    e801: tuple[int, int, int, int] | None = None
    ah88: int | None = None
    conventional: int = 639
    calls: list[int] = field(default_factory=list)

    def serve(self, registers: Registers) -> None:
        """Serves one int 15h of these."""
        ax = registers["ax"]
        self.calls.append(ax)
        if ax == 0xE820 and self.e820 is not None:
            if self.calls.count(ax) >= _E820_MOST:
                raise ContractError("reads the memory map for ever")
            registers.carry = not self._entry(registers, self.e820)
        elif ax == 0xE801 and self.e801 is not None:
            for name, value in zip(("ax", "bx", "cx", "dx"), self.e801, strict=True):
                registers[name] = value
            registers.carry = False
        elif ax >> 8 == 0x88 and self.ah88 is not None:
            registers["ax"] = self.ah88
            registers.carry = False
        else:
            registers["ah"] = _UNKNOWN_FUNCTION
            registers.carry = True

    def _entry(self, registers: Registers, entries: Sequence[Range]) -> bool:
        """Gives an entry; EBX says which, by multiples of 64 KiB: BX alone is always 0."""
        number, rest = divmod(registers["ebx"], 0x10000)
        if registers["edx"] != SMAP or registers["ecx"] < _ENTRY.size or rest:
            registers["ah"] = _UNKNOWN_FUNCTION
            return False
        if number >= len(entries):
            return False
        entry = entries[number]
        data = _ENTRY.pack(*entry[:3])
        if entry.attributes is not None and registers["ecx"] >= _ENTRY_WITH_ATTRIBUTES.size:
            data = _ENTRY_WITH_ATTRIBUTES.pack(*entry)
        registers.write(registers.linear("es", "di"), data)
        number += 1
        if number == len(entries) and self.e820_end != "cf":
            number = 0 if self.e820_end == "ebx" else 1
        registers["ebx"] = number * 0x10000
        registers["ecx"] = len(data)
        registers["eax"] = self.e820_signature
        return True


def usable(ram: Ram) -> list[tuple[int, int]]:
    """Where there is RAM below 4 GiB, sorted, end exclusive: a model to hold the loader to."""
    entries = [r for r in ram.e820 or () if r.attributes is None or r.attributes & 1]
    ranges = [(r.base, r.base + r.length) for r in entries if r.type == RAM and r.length]
    holes = [(r.base, r.base + r.length) for r in entries if r.type != RAM]
    if ram.e820_signature != SMAP or not any(low < TOP for low, _ in ranges):
        ranges = [(0, ram.conventional * KIB)]
        holes = holes if ram.e820_signature == SMAP else []
        ax, bx, cx, dx = ram.e801 or (0, 0, 0, 0)
        low, high = (cx, dx) if cx else (ax, bx)
        if low:
            ranges += [(HIGH, HIGH + low * KIB), (HIGHER, HIGHER + high * 64 * KIB)]
        else:
            ranges += [(HIGH, HIGH + (ram.ah88 or 0) * KIB)]
    edges = sorted({min(edge, TOP) for pair in ranges + holes for edge in pair})
    found: list[tuple[int, int]] = []
    for low, high in itertools.pairwise(edges):
        inside = any(a <= low and high <= b for a, b in ranges)
        if inside and not any(a <= low and high <= b for a, b in holes):
            if found and found[-1][1] == low:
                low = found.pop()[0]
            found.append((low, high))
    return found
