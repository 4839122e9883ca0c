"""`bootsplice trace`: what it shows of real sources, and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command import run
from held import SOURCES, TREE
from nasm import ARCH

from pybuild import assembler, numbers
from pybuild.assembler import Tree
from pybuild.contract import SEGMENTS
from pybuild.emulate.machine import SELECTORS
from pybuild.errors import InputError
from pybuild.paths import BUILD, ROOT
from pybuild.trace import (
    Judged,
    Traced,
    diskscene,
    headscene,
    show,
    target,
    traces,
    verdicts,
)
from pybuild.trace.folding import Loop, Row, fold

RELOCATOR = "i386/relocator"
SOURCE = ROOT / f"asm/{RELOCATOR}.asm"
RUNNABLE = ["i386/relocator", "i386/relocator_seed", "real/bootsect", "real/early"]


def rows(traced: Traced) -> list[Row]:
    """Those of instructions that are in no loop."""
    return [node for node in fold(traced.run.steps) if isinstance(node, Row)]


def row_of(traced: list[Traced], text: str) -> str:
    """The line that shows an instruction."""
    [line] = [line for line in show.text(traced) if text in line and ".asm:" in line]
    return line


@pytest.mark.parametrize("name", [*RUNNABLE, "x86_64/relocator"])
def test_every_source_that_can_be_run_alone_keeps_its_contract(name: str) -> None:
    given = {"src": 0x200000, "dst": 0x1FFEDD} if name == "x86_64/relocator" else {}
    found = traces(TREE, name, given)
    assert [traced.broken for traced in found] == [[] for _ in found]
    text = "\n".join(show.text(found))
    assert "\n".join(show.text(verdicts(TREE, name, given))) == text
    assert "contract kept" in text
    assert "BROKEN" not in text


def test_there_is_no_other() -> None:
    """Those that run inside of something are in test_trace_scenes.py."""
    assert SOURCES.keys() == {*RUNNABLE, "x86_64/relocator", *headscene.NAMES, *diskscene.NAMES}


def test_a_source_that_moves_is_run_with_all_that_it_allows() -> None:
    apart, above, below = "apart", "dst above src, overlapping", "dst below src, overlapping"
    assert [traced.title for traced in traces(TREE, RELOCATOR)] == [apart, above, below]
    assert [type(judged) for judged in verdicts(TREE, RELOCATOR)] == [Traced, Judged, Judged]
    assert [traced.title for traced in traces(TREE, f"{RELOCATOR}_seed")] == [apart, below]
    assert [traced.title for traced in traces(TREE, RELOCATOR, {"src": 0x300000})] == [""]


def test_a_large_move_is_one_row() -> None:
    given = {"src": 0x200000, "dst": 0x100000, "len": 8 << 20}
    traced = traces(TREE, RELOCATOR, given)
    assert len(traced[0].run.steps) == 30
    row = row_of(traced, "rep movsd")
    assert row.endswith(
        "ecx 0x200000 -> 0x0  esi 0x200000 -> 0xa00000  edi 0x100000 -> 0x900000  "
        "[0x100000..0x900000]"
    )
    assert row_of(traced, "mov ss, eax").endswith("ss 0x28 -> 0x18")


@pytest.mark.parametrize("length", [999 * 4, 1001 * 4])
@pytest.mark.parametrize("distance", [-0x123, 0x123])
def test_a_long_and_a_short_repetition_write_the_same_range(length: int, distance: int) -> None:
    """They are told in two ways: from registers, and write by write."""
    given = {"src": 0x200000, "dst": 0x200000 + distance, "len": length}
    [traced] = traces(TREE, RELOCATOR, given)
    assert traced.kept
    [written] = [step.writes for step in traced.run.steps if step.repeats and step.writes]
    assert written == [[0x200000 + distance, 0x200000 + distance + length]]


def test_a_loop_is_shown_once() -> None:
    [traced] = traces(TREE, f"{RELOCATOR}_seed", {"src": 0x200000, "dst": 0x100000, "len": 1000})
    [loop] = [node for node in fold(traced.run.steps) if isinstance(node, Loop)]
    assert [row.times for row in loop.body if isinstance(row, Row)] == [1000] * 5
    line = row_of([traced], "mov [dword edx + dst], al")
    assert " x1000 " in line
    assert line.endswith("[0x100000..0x1003e8]")
    assert row_of([traced], "add edx, byte 1").endswith("edx 0x0 -> 0x3e8")


def test_loops_in_loops_are_folded_in_few_rows() -> None:
    given = {"src": 0x200000, "dst": 0x100000}
    [traced] = traces(TREE, "x86_64/relocator", given)
    assert len(traced.run.steps) > 50_000
    assert len(list(show.text([traced]))) < 300


def test_where_the_selectors_come_from_is_said() -> None:
    text = "\n".join(show.text(traces(TREE, RELOCATOR, {"dst": 0x100000})))
    number = SOURCE.read_text().splitlines().index("    mov ss, eax") + 1
    assert f"ok      leaves    ss=0x18, loaded at asm/{RELOCATOR}.asm:{number}" in text
    assert "ok      leaves    cs=0x10, which nothing loads" in text


def test_registers_can_be_set() -> None:
    [traced] = traces(TREE, RELOCATOR, {"esi": 0x12340, "edi": 7, "dst": 0x100000})
    assert traced.scene.start.registers == {"esi": 0x12340, "edi": 7}
    assert rows(traced)[-3].writes == [[0x12554, 0x12558]]


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["sr=1"], "--set sr: i386/relocator has no such symbol, and its mode no such register"),
        (["rsi=1"], "--set rsi: i386/relocator has no such symbol"),
        (["src=4G"], "--set src: found 0x100000000, expected 0x0..0xffffffff"),
        (
            ["src=0xffffffff", "len=8K"],
            "i386/relocator: `needs src+len <= 0x100000000 and dst+len <= 0x100000000` does not "
            "hold with src=0xffffffff, dst=0x100000, len=0x2000; --set them otherwise",
        ),
        (["len=3G", "src=0"], "i386/relocator: no place is left for it beside src and dst"),
        (["len=512M"], "i386/relocator: it is to write or move more than 256 MiB"),
        (["ds=0x19"], "--set ds: found 0x19, expected 0x18..0x40 in steps of 8"),
        (["ss=0x48"], "--set ss: found 0x48, expected 0x18..0x40 in steps of 8"),
        (["cs=0x18"], "--set cs: found 0x18, expected 0x10..0x10"),
    ],
)
def test_what_cannot_be_set(texts: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(problem)}"):
        traces(TREE, RELOCATOR, numbers.settings(texts))


@pytest.mark.parametrize("register", [name for name in SEGMENTS if name != "cs"])
def test_each_selector_can_be_set(register: str) -> None:
    for selector in SELECTORS:
        [traced] = traces(TREE, RELOCATOR, {"src": 0x200000, register: selector})
        assert traced.kept


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("rsi=0x7fffffffffffffff", "0x7ffffffffffff000"),
        ("src=0xffc0000000", "0xffbffff000"),
        ("tables=0x10000000000", "0x10000000000"),
    ],
)
def test_what_is_beyond_the_emulators_memory(text: str, start: str) -> None:
    with pytest.raises(InputError, match=f"^x86_64/relocator: something is to be at {start}"):
        traces(TREE, "x86_64/relocator", numbers.settings([text]))


def test_what_is_set_wrongly_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "trace", SOURCE, "--set", "src=4G")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bootsplice: --set src: found 0x100000000, expected 0x0..0xffffffff\n"


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "some.asm").write_text("nop\n")
    (tmp_path / "some.bin").write_bytes(b"\x90")
    (tmp_path / "asm").mkdir()
    shutil.copy(tmp_path / "some.asm", tmp_path / "asm")
    for path, problem in (
        ("none.asm", "none.asm: no such file"),
        ("some.asm", "some.asm: is no source: expected asm/<arch>/<name>.asm"),
        ("asm/some.asm", "is no source"),
        (ROOT / "asm/include/a20.inc", "is no source"),
        ("some.bin", "some.bin: has no contract: expected build/<arch>/<name>.bin"),
    ):
        with pytest.raises(InputError, match=problem):
            target.find(tmp_path / path)


def test_a_flat_binary_and_json(tmp_path: Path) -> None:
    done = run(tmp_path, "trace", BUILD / f"{RELOCATOR}.bin", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [each["kept"] for each in found] == [True] * 3
    assert {promise["kept"] for promise in found[0]["promises"]} == {True}
    [ss] = [row for row in found[0]["rows"] if "ss" in row.get("registers", {})]
    assert (ss["source"], ss["registers"]["ss"]) == ("mov ss, eax", [0x28, 0x18])


NEW = """\
; x.asm - stores a word of its own
;
; enter     protected32
; in        edi                     somewhere
; reads     many value 1..9
; writes    edi..edi+4
; stores    edi..edi+4 many*2
; clobbers  eax
; leaves    edx  ds=0x18
; limit     32
bits 32
extern many
    mov eax, 0x18
    mov ds, eax
    mov eax, strict dword many
    add eax, eax
    mov [edi], eax
    jmp edx
