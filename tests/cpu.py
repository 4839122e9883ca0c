"""The CPU's state, as unicorn keeps it: registers, segments' bases and limits, the mode."""

import functools
import struct
from typing import Final, NamedTuple

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc

from pybuild.contract import GENERAL, SEGMENTS

NUMBERS: Final = {r: getattr(x86_const, f"UC_X86_REG_{r.upper()}") for r in (*GENERAL, *SEGMENTS)}
FLAGS: Final = {"df": 1 << 10, "if": 1 << 9}
_CR0_PE: Final = 1
_CR0_PG: Final = 1 << 31
_CACHE: Final = struct.Struct("<I4xQII")  # selector, base, limit, descriptor's high dword


class ContractError(AssertionError):
    """A binary did not do what its header comment says."""


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


@functools.cache
def _segments_at() -> int:
    """Where the segment registers are in a saved context: QEMU's `SegmentCache segs[6]`."""
    uc = Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_16)
    expected = b""
    for i, name in enumerate(SEGMENTS):
        uc.reg_write(NUMBERS[name], 0x4321 + i)
        expected += _CACHE.pack(0x4321 + i, 16 * (0x4321 + i), 0xFFFF, 0x9300)
    found = bytes(uc.context_save()).find(expected)
    if found < 0:
        raise NotImplementedError("this unicorn keeps its segment registers in another way")
    return found


class State(NamedTuple):
    registers: dict[str, int]  # and eip, df, if
    segments: dict[str, Segment]
    protected: bool  # and not paged

    @classmethod
    def of(cls, uc: Uc) -> "State":
        registers = {name: uc.reg_read(number) for name, number in NUMBERS.items()}
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
