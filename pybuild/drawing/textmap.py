"""A picture of memory as text: each line is a stretch, or a part of one."""

import math
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from pybuild import words
from pybuild.drawing.picture import Column, Kind, Picture, Row, Stretch, size_text

_ADDRESS: Final = 12  # columns: 0x12345678 and two blanks
_NARROWEST: Final = 16  # that a column of the picture can be
_WIDEST: Final = 34  # beyond which it would only be emptier
_BAR: Final = 2  # of a bar and a blank
_ARROW: Final = 2  # of one arrow beside a column's rows

_STYLES: Final[dict[Kind, str]] = {
    "kernel": "bold green",
    "left": "green",
    "code": "bold magenta",
    "data": "cyan",
    "loader": "yellow",
    "room": "dim green",
    "firmware": "dim",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What the map is drawn with: bars by kind, an arrow's pieces, the mark of a gap."""

    bars: dict[Kind, str]
    head: str
    tail: str
    shaft: str
    corner_up: str
    corner_down: str
    gap: str
    cut: str


_FULL: Final = Glyphs(
    {
        "kernel": "█",
        "left": "▒",
        "code": "▓",
        "data": "▌",
        "loader": "▌",
        "room": "┊",
        "firmware": "░",
    },
    head="◄",
    tail="─",
    shaft="│",
    corner_up="┘",
    corner_down="┐",
    gap="⋮",
    cut="…",
)
_ASCII: Final = Glyphs(
    {
        "kernel": "#",
        "left": "=",
        "code": "*",
        "data": "|",
        "loader": "|",
        "room": ":",
        "firmware": "/",
    },
    head="<",
    tail="-",
    shaft="|",
    corner_up="'",
    corner_down=".",
    gap=":",
    cut="~",
)


def render(picture: Picture, width: int, *, ascii_only: bool = False) -> Text:
    """The map, lowest addresses first.

    Args:
        picture: what to draw.
        width: of the terminal, in characters; the map is wider only if it must.
        ascii_only: whether the terminal can show nothing else.
    """
    glyphs = _ASCII if ascii_only else _FULL
    wide = min(max((width - _ADDRESS) // len(picture.columns), _NARROWEST), _WIDEST)
    text = Text(" " * _ADDRESS)
    for column in picture.columns:
        text.append(_cut(column.when, wide - 1, glyphs).ljust(wide), "bold")
    drawn = [_Drawn(picture, column, wide, glyphs) for column in picture.columns]
    for number, stretch in enumerate(picture.stretches):
        for line in range(_lines(stretch)):
            address = f"{stretch.start:#010x}" if line == 0 else ""
            text.append(f"\n{address:<{_ADDRESS}}")
            if stretch.is_free:
                text.append(f"{glyphs.gap} {size_text(stretch.size)}".ljust(wide), "dim")
            for each in drawn[1:] if stretch.is_free else drawn:
                text.append_text(each.line(number, line))
    text.append(f"\n{picture.top:#010x}".ljust(_ADDRESS + 1))
    text.append(f"{picture.top_is} ({size_text(picture.top)})", "dim")
    return text


def _cut(text: str, room: int, glyphs: Glyphs) -> str:
    """As much of a text as has room."""
    return text if len(text) <= room else text[: max(room - 1, 0)] + glyphs.cut


def _lines(stretch: Stretch) -> int:
    """How many lines a stretch takes: more for more memory, but far from to scale."""
    if stretch.is_free or stretch.size < 1 << 16:
        return 1
    return min(2 + int(math.log2(stretch.size) - 16) // 4, 4)


class _Drawn:
    """A column's lines."""

    def __init__(self, picture: Picture, column: Column, width: int, glyphs: Glyphs) -> None:
        self._column = column
        self._spans = [(row, picture.span(row)) for row in column.rows]
        self._glyphs = glyphs
        self._arrows = _ARROW * len(column.moves)
        self._width = width
        self._inside = width - 1 - self._arrows

    def line(self, stretch: int, line: int) -> Text:
        """What it has in this line of this stretch."""
        text = Text()
        covering = [(row, span) for row, span in self._spans if stretch in span]
        for row, span in covering:
            lane_width = self._inside // row.lanes
            text.pad_right(row.lane * lane_width - len(text))
            label = ""
            if (stretch, line) == (span[0], 0):
                room = lane_width - _BAR - 1
                label = row.label if len(row.label) <= room else row.short
                label = _cut(words.harmless(label), room, self._glyphs)
            style = _STYLES[row.kind]
            text.append(f"{self._glyphs.bars[row.kind]} {label}", style)
        text.pad_right(self._inside - len(text))
        for source, goal in self._column.moves:
            text.append(self._arrow(source, goal, stretch, line), "bold red")
        text.pad_right(self._width - len(text))
        return text

    def _arrow(self, source: Row, goal: Row, stretch: int, line: int) -> str:
        """An arrow's piece: it goes from the source's first line to the goal's."""
        at = {id(row): span[0] for row, span in self._spans}
        begin, end = at[id(source)], at[id(goal)]
        here = (stretch, line)
        corners = (self._glyphs.corner_down, self._glyphs.corner_up)
        if here == (end, 0):
            return self._glyphs.head + corners[end > begin]
        if here == (begin, 0):
            return self._glyphs.tail + corners[begin > end]
        if min(begin, end) <= stretch and (min(begin, end), 0) < here < (max(begin, end), 0):
            return " " + self._glyphs.shaft
        return " " * _ARROW