"""


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("", "", ""),
        ("add eax, eax", "", "expected 0x12, the first of 1 wrong bytes of `stores`"),
        ("jmp edx", "jmp $", "took more than"),
        ("jmp edx", "hlt", "halts"),
        ("jmp edx", "int 0x10", "raises interrupt or exception 0x10"),
        ("[edi]", "[edi + 0x10000]", "touches 0x"),
        (
            "; stores    edi..edi+4",
            "; stores    ebx..ebx+4",
            "has not all of the memory of `stores`",
        ),
        (
            "; stores    edi..edi+4 many*2",
            "; moves     ebx..ebx+4 edi",
            "of the memory of `moves` ebx",
        ),
        ("; stores    edi..edi+4", "; stores    edi+4..edi", ""),
    ],
)
def test_a_source_of_the_users_own(tmp_path: Path, old: str, new: str, wrong: str) -> None:
    folder = tmp_path / "asm/own"
    folder.mkdir(parents=True)
    (folder / "arch.toml").write_text(ARCH[32])
    (folder / "x.asm").write_text(NEW.replace(old, new) if old else NEW)
    tree = Tree(tmp_path, tmp_path / "build")
    assembler.build(tree)
    [traced] = traces(tree, "own/x", {"edx": 0x300000})
    assert traced.kept == (not wrong)
    assert any(wrong in str(promise) for promise in traced.broken) == bool(wrong)
