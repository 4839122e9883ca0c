"""The boot times as an SVG chart: a panel for each device, a bar for each loader.

Times go from 0.1 s to 20 s and more, so the scale is logarithmic. The text is put together here: a
chart of bars is a few lines, and the same results give the same bytes.
"""

import math
from typing import Final
from xml.sax.saxutils import escape

from bench import loaders, qemu
from bench.results import FLOOR, KERNEL, WITH_INITRD, Results, size_text

_NAMES_WIDTH: Final = 170
_PANEL_WIDTH: Final = 250
_GAP: Final = 20
_TOP: Final = 84
_ROW: Final = 34
_BAR: Final = 11
_BOTTOM: Final = 34
_TICKS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_LOW: Final = 0.05  # seconds at a panel's left edge
_HIGH: Final = 60.0  # and at its right: room for the longest bar's number
_OURS: Final = ("#f0a35e", "#d1600f")  # kernel alone, with the initrd
_OTHERS: Final = ("#b4bfca", "#5f7183")
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}"
    ".panel{font-weight:bold}.tick{fill:#777;font-size:10px}.value{font-size:10px}"
    "line{stroke:#ddd}"
)


def svg(results: Results) -> str:
    """The chart; QEMU's own -kernel, which has no device, is left to the table."""
    rows = [
        name
        for name in dict.fromkeys(boot.loader for boot in results.boots)
        if name != loaders.STOCK.name
    ]
    width = _NAMES_WIDTH + len(qemu.DEVICES) * (_PANEL_WIDTH + _GAP)
    height = _TOP + len(rows) * _ROW + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(10, 24, "Power-on to kernel entry, seconds (median, logarithmic scale)", "title"),
        *_legend(results),
    ]
    for row, name in enumerate(rows):
        y = _TOP + row * _ROW + _ROW // 2 + 4
        parts.append(_text(_NAMES_WIDTH - 10, y, name.replace("`", ""), "", "end"))
    for column, device in enumerate(qemu.DEVICES):
        left = _NAMES_WIDTH + column * (_PANEL_WIDTH + _GAP)
        parts += _panel(results, rows, device, left, height)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(results: Results) -> list[str]:
    parts = []
    for number, payload in enumerate((KERNEL, WITH_INITRD)):
        sizes = [results.sizes["kernel"], results.sizes["initrd"]][: number + 1]
        label = f"{payload} ({' + '.join(map(size_text, sizes))})"
        x = 12 + number * 170
        for offset, colours in ((0, _OURS), (12, _OTHERS)):
            parts.append(_rectangle(x + offset, 38, 10, colours[number]))
        parts.append(_text(x + 28, 48, label))
    return parts


def _panel(results: Results, rows: list[str], device: str, left: int, height: int) -> list[str]:
    bottom = height - _BOTTOM + 4
    parts = [_text(left, _TOP - 8, device, "panel")]
    for tick in _TICKS:
        x = left + _length(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 14, f"{tick:g}", "tick", "middle"))
    for row, name in enumerate(rows):
        colours = _OURS if name in (loaders.DISK.name, loaders.ISO.name) else _OTHERS
        for number, payload in enumerate((KERNEL, WITH_INITRD)):
            seconds = results.median(name, device, payload)
            if seconds is None:
                continue
            y = _TOP + row * _ROW + 5 + number * (_BAR + 1)
            if name == FLOOR:  # it has one bar only
                y += _BAR // 2
            parts.append(_rectangle(left, y, _length(seconds), colours[number]))
            parts.append(_text(left + _length(seconds) + 3, y + 9, f"{seconds:.2f}", "value"))
    return parts


def _length(seconds: float) -> float:
    """How far from a panel's left edge a time is."""
    return max(0.0, math.log(seconds / _LOW) / math.log(_HIGH / _LOW)) * _PANEL_WIDTH


def _rectangle(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:g}"{kind} text-anchor="{anchor}">{escape(text)}</text>'
