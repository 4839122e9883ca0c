"""Looking for the expected text in what a guest says, and reading its screen's memory."""

import asyncio
import re

from pybuild import vga
from pybuild.watch import Watch


def test_a_match_may_lie_across_pieces() -> None:
    async def seen(expect: str, *pieces: str) -> bool:
        watch = Watch(re.compile(expect), lambda _: None)
        for piece in pieces:
            watch.serial(piece)
        return watch.seen.done()

    def check(expect: str, *pieces: str) -> bool:
        return asyncio.run(seen(expect, *pieces))

    long = "x" * 100_000
    assert check("^one$", "one")
    assert check("^two$", "one\n", "t", "w", "o", "\n")
    assert check("one\ntwo", long, "on", "e\nt", "wo")
    assert check("^two", long, "\n", "two")
    assert not check("^two", long, "two")
    assert not check("^x", "y", *["x" * 1000] * 20)  # nor where old text is let go
    assert not check("two", "one", "\n")


def test_the_line_with_the_match_is_waited_for() -> None:
    async def shown(*pieces: str) -> list[bool]:
        watch = Watch(re.compile("end=.*"), lambda _: None)
        told = []
        for piece in pieces:
            watch.serial(piece)
            told.append(watch.shown.done())
        return told

    assert asyncio.run(shown("one\nend=", "ok", "\n", "two")) == [False, False, True, True]
    assert asyncio.run(shown("one\n", "end=ok\ntwo")) == [False, True]
    assert asyncio.run(shown("one\n", "end=ok", "\ntwo\n")) == [False, False, True]


def test_vga_text() -> None:
    def row(text: bytes) -> bytes:
        return bytes(byte for cell in text.ljust(80, b" ") for byte in (cell, 0x07))

    blank = bytes(2 * 80)
    memory = blank + row(b"Loading  kernel") + row(b"") + row(b"\x00\x01\x82\xdb\x7f") + blank
    assert vga.text(memory.ljust(vga.SIZE, b"\0")) == "Loading  kernel\n ☺é█⌂"
    assert vga.text(b"\xff" * vga.SIZE) == ""
