"""Which line of which source an address in a placed binary is of, and what stands there."""

import functools
from pathlib import Path
from typing import NamedTuple

from pybuild import lines
from pybuild.emulate.activation import Placed
from pybuild.lines import Lines


class Where(NamedTuple):
    """A line of a source; `file` is relative to the source tree's root."""

    file: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.text}"


def where(placed: Placed, address: int) -> Where | None:
    """The line that the instruction at an address comes from; None if no table has it."""
    if placed.binary.stem is None or not placed.base <= address < placed.end:
        return None
    stem = placed.binary.stem
    line = _lines(stem, _changed(lines.table_path(stem))).at(address - placed.base)
    return _where(placed, line.file, line.number) if line else None


def contract_line(placed: Placed, number: int) -> Where:
    """That line of a binary's own source."""
    return _where(placed, f"asm/{placed.binary.name}.asm", number)


def _where(placed: Placed, file: str, number: int) -> Where:
    root = placed.terms.source.parents[placed.binary.name.count("/") + 1]
    return Where(file, number, _text(root / file, _changed(root / file))[number - 1].strip())


def _changed(path: Path) -> int:
    """When a file changed last; 0 if there is none. Who watches sources sees them change."""
    return path.stat().st_mtime_ns if path.exists() else 0


@functools.cache
def _lines(stem: Path, _changed: int) -> Lines:
    return lines.load(stem)


@functools.cache
def _text(path: Path, _changed: int) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
