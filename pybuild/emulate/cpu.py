"""The CPU's state, as unicorn keeps it: registers, segments' bases and limits, the mode."""

import ctypes
import functools
import struct
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Final, NamedTuple

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc, UcContext

from pybuild.contract import GENERAL, LONG, SEGMENTS, WIDE
from pybuild.errors import BuildError

NUMBERS: Final = {
    r: getattr(x86_const, f"UC_X86_REG_{r.upper()}") for r in (*GENERAL, *SEGMENTS, *LONG)
}
FLAGS: Final = {"df": 1 << 10, "if": 1 << 9}
CR0_PE: Final = 1
CR0_PG: Final = 1 << 31
EFER: Final = 0xC000_0080  # the MSR
EFER_LMA: Final = 1 << 10
_GRANULAR: Final = 1 << 23  # G, of a descriptor's high dword
_CACHE: Final = struct.Struct("<I4xQII")  # selector, base, limit, descriptor's high dword
# What is before the segment registers in a saved context, and their selectors: the general
# registers, EIP, EFLAGS without DF, lazy flags and their kind, DF as 1 or -1, hidden flags.
_REGISTERS: Final = struct.Struct("<16QQQ3Q4xi8x" + "I20x" * 6)
_PARTS: Final = (slice(128), slice(136, 144), slice(172, None))  # all but EIP and the lazy flags
_IP: Final = slice(128, 136)
_LOW_HALF: Final = 0xFFFF_FFFF
_BEFORE_SEGMENTS: Final = _REGISTERS.size - 6 * _CACHE.size
SELECTORS: Final = slice(_BEFORE_SEGMENTS, None)  # of all segment registers, in a snapshot
_FLAG_PARTS: Final = {"if": _PARTS[1], "df": slice(172, 176)}


class ContractError(AssertionError):
    """A binary did not do what its header comment says.

    Attributes:
        at: the first byte of memory that is not as it should be, if it is about one.
    """

    def __init__(self, text: str, at: int | None = None) -> None:
        super().__init__(text)
        self.at = at


class Segment(NamedTuple):
    """What a segment register keeps out of sight; a descriptor's D/B bit is `big`, its L `long`."""

    base: int
    limit: int
    big: bool
    long: bool = False

    def descriptor(self, access: int) -> bytes:
        """The GDT's entry for it; `access` is the access byte."""
        granular = self.limit > 0xFFFFF
        limit = self.limit >> 12 if granular else self.limit
        flags = granular << 7 | self.big << 6 | self.long << 5 | limit >> 16
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
    for i, name in enumerate(GENERAL):
        uc.reg_write(NUMBERS[name], 0x8765 + i)
    uc.reg_write(x86_const.UC_X86_REG_EFLAGS, FLAGS["df"] | FLAGS["if"])
    saved = bytes(uc.context_save())
    found = saved.find(expected)
    if found >= 0:
        general = [0x8765 + i for i in range(len(GENERAL))]
        values = _REGISTERS.unpack_from(saved, found - _BEFORE_SEGMENTS)
        fits = list(values[: len(GENERAL)]) == general and values[17] & FLAGS["if"]
        found = found if fits and values[21] == -1 else -1
    if found < 0:
        raise BuildError(
            f"unicorn {metadata.version('unicorn')}: keeps the registers in another way than 2.1 "
            "does; install 2.1 (pip install 'unicorn==2.1.*')"
        )
    return found


class Snapshots:
    """Takes a unicorn's registers again and again, in a part of the time of State.of()."""

    def __init__(self, uc: Uc) -> None:
        self._uc = uc
        self._context = uc.context_save()
        self._start = self._context.context.value + _segments_at() - _BEFORE_SEGMENTS

    def take(self) -> bytes:
        """The registers as they are, for registers_of()."""
        self._uc.context_update(self._context)
        return ctypes.string_at(self._start, _REGISTERS.size)


