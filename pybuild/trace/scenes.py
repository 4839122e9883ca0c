"""Where a flat binary is put to be traced: its symbols, the registers and memory that it finds.

What is not set comes from the contract. A source that `moves` src to dst is run with three moves:
apart, and overlapping either way. Any other gets addresses 1 MiB apart, sizes of 4 KiB and values
that differ, each within the range of its `reads` line. Memory is noise. What runs only inside of
something has a module of its own that makes that.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pybuild import contract, longmode
from pybuild.assembler import Tree
from pybuild.contract import LONG, SEGMENTS, Contract, Read
from pybuild.emulate.activation import BOOT_CS, Placed
from pybuild.emulate.layouts import PARAMS, Layout, LongLayout, simple
from pybuild.emulate.machine import SELECTORS, Start
from pybuild.emulate.memory import PAGE, TOP, Memory
from pybuild.emulate.paging import HIGHEST, Paging, Range
from pybuild.errors import InputError
from pybuild.flat import BASE_SYMBOL, FlatBinary
from pybuild.trace import diskscene, headscene
from pybuild.trace.scene import Scene

_MOVES: Final = {  # what is moved where: not a multiple of 4 or 8, nor by one
    "apart": (0x200000, 0x100000),
    "dst above src, overlapping": (0x200000, 0x200123),
    "dst below src, overlapping": (0x200000, 0x1FFEDD),
}
_LENGTH: Final = 0x1237
_BASES: Final = (0x90000, 0x40000, 0x8000, 0x7000000, 0x70000000)
_POINTERS: Final = (0xFE000, 0x20000, 0x8FF0, 0x6000000, 0x60000000)
_MOST_MEMORY: Final = 1 << 28  # bytes; a run takes six times that of the host's
_SPACING: Final = 0x100000
_SIZE: Final = 0x1000
_EARLY: Final = {"base": 0x99010, "cs": 0x9901, "ss": 0x9000, "esp": 0x8FF0}


def scenes(tree: Tree, name: str, given: Mapping[str, int]) -> list[Scene]:
    """The runs of a source that tell most: one, or of a source that `moves` three.

    Args:
        tree: with the flat binary, up to date.
        name: `<arch>/<name>`.
        given: symbols and registers of the mode, by name.

    Raises:
        InputError: there is no such symbol or register, its value is out of its range, or
            a `needs` line is broken.
        BuildError: the contract cannot be read.
    """
    terms, binary = contract.read(tree.asm / f"{name}.asm"), tree.load(name)
    _check(name, terms, given)
    if name in headscene.NAMES:
        return [headscene.scene(tree, name, given)]
    if name in diskscene.NAMES:
        return [diskscene.scene(tree, name, given)]
    if name == "real/early":
        return [_early(tree, terms, binary, given)]
    if not (terms.moves and _is_of_layout(terms)):
        return [_any(terms, binary, given)]
    places = _MOVES
    if given.keys() & {"src", "dst"}:
        src, dst = _MOVES["apart"]
        places = {"": (given.get("src", src), given.get("dst", dst))}
    made = [_move(title, terms, binary, given, *place) for title, place in places.items()]
    found = [scene for scene in made if isinstance(scene, Scene)]
    if not found:
        raise next(error for error in made if isinstance(error, InputError))
    return found


def _check(name: str, terms: Contract, given: Mapping[str, int]) -> None:
    ranges = {read.symbol: range(read.low, read.high + 1) for read in terms.reads}
    for register in terms.registers:
        bits = 16 if register in SEGMENTS else 64 if register in LONG else 32
        ranges[register] = range(1 << bits)
        if register in SEGMENTS and terms.enter != "real16":
            ranges[register] = range(BOOT_CS, BOOT_CS + 1) if register == "cs" else SELECTORS
    for key, value in given.items():
        if key not in ranges:
            symbols = ", ".join(read.symbol for read in terms.reads) or "none"
            raise InputError(
                f"--set {key}: {name} has no such symbol, and its mode no such register; "
                f"its symbols are: {symbols}"
            )
        allowed = ranges[key]
        if value not in allowed:
            steps = f" in steps of {allowed.step}" if allowed.step > 1 else ""
            raise InputError(
                f"--set {key}: found {value:#x}, expected {allowed[0]:#x}..{allowed[-1]:#x}{steps}"
            )


def _is_of_layout(terms: Contract) -> bool:
    """Whether a move is told of by what a layout knows: src, dst, len and boot_params."""
    pointers = {"protected32": {"esi"}, "long64": {"rsi"}}.get(terms.enter)
    if pointers is None or not pointers.issuperset(terms.inputs):
        return False
    return {"src", "dst", "len"} <= {read.symbol for read in terms.reads}


def _broken(terms: Contract, names: Mapping[str, int]) -> str | None:
    """The first need that is not met."""
    return next((need for need in terms.needs if not contract.evaluate(need, names)), None)


def _refusal(binary: FlatBinary, need: str, names: Mapping[str, int]) -> InputError:
    words = set(re.findall(r"\w+|\$\$", need))
    used = [f"{name}={value:#x}" for name, value in names.items() if name in words]
    return InputError(
        f"{binary.name}: `needs {need}` does not hold with {', '.join(used)}; --set them otherwise"
    )


def _default(read: Read, index: int) -> int:
    value = {"address": 0x200000 + _SPACING * index, "bytes": _SIZE}.get(
        read.unit, 0x1BCD + 257 * index
    )
    return min(max(value, read.low), read.high)


def _move(
    title: str,
    terms: Contract,
    binary: FlatBinary,
    given: Mapping[str, int],
    src: int,
    dst: int,
) -> Scene | InputError:
    """A move from src to dst; the refusal, if the contract does not allow it."""
    layout = simple(terms.enter, src, dst, given.get("len", _LENGTH), noise=0)
    fields = {field.name for field in dataclasses.fields(layout)}
    chosen = {key: value for key, value in given.items() if key in fields}
    if isinstance(layout, LongLayout):
        pages = longmode.tables_size(layout.len, given.get("init_size", 0))
        chosen = {"tables_size": pages, **chosen}
    layout = dataclasses.replace(layout, **chosen)
    others = {r.symbol: _default(r, i) for i, r in enumerate(terms.reads) if r.symbol not in fields}
    others |= {key: value for key, value in given.items() if key in others}
    registers = {key: value for key, value in given.items() if key in terms.registers}
    pointer = [registers[layout.pointer]] if layout.pointer in registers else None
    names: dict[str, int] = {}
    for base, params in itertools.product(
        (layout.base, *_BASES), pointer or (layout.boot_params, *_POINTERS)
    ):
        layout = dataclasses.replace(layout, base=base, boot_params=params)
        named = {r.symbol: getattr(layout, r.symbol) for r in terms.reads if r.symbol in fields}
        symbols = {**named, **others}
        tried = {**dict.fromkeys(terms.registers, 0), **symbols, layout.pointer: params}
        tried[BASE_SYMBOL] = base
        names = names or tried
        if _broken(terms, tried) is None and _is_apart(layout, len(binary.code)):
            placed = Placed(terms, binary, base, symbols)
            registers = {**registers, layout.pointer: params}
            memory = _memory(placed, registers, layout if isinstance(layout, LongLayout) else None)
            start = Start((placed,), memory, registers, paging=layout.paging)
            return Scene(title, start, layout.hold, "page tables" * (terms.enter == "long64"))
    need = _broken(terms, names)
    if need is None:
        return InputError(f"{binary.name}: no place is left for it beside src and dst")
    return _refusal(binary, need, names)


def _is_apart(layout: Layout, size: int) -> bool:
    own = [
        (layout.base, layout.base + size),
        (layout.boot_params, layout.boot_params + PARAMS),
    ]
    moved = [(layout.src, layout.src + layout.len), (layout.dst, layout.dst + layout.len)]
    pairs = [(one, other) for one in own for other in moved]
    return not any(a < d and c < b for (a, b), (c, d) in [*pairs, (own[0], own[1])])


def _any(terms: Contract, binary: FlatBinary, given: Mapping[str, int]) -> Scene:
    symbols = {r.symbol: given.get(r.symbol, _default(r, i)) for i, r in enumerate(terms.reads)}
    registers = {key: value for key, value in given.items() if key in terms.registers}
    open_ones = [name for name in terms.inputs if name not in registers]
    bases: tuple[int, ...] = _BASES if terms.address is None else (terms.address,)
    if terms.enter == "real16":
        bases = tuple(base for base in bases if base < 0x100000)
    names: dict[str, int] = {}
    for base, pointer in itertools.product(bases, _POINTERS):
        entry = {**registers, **dict.fromkeys(open_ones, pointer)}
        if terms.enter == "real16":
            entry = {"cs": base >> 4, **entry}
        tried = {**dict.fromkeys(terms.registers, 0), **entry, **symbols, BASE_SYMBOL: base}
        names = names or tried
        if _broken(terms, tried) is None:
            placed = Placed(terms, binary, base, symbols)
            memory = _memory(placed, entry, None)
            paging = Paging([(at, at + len(data)) for at, data in memory.stretches.items()])
            return Scene("", Start((placed,), memory, entry, paging=paging))
    raise _refusal(binary, _broken(terms, names) or "", names)


def _early(tree: Tree, terms: Contract, binary: FlatBinary, given: Mapping[str, int]) -> Scene:
    """The early stage, with the relocator that it jumps to and that returns to it."""
    symbols = {"relocator": 0x201000, "setup_cs": 0x9020}
    symbols |= {key: value for key, value in given.items() if key in symbols}
    registers = {key: value for key, value in _EARLY.items() if key != "base"}
    registers |= {key: value for key, value in given.items() if key in terms.registers}
    base = _EARLY["base"]
    need = _broken(terms, {**registers, **symbols, BASE_SYMBOL: base})
    if need is not None:
        raise _refusal(binary, need, {**registers, **symbols})
    placed = Placed(terms, binary, base, symbols)
    name = "i386/relocator"
    moved = {"src": 0x200000, "dst": 0x10000, "len": 0xFFF}
    moved["code32_start"] = base + binary.symbols["moved"]
    relocator_terms = contract.read(tree.asm / f"{name}.asm")
    relocator = Placed(relocator_terms, tree.load(name), symbols["relocator"], moved)
    noise = random.Random(0)
    ranges = [(0, 0xA0000), (0x100000, 0x101000), (0x200000, 0x201000)]
    memory = Memory([(low, noise.randbytes(high - low)) for low, high in ranges])
    return Scene("", Start((placed, relocator), memory, registers))


def _memory(placed: Placed, registers: Mapping[str, int], long: LongLayout | None) -> Memory:
    """Noise in all that the contract is about, and in a page on either side."""
    full = {**dict.fromkeys(placed.terms.registers, 0), **registers}
    top = HIGHEST if placed.terms.enter == "long64" else TOP
    ranges = [*placed.writes(full), *_sources(placed, full)]
    ranges += [(full[name], full[name] + PARAMS) for name in placed.terms.inputs]
    if sum(max(high - low, 0) for low, high in ranges) > _MOST_MEMORY:
        raise InputError(f"{placed.binary.name}: it is to write or move more than 256 MiB")
    noise = random.Random(0)
    parts = []
    for low, high in _joined([(max(low - PAGE, 0), min(high + PAGE, top)) for low, high in ranges]):
        parts.append((low, noise.randbytes(high - low)))
    if long is not None:
        parts += [
            (at, bytes(data)) for at, data in long.memory(len(placed.binary.code)).stretches.items()
        ]
    memory = Memory(parts)
    for low, data in memory.stretches.items():
        if low + len(data) > top:
            raise InputError(
                f"{placed.binary.name}: something is to be at {low:#x}..{low + len(data):#x}, "
                f"expected nothing above {top:#x}: the emulator has no memory there"
            )
    return memory


def _sources(placed: Placed, registers: Mapping[str, int]) -> Iterator[Range]:
    for low, high, _ in placed.terms.moves:
        yield placed.evaluate(low, registers), placed.evaluate(high, registers)


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """The same bytes in as few ranges as there can be."""
    joined: list[Range] = []
    for low, high in sorted((low, high) for low, high in ranges if low < high):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined
