"""FlatBinary.unbind: the inverse of bind, for every source of the project and for any other."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybuild import assembler, contract
from pybuild.errors import BuildError
from pybuild.flat import BASE_SYMBOL, FlatBinary, Relocation
from pybuild.paths import BUILD, ROOT
from pybuild.relocations import BY_NAME

TREE = assembler.Tree(ROOT, BUILD)
SOURCES = {source.name: source for source in TREE.sources()}
HERE = Relocation(10, "R_386_16", BASE_SYMBOL, 8)


@functools.cache
def binary_of(name: str) -> FlatBinary:
    return TREE.load(name)


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=15)
@given(data=st.data())
def test_it_gives_back_what_a_source_was_bound_to(name: str, data: st.DataObject) -> None:
    binary = binary_of(name)
    reads = contract.read(SOURCES[name].path).reads
    values = {read.symbol: data.draw(st.integers(read.low, read.high)) for read in reads}
    base = data.draw(st.integers(0, 0x200)) * 16
    bound = binary.bind(values, base)
    assert binary.unbind(bound, base) == values
    assert binary.unbind(bound[:-1], base) is None
    assert binary.unbind(bound + b"\0", base) is None


@pytest.mark.parametrize("name", SOURCES)
def test_every_byte_counts(name: str) -> None:
    """A flipped byte of the code is noticed; one of a field gives another value, or none."""
    binary = binary_of(name)
    values = {read.symbol: read.low for read in contract.read(SOURCES[name].path).reads}
    bound = binary.bind(values, 0x1000)
    fields = {at for r in binary.relocations for at in range(r.offset, r.offset + r.kind.size)}
    for at in range(0, len(bound), 1 if len(bound) <= 512 else 7):
        found = binary.unbind(bound[:at] + bytes((bound[at] ^ 0x41,)) + bound[at + 1 :], 0x1000)
        assert found != values
        assert found is None or at in fields


@st.composite
def binaries(draw: st.DrawFn) -> FlatBinary:
    names = st.sampled_from(["a", "b", "c", BASE_SYMBOL])
    kinds = st.sampled_from(sorted(BY_NAME))
    near = st.integers(-9, 9)
    size, relocations = 0, []
    for kind, symbol, addend in draw(st.lists(st.tuples(kinds, names, near), max_size=6)):
        relocations.append(Relocation(size, kind, symbol, addend))
        size += BY_NAME[kind].size
    return FlatBinary("t/t", bytes(size + 1), tuple(relocations))


@settings(max_examples=150)
@given(binary=binaries(), data=st.data())
def test_what_it_finds_binds_to_the_same(binary: FlatBinary, data: st.DataObject) -> None:
    values = {name: data.draw(st.integers(-140, 300)) for name in sorted(binary.undefined)}
    base = data.draw(st.integers(0, 200))
    try:
        bound = binary.bind(values, base)
    except BuildError:
        bound = data.draw(st.binary(min_size=len(binary.code), max_size=len(binary.code)))
        found = binary.unbind(bound, base)
        assert found is None or binary.bind(found, base) == bound
    else:
        again = binary.unbind(bound, base)
        assert again is not None
        assert binary.bind(again, base) == bound


def test_a_symbols_fields_are_held_to_each_other() -> None:
    relocations = (
        Relocation(0, "R_386_32", "src", 4),
        Relocation(4, "R_386_16", "src", 0),
        Relocation(6, "R_386_8", "byte", 0),
    )
    binary = FlatBinary("t/t", bytes(7), relocations)
    bound = binary.bind({"src": 0x1234, "byte": -2})
    assert binary.unbind(bound) == {"src": 0x1234, "byte": 0xFE}
    assert binary.unbind(bound[:4] + b"\x35" + bound[5:]) is None


def test_it_wants_the_base_that_the_bytes_are_for() -> None:
    binary = FlatBinary("t/t", bytes(16), (HERE,))
    bound = binary.bind({}, 0x7C00)
    assert binary.unbind(bound, 0x7C00) == {}
    assert binary.unbind(bound, 0x7C01) is None
    assert binary.unbind(bound, 1 << 40) is None
    with pytest.raises(BuildError, match="depend on its load address"):
        binary.unbind(binary.bind({}, 0))
