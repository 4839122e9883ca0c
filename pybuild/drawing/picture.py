"""A picture of memory: a column for each phase of a boot, an address axis for all of them.

Here is what goes where in it, for `textmap` and `svgmap` alike. Memory is drawn in stretches: from
each address at which something begins or ends to the next.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pybuild.phases import Phase
from pybuild.protected import CODE_ALIGNMENT
from pybuild.regions import Region

# What a row is: the kernel or where it goes; what is left where it was; our code; what the kernel
# is given; what is done with when loading is; memory that is only asked for; not ours.
Kind = Literal["kernel", "left", "code", "data", "loader", "room", "firmware"]

# How a region of ours is shown: its kind and its label.
_SHOWN: Final[dict[str, tuple[Kind, str]]] = {
    "kernel": ("kernel", "kernel"),
    "kernel's destination": ("kernel", "kernel goes here"),
    "kernel at run time (init_size)": ("kernel", "kernel runs"),
    "relocator": ("code", "relocator"),
    "head": ("code", "head"),
    "work area": ("code", "work area"),
    "early": ("code", "early stage"),
    "real-mode part with heap and stack": ("data", "setup, heap, stack"),
    "cmdline": ("data", "command line"),
    "initrd": ("data", "initrd"),
    "loader": ("loader", "disk loader"),
    "bootsect": ("loader", "boot sector"),
    "bounce buffer": ("loader", "bounce buffer"),
    "memory asked for (init_size)": ("room", "asked for (init_size)"),
}
_LEFT: Final = "as loaded"
# Of what is moved, where there is little room: as the move itself is told.
_SHORT: Final = {"kernel goes here": "dst", f"kernel {_LEFT}": "src"}


@dataclass(frozen=True, slots=True)
class Row:
    """A region in a column.

    Attributes:
        region: what it is, at which addresses.
        kind: how it is shown.
        label: in a few letters, for the picture.
        lane: which part of the column's width it has, from 0 on.
        lanes: how many parts there are; more than one where rows overlap.
    """

    region: Region
    kind: Kind
    label: str
    lane: int = 0
    lanes: int = 1

    @property
    def short(self) -> str:
        """The label where that is too long."""
        return _SHORT.get(self.label, self.label)


@dataclass(frozen=True, slots=True)
class Column:
    """A phase: its rows by address, and what is moved from which row to which."""

    when: str
    rows: tuple[Row, ...]
    moves: tuple[tuple[Row, Row], ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Memory from one cut to the next; free if no column has anything in it."""

    start: int
    end: int
    is_free: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Picture:
    """See the module.

    Attributes:
        columns: one for each phase.
        stretches: all of memory up to `top`, but gaps of a few bytes that only align what follows.
        top: where the picture ends, an address.
        top_is: what that is.
    """

    columns: tuple[Column, ...]
    stretches: tuple[Stretch, ...]
    top: int
    top_is: str

    def span(self, row: Row) -> range:
        """The numbers of the stretches that a row covers."""
        inside = [
            number
            for number, stretch in enumerate(self.stretches)
            if row.region.start <= stretch.start < row.region.end
        ]
        return range(inside[0], inside[-1] + 1)


def label(name: str) -> str:
    """What the picture calls a region of ours."""
    return _SHOWN[name][1]


def draw(phases: Sequence[Phase], top: int, top_is: str) -> Picture:
    """The picture of some phases.

    Args:
        phases: what lies where, when.
        top: where memory ends; what is not ours beyond it is left out.
        top_is: what ends there.
    """
    columns = tuple(_column(phase, top) for phase in phases)
    return Picture(columns, tuple(_stretches(columns, top)), top, top_is)


def _column(phase: Phase, top: int) -> Column:
    rows = [Row(region, *_SHOWN[region.name]) for region in phase.ours]
    rows += [Row(region, "firmware", region.name) for region in _cut(phase.theirs, top)]
    sources = [source for source, _ in phase.moves]
    rows += [Row(each, "left", f"{_SHOWN[each.name][1]} {_LEFT}") for each in sources]
    placed = _lanes(rows)
    at = {(row.region, row.kind == "left"): row for row in placed}
    moves = tuple((at[source, True], at[goal, False]) for source, goal in phase.moves)
    return Column(phase.when, tuple(placed), moves)


def _cut(regions: Iterable[Region], top: int) -> list[Region]:
    """Regions up to `top` without what they have in common: the first that has it keeps it."""
    found: list[Region] = []
    for region in regions:
        left = [(region.start, min(region.end, top))]
        for other in found:
            left = [
                piece
                for start, end in left
                for piece in (
                    (start, min(end, other.start)),
                    (max(start, other.end), end),
                )
                if piece[0] < piece[1]
            ]
        found += [Region(region.name, *piece) for piece in left if piece[0] < piece[1]]
    return found


def _lanes(rows: Iterable[Row]) -> list[Row]:
    """The rows by address, those that overlap side by side."""
    placed: list[Row] = []
    group: list[tuple[Row, int]] = []  # of rows that overlap, and the lane of each
    ends: list[int] = []  # of each lane of the group

    def close() -> None:
        lanes = len(ends)
        placed.extend(Row(r.region, r.kind, r.label, lane, lanes) for r, lane in group)
        group.clear()
        ends.clear()

    for row in sorted(rows, key=lambda row: (row.region.start, row.region.end)):
        if ends and row.region.start >= max(ends):
            close()
        free = (lane for lane, end in enumerate(ends) if end <= row.region.start)
        lane = next(free, len(ends))
        ends[lane : lane + 1] = [row.region.end]
        group.append((row, lane))
    close()
    return placed


def _stretches(columns: Iterable[Column], top: int) -> Iterable[Stretch]:
    regions = [row.region for column in columns for row in column.rows]
    cuts = {0, top, *(r.start for r in regions), *(r.end for r in regions)}
    for start, end in itertools.pairwise(sorted(cuts)):
        is_free = not any(region.contains(start) for region in regions)
        if not is_free or end - start >= CODE_ALIGNMENT:
            yield Stretch(start, end, is_free)


def size_text(size: int) -> str:
    """A number of bytes as people say it: 107 bytes, 139.4 KiB, 64 MiB."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} byte{'' if size == 1 else 's'}"
