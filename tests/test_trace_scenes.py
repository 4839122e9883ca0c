"""`bootsplice trace` of what runs only inside of something: heads in images, the disk loader."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from command import run
from held import SOURCES, TREE
from test_head_faults import with_fault

from pybuild import assembler
from pybuild.assembler import Tree
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.run import execute
from pybuild.emulate.sources import where
from pybuild.errors import InputError
from pybuild.paths import ROOT
from pybuild.trace import Traced, diskscene, headscene, show, traces
from pybuild.trace.scenes import scenes
from pybuild.trace.show import _MOST_ROWS

HEADS, STAGES = headscene.NAMES, diskscene.NAMES
MOST_LINES = _MOST_ROWS + 30  # of text: the verdict is longer than no promise is


@pytest.fixture(scope="module")
def found() -> Mapping[str, Traced]:
    """Each source's only run."""
    return {name: one(TREE, name) for name in (*HEADS, *STAGES)}


def one(tree: Tree, name: str, **given: int) -> Traced:
    [traced] = traces(tree, name, given)
    return traced


@pytest.mark.parametrize("name", [*HEADS, *STAGES])
def test_it_keeps_its_contract(found: Mapping[str, Traced], name: str) -> None:
    traced = found[name]
    assert traced.broken == []
    assert traced.promises[-1].finding.promise == traced.scene.promise
    text = list(show.text([traced]))
    assert len(text) < MOST_LINES
    assert f"{name} ({traced.title}): contract kept" in text


@pytest.mark.parametrize("name", HEADS)
def test_a_head_has_everything_to_do(found: Mapping[str, Traced], name: str) -> None:
    """It moves the kernel, the initrd and the command line."""
    assert "loaded at 0x102000; the kernel is one for 0x100000; built in: a command line, an " in (
        found[name].title
    )
    run_ = found[name].run
    entered = {step.activation.placed.binary.name for step in run_.steps}
    assert entered == {name, name.replace("head", "relocator")}
    assert run_.after.read(0x108000, 0x1000).count(b"quiet quiet quiet q console=ttyS0\0") == 1
    assert run_.last_write(0x100000) is not None


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    "given",
    [
        {"follows": 1},
        {"len": 0x7001, "initrd_size": 0},
        {"replace": 1, "cmdline_length": 99},
        {"cmdline_length": 0, "init_size": 1},
        {"ebp": 77, "esp": 0x12340},
    ],
)
def test_what_the_user_decides_about_a_head(name: str, given: Mapping[str, int]) -> None:
    if name.startswith("x86_64/"):
        given = {re.sub("^e", "r", key): value for key, value in given.items()}
    traced = one(TREE, name, **given)
    assert traced.kept
    named = {**traced.scene.start.placed[0].symbols, **traced.scene.start.registers}
    assert {key: named[key] for key in given if key in named} == {
        key: value for key, value in given.items() if key in named and key != "init_size"
    } | ({"init_size": 0x2000} if "init_size" in given else {})


def test_boot_params_can_be_elsewhere() -> None:
    traced = one(TREE, "i386/head", esi=0x93000)
    assert traced.kept
    assert traced.run.last_write(0x93228) is not None


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        (
            "i386/head",
            {"dst": 0x200000},
            "--set dst: i386/head gets it from what it runs in; what can be set is: len, follows, "
            "init_size, cmdline_length, replace, initrd_size, and registers",
        ),
        ("i386/head", {"esi": 0x102000}, "--set esi: boot_params at 0x102000 do not fit"),
        ("x86_64/head", {"rsi": 1 << 32}, "--set rsi: boot_params at 0x100000000 do not fit"),
        ("x86_64/head", {"len": 1 << 31}, "--set len: found 0x80000000, expected 0x4000000 at"),
        ("i386/head", {"cmdline_length": 0xFFFF}, "command line: 65535 characters, but kernel"),
        ("real/diskboot", {"loader_sum": 1}, "--set loader_sum: real/diskboot gets it from what"),
        ("real/diskboot", {"sector_shift": 10}, "--set sector_shift: found sectors of 1 << 10"),
        ("real/loader", {"ecx": 12}, "--set ecx: found sectors of 1 << 12 bytes, expected 1 << 9"),
        ("real/loader", {"bounce": 0x81000}, "--set bounce: found 0x81000, expected 0x8000..0x80"),
    ],
)
def test_what_cannot_be_set(name: str, given: Mapping[str, int], problem: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(problem)}"):
        one(TREE, name, **given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("real/diskboot", {"sector_shift": 11, "loader_lba_low": 77}),
        ("real/diskboot", {"loader_lba_high": 1}),
        ("real/diskboot", {"edx": 0x81}),  # the BIOS names another drive
        ("real/loader", {"ecx": 0xABC00 + 11, "edx": 0xE0}),
        ("real/loader", {"bounce": 0x8000, "bounce_sectors": 64}),
    ],
)
def test_other_drives(name: str, given: Mapping[str, int]) -> None:
    assert one(TREE, name, **given).kept


