"""What an SVG of `bootsplice plan` has in it: its texts, and how much room each takes at most."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from pybuild.drawing import textwidth

_SVG: Final = "{http://www.w3.org/2000/svg}"
_SIZES: Final = {"title": 17, "head": 13, "address": 11, "small": 10}
_MONOSPACED: Final = 0.66  # of a character's width to the font's size
_USUAL: Final = 12


@dataclass(frozen=True)
class Box:
    """A text and the rectangle that it takes."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 - our own text


def size(drawing: ElementTree.Element) -> tuple[float, float]:
    return float(drawing.get("width", "")), float(drawing.get("height", ""))


def texts(drawing: ElementTree.Element) -> list[Box]:
    """Every text that is seen."""
    return [_box(element) for element in drawing.iter(f"{_SVG}text")]


def addresses(drawing: ElementTree.Element) -> list[str]:
    """What the axis says."""
    return [t.text or "" for t in drawing.iter(f"{_SVG}text") if t.get("class") == "address"]


def arrows(drawing: ElementTree.Element) -> int:
    return sum(path.get("class") == "arrow" for path in drawing.iter(f"{_SVG}path"))


def check(boxes: Iterable[Box], width: float, height: float) -> None:
    """No text is on another, or leaves the picture."""
    boxes = list(boxes)
    for box in boxes:
        assert 0 <= box.left < box.right <= width, box
        assert 0 <= box.top < box.bottom <= height, box
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)


def _box(element: ElementTree.Element) -> Box:
    styles = element.get("class", "").split()
    font = next((_SIZES[style] for style in styles if style in _SIZES), _USUAL)
    text = element.text or ""
    if "address" in styles:
        wide = len(text) * font * _MONOSPACED
    else:
        wide = textwidth.width(text, font, bold=bool({"title", "head"} & {*styles}))
    x, y = float(element.get("x", "")), float(element.get("y", ""))
    left = x - wide * {"end": 1.0, "middle": 0.5}.get(element.get("text-anchor", ""), 0.0)
    return Box(text, left, y - 0.93 * font, left + wide, y + 0.24 * font)
