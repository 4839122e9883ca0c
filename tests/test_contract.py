"""Every source in asm/ is run and held to what its own header comment says."""

import itertools
import re
from pathlib import Path

import pytest
from held import (
    KIB,
    MIB,
    SOURCES,
    TREE,
    EarlyLayout,
    early_layouts,
    examples,
    hold_bootsect,
    hold_early,
    hold_moves,
    hold_relocator,
    meets_needs,
)
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from loading import disk_of, hold_diskboot, hold_loader, table_address
from nasm import ARCH
from relocating import any_layouts

from pybuild import assembler, contract, loadtable
from pybuild.assembler import Tree
from pybuild.contract import GENERAL, LONG, SEGMENTS
from pybuild.emulate.activation import Placed
from pybuild.emulate.bios import Bios
from pybuild.emulate.biosdisk import Disk, Image
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.layouts import Layout
from pybuild.emulate.memory import TOP, Memory
from pybuild.emulate.paging import Paging
from pybuild.emulate.run import run
from pybuild.emulate.stages import LOADER, Part, noise, plenty, with_parts

pytestmark = pytest.mark.contract

RELOCATORS = [name for name, source in SOURCES.items() if contract.read(source.path).moves]
HEADS = [name for name in SOURCES if Path(name).name == "head"]  # test_head.py
KNOWN = (*RELOCATORS, *HEADS, "real/early", "real/diskboot", "real/loader")
OTHERS = [name for name in SOURCES if name not in KNOWN]
LOADER_ROOM = 0x4000  # bytes, of its code and table
LARGEST = 1 << 20  # bytes of a range that a source of no special kind is given to write

every_source = pytest.mark.parametrize("name", SOURCES)
every_relocator = pytest.mark.parametrize("name", RELOCATORS)


# Every source


@every_source
def test_within_limit_and_reads_what_it_declares(name: str) -> None:
    terms, binary = contract.read(SOURCES[name].path), TREE.load(name)
    terms.check(binary)
    assert len(binary.code) <= terms.limit
    assert {read.symbol for read in terms.reads} == binary.undefined


