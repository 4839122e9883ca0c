"""What a contract says of memory when its source has left: `moves` and `stores`."""

from collections.abc import Iterator
from typing import NamedTuple

from pybuild.emulate.activation import Activation, Finding
from pybuild.emulate.memory import Memory


class Effect(NamedTuple):
    """What became of one such promise; `at` is the first byte that is not as promised."""

    finding: Finding
    line: int  # of the source, from 1
    at: int | None


def effects(activation: Activation, before: Memory, after: Memory) -> Iterator[Effect]:
    """What became of each, in the contract's order.

    Args:
        activation: one that has left.
        before: memory as it was entered.
        after: memory as it left.
    """
    placed, entry = activation.placed, activation.entry.registers
    terms = placed.terms
    stored: list[tuple[int, bytes | None]] = []
    for low, high, value in terms.stores:
        start, end, what = (placed.evaluate(part, entry) for part in (low, high, value))
        found = _read(after, start, end)
        if found is not None:
            found = (what % (1 << 8 * len(found))).to_bytes(len(found), "little")
        stored.append((start, found))
    for (low, high, to), line in zip(terms.moves, terms.numbers.get("moves", []), strict=True):
        start, end, there = (placed.evaluate(part, entry) for part in (low, high, to))
        moved = _read(before, start, end)
        expected = None if moved is None else bytearray(moved)
        for address, data in stored:  # `stores` lies on top
            for i, byte in enumerate(data or b""):
                if expected and there <= address + i < there + len(expected):
                    expected[address + i - there] = byte
        size = max(end - start, 0)
        promise = f"{low}..{high} to {to}: {size:#x} bytes at {there:#x}, as memmove()"
        yield _compare("moves", promise, line, there, expected, after)
    lines = terms.numbers.get("stores", [])
    for (low, high, value), (address, data), line in zip(terms.stores, stored, lines, strict=True):
        yield _compare("stores", f"{low}..{high} {value}", line, address, data, after)


def _read(memory: Memory, start: int, end: int) -> bytes | None:
    """What is there, nothing if the end is no higher; None if there is not all of that memory."""
    try:
        return memory.read(start, end - start) if start < end else b""
    except KeyError:
        return None


def _compare(
    keyword: str,
    promise: str,
    line: int,
    address: int,
    expected: bytes | bytearray | None,
    after: Memory,
) -> Effect:
    found = None if expected is None else _read(after, address, address + len(expected))
    if expected is None or found is None:
        text = f"has not all of the memory of `{keyword}` {promise}"
        return Effect(Finding(keyword, promise, text), line, address)
    if found == expected:
        return Effect(Finding(keyword, promise, None), line, None)
    wrong = [i for i, byte in enumerate(found) if byte != expected[i]]
    first = wrong[0]
    text = (
        f"leaves {address + first:#x} as {found[first]:#04x}, expected {expected[first]:#04x}, "
        f"the first of {len(wrong)} wrong bytes of `{keyword}` {promise}"
    )
    return Effect(Finding(keyword, promise, text), line, address + first)
