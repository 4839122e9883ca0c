"""Which line of which source each instruction of a flat binary comes from.

NASM writes it into the object as DWARF (`-g -F dwarf`), which pyelftools reads. It is kept beside
the flat binary as `name.lines.json`: whoever wants to know needs no object.
"""

import bisect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pybuild.errors import BuildError
from pybuild.files import write_file

if TYPE_CHECKING:  # who only looks a line up does without pyelftools
    from elftools.dwarf.lineprogram import LineProgram


class Line(NamedTuple):
    """From `offset` on, in bytes from the binary's start, the code is of this line of `file`."""

    offset: int
    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True)
class Lines:
    """The lines of a flat binary, by offset; files are relative to the source tree's root."""

    lines: tuple[Line, ...]

    def at(self, offset: int) -> Line | None:
        """The line that the byte at this offset is of; None before the first."""
        place = bisect.bisect_right(self.lines, offset, key=lambda line: line.offset)
        return self.lines[place - 1] if place else None

    def save(self, stem: Path) -> None:
        """Writes `stem`.lines.json."""
        files = sorted({line.file for line in self.lines})
        table = [[line.offset, files.index(line.file), line.number] for line in self.lines]
        text = json.dumps({"files": files, "lines": table}) + "\n"
        write_file(table_path(stem), [text.encode()])


def load(stem: Path) -> Lines:
    """Reads `stem`.lines.json.

    Raises:
        BuildError: it is missing or damaged.
    """
    path = table_path(stem)
    try:
        table = json.loads(path.read_text())
        files = table["files"]
        return Lines(tuple(Line(at, files[file], number) for at, file, number in table["lines"]))
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}; run `invoke build`") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BuildError(f"{path}: not a line table: {error}; run `invoke build`") from error


def table_path(stem: Path) -> Path:
    """Where the lines of a flat binary are kept."""
    return stem.with_name(stem.name + ".lines.json")


def of_object(path: Path) -> Lines:
    """The lines of an object as the linker lays it out; none if NASM wrote no DWARF.

    The object must be one that the linker takes.
    """
    from elftools.elf.elffile import ELFFile

    from pybuild import linker

    with path.open("rb") as stream:
        elf = ELFFile(stream)
        dwarf = elf.get_dwarf_info() if elf.has_dwarf_info() else None
        if dwarf is None:
            return Lines(())
        # A sequence of the line program is of one section, and begins with DW_LNE_set_address,
        # which has a relocation.
        starts = [offset for *_, offset in linker.debug_relocations(elf, ".debug_line")]
        found: list[Line] = []
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            found += _lines(program, starts) if program else ()
    return Lines(tuple(sorted(found)))


def _lines(program: "LineProgram", starts: list[int]) -> Iterator[Line]:
    names = [entry.name.decode() for entry in program["file_entry"]]
    sequence = iter(starts)
    start = None
    for entry in program.get_entries():
        if entry.state is None:
            continue
        if start is None:
            start = next(sequence)
        if entry.state.end_sequence:
            start = None
        else:
            yield Line(start + entry.state.address, names[entry.state.file - 1], entry.state.line)
