"""Every source in asm/ is run and held to what its own header comment says."""

import itertools
from pathlib import Path

import pytest
from emulator import GENERAL, MODES, SEGMENTS, TOP, Placed
from held import (
    KIB,
    MIB,
    SOURCES,
    TREE,
    EarlyLayout,
    Layout,
    early_layouts,
    examples,
    hold_bootsect,
    hold_early,
    hold_moves,
    hold_relocator,
    layouts,
    meets_needs,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from missing import missing

from pybuild import contract

pytestmark = pytest.mark.contract

RELOCATORS = [name for name in SOURCES if Path(name).name.startswith("relocator")]
WIDE = tuple(f"r{i}" for i in (*range(8, 16), "ax", "cx", "dx", "bx", "sp", "bp", "si", "di"))

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
def test_the_code_can_hold_the_ranges_that_it_declares(name: str) -> None:
    terms, binary = contract.read(SOURCES[name].path), TREE.load(name)
    for read in terms.reads:
        assert read.low <= read.high
        for relocation in binary.relocations:
            if relocation.symbol == read.symbol and not relocation.kind.pc_relative:
                low, high = relocation.kind.bounds()
                assert low <= read.low + relocation.addend, read
                assert read.high + relocation.addend <= high, read


@every_source
def test_names_in_the_contract_exist(name: str) -> None:
    terms = contract.read(SOURCES[name].path)
    registers = {*GENERAL, *SEGMENTS, *(WIDE if terms.enter == "long64" else ())}
    assert {*terms.inputs, *terms.preserves, *terms.clobbers} <= registers
    assert terms.state.keys() <= registers | {"df", "if"}
    assert not set(terms.preserves) & {*terms.clobbers, *terms.state}
    one = Placed(terms, TREE.load(name), 0x1000, {read.symbol: read.low for read in terms.reads})
    ones = dict.fromkeys(registers, 1)
    one.writes(ones)
    one.target(ones)
    for expression in (*terms.needs, *terms.state.values()):
        one.evaluate(expression, ones)


@every_source
def test_what_it_needs_can_be_had(name: str) -> None:
    terms = contract.read(SOURCES[name].path)
    used = [r for r in terms.reads if any(r.symbol in need for need in terms.needs)]
    symbols = [r.symbol for r in used]
    registers = {**dict.fromkeys((*GENERAL, *SEGMENTS), 0x1000), "$$": 0x90000}
    values = [(r.low, r.low + 1, (r.low + r.high) // 2, r.high) for r in used]
    assert any(
        meets_needs(terms, {**registers, **dict(zip(symbols, chosen, strict=True))})
        for chosen in itertools.product(*values)
    )


# The relocators


def draw_layout(name: str, data: st.DataObject, lengths: st.SearchStrategy[int]) -> Layout:
    layout = data.draw(layouts(lengths, len(TREE.load(name).code)))
    terms = contract.read(SOURCES[name].path)
    assume(meets_needs(terms, layout.names(terms)))
    return layout


@pytest.fixture
def relocator(name: str) -> str:
    mode = contract.read(SOURCES[name].path).enter
    if mode not in MODES:
        missing(f"the harness has no {mode}")
    return name


@every_relocator
@examples(120)
@given(data=st.data())
def test_relocator_moves_and_enters(relocator: str, data: st.DataObject) -> None:
    lengths = st.one_of(
        st.sampled_from((0, 1, 2, 3)),
        st.builds(lambda n, off: 4 * n + off, st.integers(1, 40), st.sampled_from((-1, 0, 1))),
        st.integers(0, 3 * KIB),
    )
    layout = draw_layout(relocator, data, lengths)
    spared = {r: data.draw(st.integers(0, TOP - 1), r) for r in ("esp", "ebp", "edi")}
    hold_relocator(relocator, layout, registers=spared)


@every_relocator
@examples(10)
@given(data=st.data())
def test_relocator_moves_megabytes(relocator: str, data: st.DataObject) -> None:
    layout = draw_layout(relocator, data, st.integers(64 * KIB, 3 * MIB))
    hold_relocator(relocator, layout, trace=False)


@every_relocator
def test_relocator_moves_short_ones_by_every_distance(relocator: str) -> None:
    moves = [(size, by) for size in range(10) for by in range(-size - 1, size + 2)]
    assert hold_moves(relocator, moves, trace=True)


@every_relocator
def test_relocator_moves_megabytes_by_a_little(relocator: str) -> None:
    """And from 2 MiB to 1 MiB, as the patch did."""
    moves = [(MIB + by % 4, by) for by in (-7, -4, -1, 0, 1, 2, 3, 5, MIB - 1)]
    assert hold_moves(relocator, [*moves, (3 * MIB + 1, -MIB)], trace=False)


# The boot sector


@examples(120)
@given(data=st.data())
def test_bootsect_loads_the_register_state(data: st.DataObject) -> None:
    terms = contract.read(SOURCES["real/bootsect"].path)
    symbols = {r.symbol: data.draw(st.integers(r.low, r.high), r.symbol) for r in terms.reads}
    assume(not 0x7C00 <= 16 * symbols["seg_cs"] + symbols["ip"] < 0x7E00)
    hold_bootsect(symbols, data.draw(st.sampled_from((0, 0x7C0)), "cs that the BIOS enters with"))


# The early stage with the relocator


@examples(60)
@given(layout=early_layouts())
def test_early_moves_the_kernel_and_enters_setup(layout: EarlyLayout) -> None:
    assume(not layout.early <= 16 * layout.setup_cs < layout.early + 512)
    hold_early(layout)