@every_source
def test_what_it_needs_can_be_had(name: str) -> None:
    terms = contract.read(SOURCES[name].path)
    used = [r for r in terms.reads if any(r.symbol in need for need in terms.needs)]
    symbols = [r.symbol for r in used]
    registers = dict.fromkeys(terms.registers, 0x1000)
    values = [(r.low, r.low + 1, (r.low + r.high) // 2, r.high) for r in used]
    assert any(
        meets_needs(terms, {**registers, **dict(zip(symbols, chosen, strict=True)), "$$": base})
        for chosen in itertools.product(*values)
        for base in (0x90000, 0x1000)
    )


# The relocators


def draw_layout(name: str, data: st.DataObject, lengths: st.SearchStrategy[int]) -> Layout:
    terms = contract.read(SOURCES[name].path)
    layout = data.draw(any_layouts(lengths, terms, len(TREE.load(name).code)))
    assume(meets_needs(terms, layout.names(terms)))
    return layout


@every_relocator
@examples(120)
@given(data=st.data())
def test_relocator_moves_and_enters(name: str, data: st.DataObject) -> None:
    lengths = st.one_of(
        st.sampled_from((0, 1, 2, 3)),
        st.builds(lambda n, off: 4 * n + off, st.integers(1, 40), st.sampled_from((-1, 0, 1))),
        st.integers(0, 3 * KIB),
    )
    layout = draw_layout(name, data, lengths)
    values = st.integers(0, (1 << layout.bits) - 1)
    spared = {r: data.draw(values, r) for r in layout.spared}
    hold_relocator(name, layout, registers=spared)


@every_relocator
@examples(10)
@given(data=st.data())
def test_relocator_moves_megabytes(name: str, data: st.DataObject) -> None:
    most = 10 * MIB if contract.read(SOURCES[name].path).enter == "long64" else 3 * MIB
    layout = draw_layout(name, data, st.integers(64 * KIB, most))
    hold_relocator(name, layout, trace=False)


@every_relocator
def test_relocator_moves_short_ones_by_every_distance(name: str) -> None:
    moves = [(size, by) for size in range(10) for by in range(-size - 1, size + 2)]
    assert hold_moves(name, moves, trace=True)


@every_relocator
def test_relocator_moves_megabytes_by_a_little(name: str) -> None:
    """And from 2 MiB to 1 MiB, as the patch did."""
    moves = [(MIB + by % 4, by) for by in (-7, -4, -1, 0, 1, 2, 3, 5, MIB - 1)]
    assert hold_moves(name, [*moves, (3 * MIB + 1, -MIB)], trace=False)


# The boot sector


@pytest.mark.contract("real/bootsect")
@examples(120)
@given(data=st.data())
def test_bootsect_loads_the_register_state(data: st.DataObject) -> None:
    terms = contract.read(SOURCES["real/bootsect"].path)
    symbols = {r.symbol: data.draw(st.integers(r.low, r.high), r.symbol) for r in terms.reads}
    assume(not 0x7C00 <= 16 * symbols["seg_cs"] + symbols["ip"] < 0x7E00)
    hold_bootsect(symbols, data.draw(st.sampled_from((0, 0x7C0)), "cs that the BIOS enters with"))


# The boot sector that reads the loader, and the loader


@pytest.mark.contract("real/diskboot")
@examples(60)
@given(data=st.data())
def test_diskboot_enters_what_its_symbols_say(data: st.DataObject) -> None:
    terms = contract.read(SOURCES["real/diskboot"].path)
    symbols = {r.symbol: data.draw(st.integers(r.low, r.high), r.symbol) for r in terms.reads}
    room = symbols["loader_sectors"] << symbols["sector_shift"]
    symbols["loader_size"] = min(symbols["loader_size"], room) & -4
    assume(room <= LOADER_ROOM)
    loader = noise(symbols["loader_size"])
    symbols["loader_sum"] = loadtable.loader_sum(loader)
    lba = symbols["loader_lba_high"] << 32 | symbols["loader_lba_low"]
    drive = data.draw(st.integers(0, 0xFF), "drive")
    disk = disk_of(lba, loader, 1 << 67, sector=1 << symbols["sector_shift"])
    hold_diskboot(loader, lba, Bios({drive: disk}), boots=drive, dl=drive, symbols=symbols)


@pytest.mark.contract("real/loader")
@examples(30)
@given(data=st.data())
def test_loader_works_wherever_its_table_and_its_buffer_are(data: st.DataObject) -> None:
    terms = contract.read(SOURCES["real/loader"].path)
    symbols = {r.symbol: data.draw(st.integers(r.low, r.high), r.symbol) for r in terms.reads}
    kernel = Part(1000, 2 * MIB, noise(data.draw(st.integers(0, 200 * KIB), "size")))
    last = LOADER + LOADER_ROOM - loadtable.size(2)
    table = min(max(symbols["table"], table_address()), last)
    sectors = symbols["bounce_sectors"]
    bounce = symbols["bounce"] & (-0x8000 if sectors <= 64 else -0x10000)
    assume(bounce)
    bios = Bios({0x80: with_parts(Disk(Image(MIB)), kernel)}, plenty())
    hold_loader([kernel], bios, bounce=(bounce, sectors), table=table)


# The early stage with the relocator


@pytest.mark.contract("real/early")
@examples(60)
@given(layout=early_layouts())
def test_early_moves_the_kernel_and_enters_setup(layout: EarlyLayout) -> None:
    assume(not layout.early <= 16 * layout.setup_cs < layout.early + 512)
    hold_early(layout)


# Every other source: run as its contract says, with nothing known of what it is for


@pytest.mark.parametrize("name", OTHERS)
@examples(40)
@given(data=st.data())
def test_any_other_source(name: str, data: st.DataObject) -> None:
    hold_any(name, data, TREE)


def hold_any(name: str, data: st.DataObject, tree: Tree) -> None:
    """Runs a source with values from its `reads` lines, at an address and with registers drawn."""
    terms = contract.read(tree.asm / f"{name}.asm")
    base = terms.address or 16 * data.draw(st.integers(0x200, 0x7FFF), "address / 16")
    symbols = {r.symbol: data.draw(st.integers(r.low, r.high), r.symbol) for r in terms.reads}
    general = LONG if terms.enter == "long64" else GENERAL
    registers = {r: data.draw(st.integers(0x10000, 0xFFFFF), r) for r in general}
    if terms.enter == "real16":
        registers = {r: value & 0xFFFF for r, value in registers.items()}
        registers["cs"] = base // 16
    names = {**dict.fromkeys(SEGMENTS, 0x18), **registers, **symbols, "$$": base}
    assume(meets_needs(terms, names))
    it = Placed(terms, tree.load(name), base, symbols)
    ranges = it.writes(registers)
    _, _, target = it.target(registers)
    assume(not any(low < it.end and base < high for low, high in ranges))
    assume(not base <= target < it.end)
    assume(all(0 <= low <= high <= min(TOP, low + LARGEST) for low, high in ranges))
    memory = Memory([(low, bytes(high - low)) for low, high in ranges])
    paging = Paging([*ranges, (target, target + 1)])
    run(it, memory=memory, registers=registers, paging=paging)


GOOD = """\
; x.asm - stores a byte
;
; enter     protected32
; reads     where address 0x1000..0xffff000
; writes    where..where+1
; clobbers  eax
; leaves    edx  ds=0x18
; limit     32
bits 32
extern where
    mov eax, 0x18
    mov ds, eax
    mov eax, strict dword where
    mov byte [eax], 7
    jmp edx
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("", "", ""),
        ("byte [eax]", "byte [eax + 1]", "writes 0x"),
        ("jmp edx", "inc edi\n    jmp edx", "leaves with edi="),
        ("jmp edx", "inc edx\n    jmp edx", "executes 0x"),
        ("ds=0x18", "ds=0x10", "leaves with ds=0x18"),
    ],
)
@pytest.mark.parametrize("bits", [32, 64])
def test_a_source_of_no_known_kind_is_held_to_its_contract(
    tmp_path: Path, bits: int, old: str, new: str, reason: str
) -> None:
    folder = tmp_path / "asm/foo"
    folder.mkdir(parents=True)
    (folder / "arch.toml").write_text(ARCH[bits])
    text = GOOD.replace(old, new) if old else GOOD
    if bits == 64:
        text = re.sub(r"\be(?=dx|di)", "r", text.replace("bits 32", "bits 64"))
        text = text.replace("protected32", "long64").replace("byte [eax", "byte [rax")
        reason = reason.replace("edi", "rdi")
    (folder / "x.asm").write_text(text)
    tree = Tree(tmp_path, tmp_path / "build")
    assembler.build(tree)

    @settings(examples(10), phases=[Phase.generate])
    @given(data=st.data())
    def hold(data: st.DataObject) -> None:
        hold_any("foo/x", data, tree)

    if reason:
        with pytest.raises(ContractError, match=reason):
            hold()
    else:
        hold()
