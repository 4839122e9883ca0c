"""Where everything lies when a relocator runs, drawn by hypothesis."""

from typing import Final

from hypothesis import assume
from hypothesis import strategies as st

from pybuild.contract import Contract
from pybuild.emulate.layouts import CODE32_START_AT, GDT, PARAMS, Layout, LongLayout
from pybuild.emulate.memory import PAGE, TOP
from pybuild.emulate.paging import HIGHEST, Range
from pybuild.longmode import tables_size

# What ranges begin, end and straddle: areas that have page tables of their own.
_CORNERS: Final = (1 << 25, 1 << 32, 5 << 30, 1 << 39, HIGHEST - (1 << 26))


def any_layouts(
    lengths: st.SearchStrategy[int], terms: Contract, size: int
) -> st.SearchStrategy[Layout]:
    """Layouts for a relocator of that contract and size."""
    return long_layouts(lengths, terms.limit) if terms.enter == "long64" else layouts(lengths, size)


def distances(length: int) -> st.SearchStrategy[int]:
    """How far a copy goes: with all kinds of overlap, and just not."""
    return st.one_of(
        st.just(0),
        st.integers(1, 8),
        st.integers(1, max(length, 1)),
        st.integers(max(length - 4, 0), length + 4),
        st.integers(length, length + 5000),
    )


@st.composite
def layouts(draw: st.DrawFn, lengths: st.SearchStrategy[int], size: int) -> Layout:
    """The copy, the binary and boot_params' field, in any order, close together, anywhere."""
    length = draw(lengths)
    distance = draw(distances(length))
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


@st.composite
def long_layouts(draw: st.DrawFn, lengths: st.SearchStrategy[int], limit: int) -> LongLayout:
    """The copy, in one piece or far apart, and all the rest, each at any of the corners."""
    length = draw(lengths)
    distance = draw(distances(length))
    init_size = draw(st.one_of(st.integers(0, 1 << 22), st.integers(0, TOP - 1)))
    room = tables_size(length, init_size)
    span = {"code": limit, "params": PARAMS, "cmd_line": 1, "gdt": GDT, "tables": room}
    apart = draw(st.booleans())
    span |= {"src": length, "dst": length} if apart else {"copy": length + distance}
    places: dict[str, int] = {}
    taken: list[Range] = []
    for name in draw(st.permutations(list(span))):
        at = draw(st.sampled_from(_CORNERS)) - draw(
            st.one_of(st.just(0), st.integers(0, span[name]))
        )
        align = PAGE if name == "tables" else 1
        for low, high in sorted(taken):
            if low < at + span[name] and at < high:
                at = high + draw(st.integers(0, 40))
            at += -at % align
        places[name] = at + -at % align
        taken.append((places[name], places[name] + span[name]))
    if not apart:
        upwards = draw(st.booleans())
        places["src"] = places["copy"] + (distance if upwards else 0)
        places["dst"] = places["copy"] + (0 if upwards else distance)
    dst, tables = places["dst"], places["tables"]
    init_size = min(init_size, HIGHEST - 2 * PAGE - dst)
    if dst < tables:
        init_size = min(init_size, tables - dst)
    entry = draw(st.integers(0, TOP - 1))
    if (most := max(length, init_size)) and draw(st.booleans()):
        entry = dst + draw(st.integers(0, most - 1))
    assume(not 0 <= entry - places["code"] < limit)
    return LongLayout(
        src=places["src"],
        dst=dst,
        len=length,
        base=places["code"],
        boot_params=places["params"],
        code32_start=draw(st.integers(0, TOP - 1)),
        noise=draw(st.integers(0, 1 << 32)),
        entry=entry,
        init_size=init_size,
        tables=tables,
        tables_size=room,
        cmd_line=places["cmd_line"],
        gdt=places["gdt"],
        la57=draw(st.booleans()),
    )
