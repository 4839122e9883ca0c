"""Runs the sources in asm/ and holds them to their contracts: what the contract tests share."""

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pybuild import contract, paths
from pybuild.assembler import Tree
from pybuild.contract import Contract
from pybuild.emulate.activation import Placed
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.layouts import Layout, simple
from pybuild.emulate.memory import Memory
from pybuild.emulate.run import Outcome, run
from pybuild.flat import FlatBinary

TREE = Tree(paths.ROOT, paths.BUILD)
SOURCES = {source.name: source for source in TREE.sources()}
KIB, MIB = 1 << 10, 1 << 20


def examples(count: int) -> settings:
    """The same examples on every run; how long one takes doesn't matter."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        suppress_health_check=[
            HealthCheck.data_too_large,
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,  # a name that stays the same
        ],
    )


@functools.cache
def load(name: str, tree: Tree) -> tuple[Contract, FlatBinary]:
    """A source's contract and its flat binary, of a tree that does not change any more."""
    return contract.read(tree.asm / f"{name}.asm"), tree.load(name)


def placed(name: str, base: int, symbols: Mapping[str, int], tree: Tree = TREE) -> Placed:
    return Placed(*load(name, tree), base, symbols)


def meets_needs(terms: Contract, names: Mapping[str, int]) -> bool:
    ranges = (r.low <= names[r.symbol] <= r.high for r in terms.reads if r.symbol in names)
    return all(ranges) and all(contract.evaluate(need, names) for need in terms.needs)


def hold_relocator(
    name: str,
    layout: Layout,
    trace: bool = True,
    tree: Tree = TREE,
    registers: Mapping[str, int] | None = None,
    explain: bool = True,
) -> Outcome:
    """Runs a relocator; raises ContractError unless it keeps its contract, `moves` among it."""
    terms, binary = contract.read(tree.asm / f"{name}.asm"), tree.load(name)
    assert terms.moves
    symbols = layout.symbols(terms)
    it = Placed(terms, binary, layout.base, symbols)
    outcome = run(
        it,
        memory=layout.memory(len(binary.code)),
        registers={**layout.registers, **(registers or {})},
        trace=trace,
        budget=layout.budget,
        paging=layout.paging,
        explain=explain,
    )
    layout.hold(outcome)
    return outcome


def hold_moves(name: str, moves: list[tuple[int, int]], trace: bool) -> int:
    """Runs those moves, of a size and by a distance, that the contract allows; says how many."""
    terms = contract.read(SOURCES[name].path)
    done = 0
    for size, distance in moves:
        dst = 0x200005 + distance
        layout = simple(terms.enter, 0x200005, dst, size, noise=size)
        if meets_needs(terms, layout.names(terms)):
            hold_relocator(name, layout, trace)
            done += 1
    return done


def hold_bootsect(symbols: Mapping[str, int], cs: int, tree: Tree = TREE) -> None:
    outcome = run(
        placed("real/bootsect", 0x7C00, symbols, tree), memory=Memory([]), registers={"cs": cs}
    )
    sector = outcome.after.read(0x7C00, 512)
    assert sector[0x1B8:0x1FE] == bytes(0x1FE - 0x1B8)
    assert sector[0x1FE:] == b"\x55\xaa"


@dataclass(frozen=True)
class EarlyLayout:
    """Where everything lies for one run of the early stage."""

    early: int
    setup_cs: int
    ss: int
    sp: int
    relocator: int
    src: int
    dst: int
    len: int
    noise: int = 0


def hold_early(layout: EarlyLayout, tree: Tree = TREE) -> None:
    """Runs the early stage, and the relocator from it."""
    moved = layout.early + tree.load("real/early").symbols["moved"]
    early = placed(
        "real/early",
        layout.early,
        {"relocator": layout.relocator, "setup_cs": layout.setup_cs},
        tree,
    )
    move = {"src": layout.src, "dst": layout.dst, "len": layout.len, "code32_start": moved}
    relocator = placed("i386/relocator", layout.relocator, move, tree)
    noise = random.Random(layout.noise)
    low = (0, noise.randbytes(0xA0000))
    high = (0x100000, noise.randbytes(0x1000))
    copied = [(at, noise.randbytes(layout.len)) for at in (layout.dst, layout.src)]
    outcome = run(
        early,
        relocator,
        memory=Memory([low, high, *copied]),
        registers={"cs": layout.early // 16, "ss": layout.ss, "esp": layout.sp},
    )
    expected = outcome.before.take(outcome.after, early.writes({"ss": layout.ss, "esp": layout.sp}))
    expected.write(layout.dst, outcome.before.read(layout.src, layout.len))
    # It declares 512 bytes of its own, but the planner keeps no more free than there are.
    expected = expected.take(outcome.before, [(early.end, layout.early + 512), (0x500, 0x501)])
    wrong = expected.first_difference(outcome.after)
    if wrong is not None:
        raise ContractError(f"memory: {wrong:#x} is not as expected, of {layout}")


@st.composite
def early_layouts(draw: st.DrawFn) -> EarlyLayout:
    """As plans have it: early stage and stack in low memory, src and relocator far above."""
    length = draw(st.integers(0, 2 * KIB))
    src = draw(st.integers(0x200000, 0x3FFFF000))
    dst = draw(st.one_of(st.integers(0x10000, 0x6F000), st.integers(0x100000, 0x1FF000)))
    early, setup_cs = draw(st.integers(0x9000, 0x9FE0)), draw(st.integers(0x7000, 0x8FFF))
    return EarlyLayout(
        early=16 * draw(st.sampled_from((early, 0x9901))),
        setup_cs=draw(st.sampled_from((setup_cs, 0x9020))),
        ss=draw(st.integers(0x7000, 0x7FFF)),
        sp=draw(st.integers(0x80, 0xFFFF)),
        relocator=(src + length + 15) & -16,
        src=src,
        dst=dst,
        len=length,
        noise=draw(st.integers(0, 1 << 32)),
    )
