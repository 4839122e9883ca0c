"""The source line of each instruction: as binutils reads it, as the linker lays it out."""

import re
import subprocess
from pathlib import Path

import pytest
from held import SOURCES, TREE
from nasm import ARCH, CONTRACT, make_tree, tool

from pybuild import assembler, lines
from pybuild.errors import BuildError
from pybuild.lines import Line, Lines

SECTIONS = """\
bits 32
section .text.second exec
    inc eax
section .data
    db 1
section .text
    nop
%include "more.inc"
"""


def by_objdump(target: Path) -> set[tuple[int, str]]:
    """The same rows of a binary that has one section."""
    command = [str(tool("objdump")), "-h", "--dwarf=decodedline", str(target)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(?m)^(\S+\.(?:asm|inc)) +(\d+) +(0x[0-9a-f]+|0) ", shown)
    return {(int(at, 16), f"{Path(name).name}:{number}") for name, number, at in found}


@pytest.mark.parametrize("name", ["i386/relocator", "real/bootsect", "real/early"])
def test_lines_are_those_that_objdump_shows(name: str) -> None:
    found = lines.load(TREE.build / name)
    ours = {(at, f"{Path(file).name}:{number}") for at, file, number in found.lines}
    assert ours == by_objdump(TREE.build / f"{name}.o")
    assert len(ours) > 20


@pytest.mark.parametrize("name", SOURCES)
def test_the_first_instruction_is_of_the_source_itself(name: str) -> None:
    found = lines.load(TREE.build / name)
    first = found.at(0)
    assert first is not None
    assert first.file == f"asm/{name}.asm"
    for line in found.lines:
        assert 0 < line.number <= len((TREE.root / line.file).read_text().splitlines())


@pytest.mark.parametrize("bits", [32, 64])
def test_sections_are_laid_out_as_the_linker_does(tmp_path: Path, bits: int) -> None:
    folder = {32: "i386", 64: "x86_64"}[bits]
    text = SECTIONS.replace("bits 32", f"bits {bits}")
    files = {
        f"{folder}/arch.toml": ARCH[bits],
        f"{folder}/x.asm": text,
        f"{folder}/more.inc": "    ret\n",
    }
    tree = make_tree(tmp_path, files)
    assembler.build(tree)
    above = len(CONTRACT.splitlines())
    found = lines.load(tree.build / f"{folder}/x")
    code = tree.load(f"{folder}/x").code
    second = code.index(b"\xff\xc0" if bits == 64 else b"\x40")
    assert Lines(found.lines).at(second) == Line(second, f"asm/{folder}/x.asm", above + 3)
    assert found.at(code.index(b"\x90")) == Line(
        code.index(b"\x90"), f"asm/{folder}/x.asm", above + 7
    )
    assert found.at(code.index(b"\xc3")) == Line(code.index(b"\xc3"), f"asm/{folder}/more.inc", 1)


def test_before_the_first_line_there_is_none() -> None:
    table = Lines((Line(4, "a", 1), Line(6, "a", 2)))
    assert table.at(3) is None
    assert [str(table.at(at)) for at in (4, 5, 6, 7)] == ["a:1", "a:1", "a:2", "a:2"]


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"x\.lines\.json: No such file.*invoke build"):
        lines.load(tmp_path / "x")
    for text in ("", "[]", '{"files": [], "lines": [[0, 0, 1]]}', '{"files": []}'):
        lines.table_path(tmp_path / "x").write_text(text)
        with pytest.raises(BuildError, match=r"not a line table.*invoke build"):
            lines.load(tmp_path / "x")
