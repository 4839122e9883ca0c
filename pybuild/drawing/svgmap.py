"""A picture of memory as SVG, for a README and a browser: the same sheet gives the same bytes.

It has its own background, so that a dark page does it no harm, and no script, no font and no
reference to anything outside.
"""

import itertools
import math
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from pybuild.drawing.picture import Column, Kind, Picture, Row, Stretch, size_text
from pybuild.drawing.sheet import Sheet
from pybuild.drawing.textwidth import cut, width, wrapped

_MARGIN: Final = 20
_AXIS: Final = 84  # of the addresses
_COLUMN: Final = 216
_GAP: Final = 46  # beside a column: room for an arrow
_TOP: Final = 134  # of the first stretch
_LINE: Final = 18  # the least height of a stretch: a line of text
_FREE: Final = 24  # the height of one that is free
_TALL: Final = 36  # from here on a row has a second line
_PAD: Final = 8  # between a row's edge and its text
_LABEL: Final = 12  # font sizes
_SMALL: Final = 10
_HEAD: Final = 13
_TITLE: Final = 17
_LEGEND: Final[dict[Kind, str]] = {
    "kernel": "kernel",
    "left": "where it was loaded",
    "code": "code that moves it",
    "data": "what the kernel is given",
    "loader": "our disk loader",
    "room": "kept free for the image",
    "firmware": "not ours: firmware, ROMs",
}
_STYLE: Final = (
    f"text{{font:{_LABEL}px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;"
    "fill:#1f2328}"
    f".title{{font-size:{_TITLE}px;font-weight:600}}.head{{font-size:{_HEAD}px;font-weight:600}}"
    ".soft{fill:#59636e}"
    f".small{{font-size:{_SMALL}px}}"
    ".address{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "fill:#59636e}"
    ".kernel{fill:#1a7f37}.left{fill:#dafbe1;stroke:#1a7f37;stroke-dasharray:4 3}"
    ".code{fill:#8250df}.data{fill:#ddf4ff;stroke:#54aeff}.loader{fill:#fff8c5;stroke:#d4a72c}"
    ".room{fill:#fff;stroke:#1a7f37;stroke-dasharray:2 3}"
    ".firmware{fill:url(#hatch);stroke:#afb8c1}"
    "text.on-kernel,text.on-code{fill:#fff}"
    "text.on-firmware{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
    ".memory{fill:#f6f8fa}.torn{fill:#fff;stroke:#d1d9e0}.guide{stroke:#d1d9e0}"
    ".arrow{fill:none;stroke:#cf222e;stroke-width:4}.point{fill:#cf222e}"
)


def render(sheet: Sheet) -> str:
    """The sheet's picture, with its title and a legend."""
    return _Drawing(sheet).text()