def registers_of(snapshot: bytes, names: Sequence[str]) -> dict[str, int]:
    """What is in a snapshot: general registers by these names, then SEGMENTS and FLAGS."""
    values = _REGISTERS.unpack(snapshot)
    found = dict(zip(names, values, strict=False))
    found |= zip(SEGMENTS, values[-6:], strict=True)
    return found | {"df": int(values[21] < 0), "if": int(bool(values[17] & FLAGS["if"]))}


def with_halves(registers: Mapping[str, int]) -> dict[str, int]:
    """With 32 bits of the general registers by GENERAL's names, also where they have 64."""
    halves = {half: registers.get(whole, registers.get(half, 0)) for half, whole in WIDE.items()}
    return {**registers, **{half: value & _LOW_HALF for half, value in halves.items()}}


def changes(before: bytes, after: bytes, names: Sequence[str]) -> list[str]:
    """The registers that differ in two snapshots, by the same names."""
    if all(before[part] == after[part] for part in _PARTS):
        return []
    old, new = registers_of(before, names), registers_of(after, names)
    return [name for name in old if old[name] != new[name]]


def part_of(register: str, names: Sequence[str]) -> slice:
    """Where a register is in a snapshot; `if` is among others that hardly ever change."""
    if register in FLAGS:
        return _FLAG_PARTS[register]
    if register in SEGMENTS:
        at = _BEFORE_SEGMENTS + _CACHE.size * SEGMENTS.index(register)
        return slice(at, at + 4)
    at = 8 * names.index(register)
    return slice(at, at + 8)


def load_segments(uc: Uc, selectors: Mapping[str, int], gdt: bytes) -> None:
    """Loads the segment registers as a CPU would: in long mode unicorn loads only fs and gs."""
    contents, size, arch, mode = uc.context_save().__getstate__()
    raw = bytearray(contents)
    for i, name in enumerate(SEGMENTS):
        low, high = struct.unpack_from("<II", gdt, selectors[name])
        base = low >> 16 | high << 16 & 0xFF0000 | high & 0xFF00_0000
        limit = low & 0xFFFF | high & 0xF0000
        if high & _GRANULAR:
            limit = limit << 12 | 0xFFF
        cache = (selectors[name], base, limit, high)
        _CACHE.pack_into(raw, _segments_at() + _CACHE.size * i, *cache)
    loaded = UcContext.__new__(UcContext)
    loaded.__setstate__((bytes(raw), size, arch, mode))
    uc.context_restore(loaded)


class State(NamedTuple):
    """The CPU's state at one moment.

    Attributes:
        registers: and ip, df, if; in long mode eax ... are the low halves of rax ...
        segments: what the segment registers keep out of sight.
        mode: as contracts name it; or "paged", which no contract does.
    """

    registers: dict[str, int]
    segments: dict[str, Segment]
    mode: str

    @classmethod
    def of(cls, uc: Uc) -> "State":
        """The state that a unicorn is in."""
        mode = _mode(uc)
        saved = Snapshots(uc).take()
        registers = with_halves(registers_of(saved, LONG if mode == "long64" else GENERAL))
        registers["ip"] = int.from_bytes(saved[_IP], "little")
        caches = [
            _CACHE.unpack_from(saved, _BEFORE_SEGMENTS + _CACHE.size * i)
            for i in range(len(SEGMENTS))
        ]
        segments = {
            name: Segment(base, limit, bool(high & 1 << 22), bool(high & 1 << 21))
            for name, (_, base, limit, high) in zip(SEGMENTS, caches, strict=True)
        }
        return cls(registers, segments, mode)


def _mode(uc: Uc) -> str:
    cr0 = uc.reg_read(x86_const.UC_X86_REG_CR0)
    if not cr0 & CR0_PE:
        return "real16"
    if not cr0 & CR0_PG:
        return "protected32"
    return "long64" if uc.reg_read(x86_const.UC_X86_REG_MSR, EFER) & EFER_LMA else "paged"
