"""How wide a text may get in a sans-serif font that is not known: more than in most.

The widths are of DejaVu Sans, which is wide, rounded up.
"""

import unicodedata
from typing import Final

_NARROW: Final = frozenset(" !'(),-./:;I[]fijlrt|")
_BROAD: Final = frozenset("%@MWmw…")
_BOLD: Final = 1.12  # to the regular weight


def width(text: str, size: int, *, bold: bool = False) -> float:
    """At most so wide is a text in a font of that size."""
    return sum(map(_of, text)) * size * (_BOLD if bold else 1)


def cut(text: str, room: float, size: int, *, bold: bool = False) -> str:
    """As much of a text as has room."""
    if width(text, size, bold=bold) <= room:
        return text
    while text and width(f"{text}…", size, bold=bold) > room:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, room: float, size: int, most: int) -> list[str]:
    """A text in so many lines at most, broken at blanks; as much of it as has room there."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if len(lines) == most or not lines[-1] or width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return [cut(line, room, size) for line in lines]


def _of(character: str) -> float:
    """A character's width, in font sizes."""
    if not character.isascii():
        return 1.4 if unicodedata.east_asian_width(character) in "FW" else 1.1
    if character in _NARROW:
        return 0.42
    if character in _BROAD:
        return 1.0
    return 0.78 if character.isupper() else 0.64
