"""The text on a VGA screen, read from what the adapter's text memory holds."""

from typing import Final

ADDRESS: Final = 0xB8000  # physical; colour text modes
SIZE: Final = 0x8000  # bytes: all of it, for a console scrolls by moving its start address
_ROW: Final = 2 * 80  # bytes: a character and its attribute for each column

# What Python's cp437 leaves as control characters has glyphs on the adapter; NUL looks blank.
_GLYPHS: Final = {
    **dict(enumerate(" ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼")),
    0x7F: "⌂",
}


def text(memory: bytes) -> str:
    """The rows of 80 columns in `memory`, without trailing blanks and without empty rows.

    They come in the memory's order. A console that has scrolled through all of it goes on at its
    start, so its newest rows can stand before older ones. What is longer takes several rows.
    """
    rows = (memory[at : at + _ROW : 2] for at in range(0, len(memory), _ROW))
    lines = (row.decode("cp437").translate(_GLYPHS).rstrip() for row in rows)
    return "\n".join(line for line in lines if line)