def printable(text: str) -> str:
    """A text that XML can hold: a file's name need not be one."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class _Drawing:
    """The picture while it is drawn."""

    def __init__(self, sheet: Sheet) -> None:
        picture = sheet.picture
        self._sheet = sheet
        heights = [_height(stretch) for stretch in picture.stretches]
        self._tops = [*itertools.accumulate(heights, initial=_TOP)]
        bottom = self._tops[-1]
        self._width = self._left(len(picture.columns)) - _GAP + _MARGIN
        legend = self._legend(bottom + 46)
        self._height = bottom + 46 + len(legend) * 20
        self._svg = Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "width": str(self._width),
                "height": str(self._height),
                "viewBox": f"0 0 {self._width} {self._height}",
                "role": "img",
                "aria-labelledby": "title desc",
            },
        )
        self._frame()
        self._memory(picture)
        for number, column in enumerate(picture.columns):
            self._column(picture, column, number)
        for line in legend:
            self._svg.extend(line)

    def text(self) -> str:
        """The file."""
        ElementTree.indent(self._svg, " ")
        return ElementTree.tostring(self._svg, encoding="unicode") + "\n"

    def _frame(self) -> None:
        """What is behind everything and above it: the background, the title."""
        sheet, svg = self._sheet, self._svg
        headline = f"{sheet.kernel} on {sheet.machine}: {sheet.summary}"
        SubElement(svg, "title", id="title").text = printable(headline)
        SubElement(svg, "desc", id="desc").text = printable(_description(sheet))
        SubElement(svg, "style").text = _STYLE
        definitions = SubElement(svg, "defs")
        hatch = SubElement(
            definitions,
            "pattern",
            id="hatch",
            width="7",
            height="7",
            patternUnits="userSpaceOnUse",
            patternTransform="rotate(45)",
        )
        SubElement(hatch, "rect", width="7", height="7", fill="#eaeef2")
        SubElement(hatch, "rect", width="2", height="7", fill="#c4ccd4")
        marker = SubElement(
            definitions,
            "marker",
            id="point",
            markerWidth="4",
            markerHeight="4",
            refX="3.4",
            refY="2",
            orient="auto",
        )
        SubElement(marker, "path", {"d": "M0,0 L4,2 L0,4 z", "class": "point"})
        SubElement(
            svg,
            "rect",
            width=str(self._width),
            height=str(self._height),
            rx="8",
            fill="#fff",
        )
        room = self._width - 2 * _MARGIN
        machine = cut(printable(f" on {sheet.machine}"), room / 2, _TITLE, bold=True)
        left = room - width(machine, _TITLE, bold=True)
        name = cut(printable(sheet.kernel), left, _TITLE, bold=True)
        summary = cut(_sentence(sheet.summary), room, _HEAD, bold=True)
        svg.append(_text(_MARGIN, 34, name + machine, "title"))
        svg.append(_text(_MARGIN, 57, summary, "head"))
        for number, line in enumerate(wrapped(printable(sheet.reason), room, _LABEL, 2)):
            svg.append(_text(_MARGIN, 76 + 15 * number, line, "soft"))

    def _memory(self, picture: Picture) -> None:
        """The columns' background, the addresses, and the breaks where all of it is free."""
        right = self._left(len(picture.columns) - 1) + _COLUMN
        for number, column in enumerate(picture.columns):
            x = self._left(number)
            self._svg.append(_text(x, _TOP - 18, f"{number + 1}. {_sentence(column.when)}", "head"))
        stops = [stretch.start for stretch in picture.stretches] + [picture.top]
        for address, y in zip(stops, self._tops, strict=True):
            SubElement(
                self._svg,
                "line",
                {"class": "guide"},
                x1=str(_MARGIN + _AXIS - 6),
                y1=str(y),
                x2=str(right),
                y2=str(y),
            )
            label = _text(_MARGIN + _AXIS - 10, y + 4, f"{address:#x}", "address")
            label.set("text-anchor", "end")
            self._svg.append(label)
        for stretch, y, end in zip(picture.stretches, self._tops, self._tops[1:], strict=False):
            for number in range(len(picture.columns)):
                self._stretch(stretch, self._left(number), y, end)
            if stretch.is_free:
                middle = self._left(0) + _COLUMN // 2, (y + end) // 2 + 4
                label = _text(*middle, f"{size_text(stretch.size)} free", "soft small")
                label.set("text-anchor", "middle")
                self._svg.append(label)
        top = f"{picture.top_is} ({size_text(picture.top)})"
        self._svg.append(_text(self._left(0), self._tops[-1] + 16, top, "soft"))

    def _stretch(self, stretch: Stretch, x: int, y: int, end: int) -> None:
        if not stretch.is_free:
            size = {"x": str(x), "y": str(y), "width": str(_COLUMN), "height": str(end - y)}
            SubElement(self._svg, "rect", {"class": "memory"}, **size)
            return
        SubElement(self._svg, "path", {"class": "torn", "d": _torn(x, y + 3, end - 3)})

    def _column(self, picture: Picture, column: Column, number: int) -> None:
        left = self._left(number)
        for row in column.rows:
            span = picture.span(row)
            self._row(row, left, self._tops[span.start], self._tops[span.stop])
        for count, (source, goal) in enumerate(column.moves):
            reach = left + _COLUMN + 24 + 10 * count
            begin, end = self._arrow_ends(picture, source, goal)
            x1, x2 = (left + (row.lane + 1) * _COLUMN // row.lanes for row in (source, goal))
            way = f"M{x1},{begin} C{reach + 14},{begin} {reach + 14},{end} {x2 + 3},{end}"
            attributes = {"class": "arrow", "d": way, "marker-end": "url(#point)"}
            SubElement(self._svg, "path", attributes)

    def _row(self, row: Row, left: int, y: int, end: int) -> None:
        wide = _COLUMN // row.lanes
        x, height = left + row.lane * wide, end - y
        group = SubElement(self._svg, "g")
        region = row.region
        told = f"{region}, {region.size} bytes"
        SubElement(group, "title").text = printable(f"{told}: {region.why}" if region.why else told)
        SubElement(
            group,
            "rect",
            {"class": row.kind},
            x=f"{x + 0.5}",
            y=f"{y + 0.5}",
            width=str(wide - 1),
            height=str(height - 1),
            rx="2",
        )
        size = size_text(region.size)
        room = wide - 2 * _PAD
        label = row.label if width(row.label, _LABEL) <= room else row.short
        label = cut(printable(label), room, _LABEL)
        on = f"on-{row.kind}"
        middle = y + height // 2 + 4
        if height >= _TALL:
            group.append(_text(x + _PAD, middle - 7, label, on))
            group.append(_text(x + _PAD, middle + 8, size, f"{on} small"))
            return
        beside = room - width(size, _SMALL) - _PAD
        if width(label, _LABEL) <= beside:
            text = _text(x + wide - _PAD, middle, size, f"{on} small")
            text.set("text-anchor", "end")
            group.append(text)
        group.append(_text(x + _PAD, middle, label, on))

    def _arrow_ends(self, picture: Picture, source: Row, goal: Row) -> tuple[int, int]:
        """Where an arrow begins and ends: at the middle, or at what the two don't share."""
        spans = [picture.span(row) for row in (source, goal)]
        ends = []
        for mine, other in (spans, spans[::-1]):
            alone = [number for number in mine if number not in other] or list(mine)
            if len(alone) == len(mine):
                ends.append((self._tops[mine.start] + self._tops[mine.stop]) // 2)
            else:
                ends.append((self._tops[alone[0]] + self._tops[alone[0] + 1]) // 2)
        return ends[0], ends[1]

    def _legend(self, y: int) -> list[list[Element]]:
        """The kinds that there are, in as many lines as they take."""
        shown = {row.kind for column in self._sheet.picture.columns for row in column.rows}
        lines: list[list[Element]] = [[]]
        x = _MARGIN
        for kind in (kind for kind in _LEGEND if kind in shown):
            wide = math.ceil(width(_LEGEND[kind], _LABEL)) + 36
            if x + wide > self._width - _MARGIN:
                lines.append([])
                x, y = _MARGIN, y + 20
            box = {"x": f"{x + 0.5}", "y": f"{y - 10.5}", "width": "14", "height": "12", "rx": "2"}
            lines[-1] += [
                Element("rect", {"class": kind, **box}),
                _text(x + 22, y, _LEGEND[kind], ""),
            ]
            x += wide
        note = "Low addresses are at the top. Not to scale."
        lines.append([_text(_MARGIN, y + 20, note, "soft")])
        return lines

    def _left(self, number: int) -> int:
        """A column's left edge."""
        return _MARGIN + _AXIS + number * (_COLUMN + _GAP)


def _height(stretch: Stretch) -> int:
    """Of a stretch: more for more memory, but by its logarithm."""
    if stretch.is_free:
        return _FREE
    return max(_LINE, round(2.6 * (math.log2(stretch.size) - 5)))


def _torn(x: int, y: int, end: int) -> str:
    """The outline of a piece that is torn off above and below."""
    steps = 24
    tooth = _COLUMN / steps
    upper = " ".join(f"L{x + n * tooth:g},{y - 3 * (n % 2)}" for n in range(1, steps + 1))
    lower = " ".join(f"L{x + n * tooth:g},{end + 3 * (n % 2)}" for n in range(steps, -1, -1))
    return f"M{x},{y} {upper} {lower} z"


def _text(x: int, y: int, text: str, style: str) -> Element:
    element = Element("text", {"x": str(x), "y": str(y)} | ({"class": style} if style else {}))
    element.text = printable(text)
    return element


def _sentence(text: str) -> str:
    """A text as a sentence begins; what it names stays as it is."""
    return text[:1].upper() + text[1:]


def _description(sheet: Sheet) -> str:
    """What the picture shows, for who cannot see it."""
    columns = (
        f"{_sentence(column.when)}: {', '.join(str(row.region) for row in column.rows)}."
        for column in sheet.picture.columns
    )
    return " ".join([sheet.reason, *columns])
