"""Every message that the guest's code can print is explained in docs/messages.md."""

import re
from pathlib import Path

import pytest

from pybuild.paths import ROOT

DOCUMENT = (ROOT / "docs" / "messages.md").read_text()
ASM = ROOT / "asm"
SOURCES = sorted([*ASM.glob("*/*.asm"), *ASM.glob("*/*.inc")])
_LABEL = re.compile(r"^message\w*:(.*?)(?=^(?!message)\w+:|\Z)", re.M | re.S)
_TEXT = re.compile(r'"([^"]*)"')


def texts(source: Path) -> list[str]:
    """The words of a source's messages, between the numbers in them."""
    blocks = _LABEL.findall(source.read_text())
    return [text.strip() for block in blocks for text in _TEXT.findall(block) if len(text) > 3]


def test_there_are_messages() -> None:
    found = {str(path.relative_to(ASM)) for path in SOURCES if texts(path)}
    assert found >= {"real/diskboot.asm", "real/early.asm", "real/loader.asm", "include/head.inc"}
    assert sum(len(texts(path)) for path in SOURCES) > 10


@pytest.mark.parametrize(
    ("source", "text"),
    [(path.relative_to(ROOT), text) for path in SOURCES for text in texts(path)],
)
def test_each_is_in_the_document(source: Path, text: str) -> None:
    section = next(part for part in DOCUMENT.split("\n## ") if f"`{source}`" in part)
    assert text.removeprefix("bootsplice: ").removeprefix("xx").rstrip("x") in section
