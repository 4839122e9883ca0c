"""Guest memory as the harness keeps it, before and after a run."""

from collections.abc import Iterable
from typing import Final

PAGE: Final = 0x1000
TOP: Final = 1 << 32


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
        """What is there; KeyError if that is not all mapped."""
        data, part = self._find(address, size)
        return bytes(data[part])

    def write(self, address: int, new: bytes | bytearray) -> None:
        """Puts it there; KeyError if that is not all mapped."""
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
