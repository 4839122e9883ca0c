"""Ranges of physical addresses: do they overlap, and where is room for another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """A named range of physical addresses, end exclusive.

    Attributes:
        name: what it is.
        start: its first address.
        end: the address behind its last.
        why: the rule that puts it there; "" for what we are only told of.
    """

    name: str
    start: int
    end: int
    why: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    def overlaps(self, other: "Region") -> bool:
        """Whether the two share a byte."""
        return self.start < other.end and other.start < self.end

    def contains(self, address: int) -> bool:
        """Whether the byte at this address is in the range."""
        return self.start <= address < self.end

    def __str__(self) -> str:
        return f"{self.name} ({self.start:#x}..{self.end:#x})"


def align_up(value: int, alignment: int) -> int:
    """The next multiple of a power of two."""
    return -(-value // alignment) * alignment


def clash(ours: Sequence[Region], theirs: Iterable[Region]) -> tuple[Region, Region] | None:
    """The first pair that overlaps, of two of ours or one of ours and one of theirs."""
    others = [*theirs]
    for index, region in enumerate(ours):
        for other in [*ours[index + 1 :], *others]:
            if region.overlaps(other):
                return region, other
    return None


def first_fit(
    size: int, busy: Iterable[Region], *, low: int, high: int, alignment: int
) -> int | None:
    """The lowest aligned address in low..high where `size` bytes are free, or None."""
    address = align_up(low, alignment)
    for region in sorted(busy, key=lambda r: r.start):
        if region.end > address and region.start < address + size:
            address = align_up(region.end, alignment)
    return address if address + size <= high else None


def last_fit(
    size: int, busy: Iterable[Region], *, low: int, high: int, alignment: int
) -> int | None:
    """The highest aligned address in low..high where `size` bytes are free, or None."""
    address = (high - size) // alignment * alignment
    for region in sorted(busy, key=lambda r: r.end, reverse=True):
        if region.end > address and region.start < address + size:
            address = (region.start - size) // alignment * alignment
    return address if address >= low else None
