"""Runs the sources in asm/ and holds them to their contracts: what the contract tests share."""

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from cpu import ContractError
from emulator import Outcome, Placed, run
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from memory import TOP, Memory

from pybuild import contract, paths
from pybuild.assembler import Tree
from pybuild.contract import Contract
from pybuild.flat import FlatBinary

TREE = Tree(paths.ROOT, paths.BUILD)
SOURCES = {source.name: source for source in TREE.sources()}
CODE32_START_AT = 0x214  # in boot_params
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


@dataclass(frozen=True)
class Layout:
    """Where everything lies for one run of a relocator; `noise` seeds what memory holds."""

    src: int
    dst: int
    len: int
    base: int
    boot_params: int
    code32_start: int
    noise: int = 0

    @property
    def field(self) -> int:
        """The address of boot_params' code32_start."""
        return self.boot_params + CODE32_START_AT

    def symbols(self, terms: Contract) -> dict[str, int]:
        """What the relocator's source leaves open."""
        return {read.symbol: getattr(self, read.symbol) for read in terms.reads}

    def names(self, terms: Contract) -> dict[str, int]:
        """What the conditions of its contract are about."""
        return {**self.symbols(terms), "$$": self.base}

    def memory(self, size: int) -> Memory:
        """Noise wherever something lies, and a little around it: `size` is the binary's."""
        low = min(self.src, self.dst, self.base, self.field)
        high = max(self.src + self.len, self.dst + self.len, self.base + size, self.field + 4)
        low, high = low & -0x1000, (high + 0xFFF) & -0x1000
        return Memory([(low, random.Random(self.noise).randbytes(high - low))])


def hold_relocator(
    name: str,
    layout: Layout,
    trace: bool = True,
    tree: Tree = TREE,
    registers: Mapping[str, int] | None = None,
) -> Outcome:
    """Runs a relocator; raises ContractError unless memory is then what memmove would make it."""
    terms, binary = contract.read(tree.asm / f"{name}.asm"), tree.load(name)
    symbols = layout.symbols(terms)
    it = Placed(terms, binary, layout.base, symbols)
    outcome = run(
        it,
        memory=layout.memory(len(binary.code)),
        registers={"esi": layout.boot_params, **(registers or {})},
        trace=trace,
        budget=1000 + 8 * layout.len,
    )
    expected = outcome.before.take(outcome.before, [])
    expected.write(layout.dst, outcome.before.read(layout.src, layout.len))
    if (layout.field, layout.field + 4) in it.writes({"esi": layout.boot_params}):
        expected.write(layout.field, layout.code32_start.to_bytes(4, "little"))
    wrong = expected.first_difference(outcome.after)
    if wrong is not None:
        what = "code32_start" if 0 <= wrong - layout.field < 4 else "memmove"
        raise ContractError(f"{what}: {wrong:#x} is not as expected, of {layout}")
    return outcome


@st.composite
def layouts(draw: st.DrawFn, lengths: st.SearchStrategy[int], size: int) -> Layout:
    """The copy, the binary and boot_params' field, in any order, close together, anywhere."""
    length = draw(lengths)
    distance = draw(
        st.one_of(
            st.just(0),
            st.integers(1, 8),
            st.integers(1, max(length, 1)),
            st.integers(max(length - 4, 0), length + 4),
            st.integers(length, length + 5000),
        )
    )
    span = {"copy": length + distance, "code": size, "field": 4}
    gaps = {name: draw(st.integers(0, 40)) for name in span}
    total = sum(span.values()) + sum(gaps.values())
    at = draw(st.one_of(st.integers(CODE32_START_AT, TOP - total), st.just(TOP - total)))
    places = {}
    for name in draw(st.permutations(list(span))):
        places[name] = at + gaps[name]
        at = places[name] + span[name]
    upwards = draw(st.booleans())
    code32_start = draw(st.one_of(st.just(places["copy"]), st.integers(0, TOP - 1)))
    assume(not 0 <= code32_start - places["code"] < size)
    return Layout(
        src=places["copy"] + (distance if upwards else 0),
        dst=places["copy"] + (0 if upwards else distance),
        len=length,
        base=places["code"],
        boot_params=places["field"] - CODE32_START_AT,
        code32_start=code32_start,
        noise=draw(st.integers(0, 1 << 32)),
    )


def hold_moves(name: str, moves: list[tuple[int, int]], trace: bool) -> int:
    """Runs those moves, of a size and by a distance, that the contract allows; says how many."""
    terms = contract.read(SOURCES[name].path)
    done = 0
    for size, distance in moves:
        dst = 0x200005 + distance
        layout = Layout(0x200005, dst, size, 0x100000 - 0x200, 0xFF000, dst, noise=size)
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