def test_what_the_bios_does_is_a_row(found: Mapping[str, Traced]) -> None:
    [row] = [line for line in show.text([found["real/diskboot"]]) if " int 0x13 " in line]
    size = -(-found["real/diskboot"].scene.start.placed[0].symbols["loader_size"] // 512) * 512
    assert re.search(
        rf"  the BIOS:  eax 0x\w+ -> 0x\w+ .* df 0x0 -> 0x1  if .*\[0x1000\.\.{0x1000 + size:#x}\]",
        row,
    )
    rows = show.as_json([found["real/diskboot"]])[0]["rows"]
    assert isinstance(rows, list)
    assert [row["source"] for row in rows if row.get("bios")] == ["int 0x13"]


def test_an_operand_size_prefix_is_no_rep(found: Mapping[str, Traced]) -> None:
    """In 16-bit code `lodsd` has a prefix, and needs no turns of its own."""
    placed = found["real/diskboot"].scene.start.placed[0]
    steps = found["real/diskboot"].run.steps
    lines = [where(placed, step.address) for step in steps]
    loads = sum(bool(line and line.text.startswith("lodsd")) for line in lines)
    assert loads == placed.symbols["loader_size"] // 4
    assert not any(step.repeats for step in steps)


def test_rows_that_were_there_are_one(found: Mapping[str, Traced]) -> None:
    text = list(show.text([found["i386/head"]]))
    assert not any("shown above" in line for line in text)
    text = list(show.text([found["x86_64/head"]]))
    first = next(line for line in text if "shown above" in line)
    at = first.split()[0]
    assert sum(line.startswith(f"  {at} ") for line in text[: text.index(first)]) == 1


class Fault(NamedTuple):
    """`file` has `old`, the sources that have the fault, what is wrong, and the line to blame."""

    name: str
    file: str
    old: str
    new: str
    wrong: str
    blamed: str


INITRD = "    mov xdx, xcx\n    and ecx, xword_size - {}\n    rep movsb"
FAULTS = [
    *(
        fault
        for name in HEADS
        for fault in (
            Fault(name, "include/head.inc", INITRD.format(1), INITRD.format(2),
                  "0x12c000 (the initrd+0x0) is not as expected", "rep_movsx"),
            Fault(name, "include/head.inc", "    mov xsp, [at(kernel_sp)]\n", "",
                  "sp=0x104000, expected", "retf"),
            Fault(name, "include/head.inc", "    jae .done\n", "",
                  f"{name} says 'bootsplice: there is no RAM where this kernel needs it: 0x100000",
                  "out dx, al"),
        )
    ),
    Fault("i386/head", "i386/head.asm", "    mov eax, __BOOT_DS", "    mov eax, 0x11",
          "exception 0xd", "mov ds, eax"),
    Fault("real/diskboot", "real/diskboot.asm", "    mov ss, ax\n", "",
          "outside of what it declares", "call try_drive"),
    Fault("real/diskboot", "real/diskboot.asm", "    mov cl, [at(id.sector_shift)]", "",
          "enters the loader with", ""),
    Fault("real/diskboot", "real/diskboot.asm", "loader_sectors\n    call", "33\n    call",
          "has the BIOS write 0x5000..0x5200, outside", "int 0x13"),
    Fault("real/diskboot", "real/diskboot.asm", "SUM_FACTOR\n", "SUM_FACTOR + 2\n",
          "gives up: 'bootsplice: drive 80, status 00: bad loader", "hlt"),
    Fault("real/loader", "include/xxh32.inc", "eax, XXH32_PRIME_3", "eax, XXH32_PRIME_2",
          "gives up: 'bootsplice: kernel is damaged", "hlt"),
    Fault("real/loader", "real/loader.asm", "    sti                                 ; no", "; no",
          "with IF clear", "int 0x13"),
    Fault("real/loader", "real/loader.asm", "    mov esp, LOADER_STACK",
          "    mov esp, LOADER_STACK - 0x400", "writes 0x6b", "call console_open"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name} {fault.wrong}")
def test_a_fault_is_found_and_its_line(tmp_path: Path, fault: Fault) -> None:
    if fault.name in HEADS:
        tree = with_fault(tmp_path, fault.file, fault.old, fault.new)
    else:
        tree = stages_with(tmp_path, fault)
    traced = one(tree, fault.name)
    [promise, *_] = [each for each in traced.broken if fault.wrong in str(each.finding.wrong)]
    line = promise.line
    if not fault.blamed:
        assert line is None
        return
    assert line
    assert fault.blamed in line.text
    assert (tree.root / line.file).read_text().splitlines()[line.number - 1].strip() == line.text
    assert any(f"BROKEN  {promise.finding.keyword:<9}" in row and str(line) in row
               for row in show.text([traced]))  # fmt: skip


def test_an_error_of_the_contract_tests_names_the_line(tmp_path: Path) -> None:
    """It takes a second run, on a BIOS that knows nothing of the first."""
    fault = next(fault for fault in FAULTS if "int 0x13" in fault.blamed)
    [scene] = scenes(stages_with(tmp_path, fault), fault.name, {})
    with pytest.raises(ContractError, match=r"asm/real/diskboot\.asm:\d+: int 0x13$"):
        execute(scene.start)


def stages_with(root: Path, fault: Fault) -> Tree:
    """Both stages, with a fault in one."""
    shutil.copytree(TREE.asm / "include", root / "asm/include")
    (root / "asm/real").mkdir()
    shutil.copy(TREE.asm / "real/arch.toml", root / "asm/real")
    for name in STAGES:
        shutil.copy(SOURCES[name].path, root / f"asm/{name}.asm")
    path = root / "asm" / fault.file
    assert fault.old in path.read_text()
    path.write_text(path.read_text().replace(fault.old, fault.new))
    tree = Tree(root, root / "build")
    assembler.build(tree)
    return tree


def test_the_command(tmp_path: Path) -> None:
    done = run(tmp_path, "trace", ROOT / "asm/real/diskboot.asm", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [each] = json.loads(done.stdout)
    assert (each["kept"], each["title"]) == (True, "a drive with sectors of 512 bytes")
