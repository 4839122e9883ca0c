"""The relocation types that NASM emits, one small table per ELF machine.

Source: the i386 and AMD64 System V ABI supplements, "Relocation Types". Every type stores
S + A, or S + A - P where it is PC-relative (S symbol, A addend, P place), in little-endian order.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from pybuild.errors import BuildError


class Range(Enum):
    """What a field of n bits accepts, by the names that GNU ld's tables give it."""

    SIGNED = "signed"  # -2^(n-1) .. 2^(n-1)-1
    UNSIGNED = "unsigned"  # 0 .. 2^n-1
    BITFIELD = "bitfield"  # either reading: -2^(n-1) .. 2^n-1
    MODULAR = "modular"  # -2^n .. 2^n-1, of any two addresses: wraps as the processor does


@dataclass(frozen=True, slots=True)
class RelocationType:
    """How a relocation type computes and stores its value.

    Attributes:
        name: the ABI's name, R_386_32 and so on.
        size: bytes of the field.
        pc_relative: whether the place is subtracted.
        range: which values fit.
    """

    name: str
    size: int
    pc_relative: bool
    range: Range

    def bounds(self) -> tuple[int, int]:
        """The smallest and largest value that fit."""
        bits = 8 * self.size
        if self.range is Range.MODULAR:
            return -(1 << bits), (1 << bits) - 1
        low = 0 if self.range is Range.UNSIGNED else -(1 << (bits - 1))
        high = (1 << (bits - 1)) - 1 if self.range is Range.SIGNED else (1 << bits) - 1
        return low, high

    def encode(self, value: int, where: str) -> bytes:
        """The field's bytes for a value.

        Args:
            value: S + A, or S + A - P.
            where: object, place and symbol, for the message.

        Raises:
            BuildError: the value is out of range.
        """
        low, high = self.bounds()
        if not low <= value <= high:
            raise BuildError(
                f"{where}: {self.name} value {_hex(value)} does not fit, "
                f"expected {_hex(low)}..{_hex(high)}"
            )
        return (value % (1 << (8 * self.size))).to_bytes(self.size, "little")

    def decode(self, data: bytes) -> frozenset[int]:
        """Every value that `encode` makes these bytes of: more than one where a type wraps."""
        low, high = self.bounds()
        value = int.from_bytes(data, "little")
        return frozenset(v for v in (value, value - (1 << 8 * self.size)) if low <= v <= high)


# A 32-bit machine's addresses wrap at 4 GiB, so R_386_PC32 reaches everything from everywhere.
_I386: Final = {
    1: RelocationType("R_386_32", 4, False, Range.BITFIELD),
    2: RelocationType("R_386_PC32", 4, True, Range.MODULAR),
    20: RelocationType("R_386_16", 2, False, Range.BITFIELD),
    21: RelocationType("R_386_PC16", 2, True, Range.BITFIELD),
    22: RelocationType("R_386_8", 1, False, Range.BITFIELD),
    23: RelocationType("R_386_PC8", 1, True, Range.SIGNED),
}

_X86_64: Final = {
    1: RelocationType("R_X86_64_64", 8, False, Range.BITFIELD),
    2: RelocationType("R_X86_64_PC32", 4, True, Range.SIGNED),
    10: RelocationType("R_X86_64_32", 4, False, Range.UNSIGNED),
    11: RelocationType("R_X86_64_32S", 4, False, Range.SIGNED),
    12: RelocationType("R_X86_64_16", 2, False, Range.BITFIELD),
    13: RelocationType("R_X86_64_PC16", 2, True, Range.BITFIELD),
    14: RelocationType("R_X86_64_8", 1, False, Range.BITFIELD),
    15: RelocationType("R_X86_64_PC8", 1, True, Range.SIGNED),
    24: RelocationType("R_X86_64_PC64", 8, True, Range.MODULAR),
}

MACHINES: Final = {"EM_386": _I386, "EM_X86_64": _X86_64}

# What arch.toml calls these tables, and ELF the machine of each.
TABLES: Final = {"i386": "EM_386", "x86_64": "EM_X86_64"}

BY_NAME: Final = {kind.name: kind for table in MACHINES.values() for kind in table.values()}


def _hex(value: int) -> str:
    return f"-{-value:#x}" if value < 0 else f"{value:#x}"
