"""A trace as text and as JSON: the rows of a run, and the verdict."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from pybuild.contract import SEGMENTS
from pybuild.emulate.cpu import changes, registers_of
from pybuild.emulate.sources import where
from pybuild.emulate.verdict import Promise
from pybuild.trace import Judged, Traced
from pybuild.trace.folding import Loop, Node, Row, fold

_MOST_ROWS: Final = 400  # of one run; of a longer one the first and the last are shown
_FEW_ROWS: Final = 3  # and more are one, in a run of too many, if they were there before
_MOST_RANGES: Final = 4


def text(judged: Sequence[Judged]) -> Iterator[str]:
    """The run that tells most, row by row, and the verdict on all of them.

    Args:
        judged: as `trace.verdicts` or `trace.traces` have them.
    """
    recorded = [each for each in judged if isinstance(each, Traced)]
    shown = next((each for each in recorded if not each.kept), recorded[0])
    yield _scene(shown)
    yield from _rows(shown)
    yield ""
    for each in judged:
        if each is not shown:
            yield from _outcome(each)
    yield _headline(shown)
    for promise in shown.promises:
        yield _broken(promise) if promise.finding.wrong else f"  ok      {_kept(shown, promise)}"


def verdicts(judged: Sequence[Judged]) -> Iterator[str]:
    """Of each run whether the contract was kept, and what was not."""
    for each in judged:
        yield from _outcome(each)


def as_json(traced: list[Traced]) -> list[dict[str, object]]:
    """All of the runs, for programs; addresses and values are numbers."""
    return [
        {
            "source": _name(each),
            "title": each.title,
            "base": each.scene.start.placed[0].base,
            "symbols": dict(each.scene.start.placed[0].symbols),
            "registers": dict(each.scene.start.registers),
            "kept": each.kept,
            "steps": len(each.run.steps),
            "rows": [_json_row(each, node) for node in fold(each.run.steps)],
            "promises": [_json_promise(promise) for promise in each.promises],
        }
        for each in traced
    ]


def _name(judged: Judged) -> str:
    return judged.scene.start.placed[0].binary.name


def _headline(judged: Judged) -> str:
    title = f" ({judged.title})" if judged.title else ""
    return f"{_name(judged)}{title}: contract {'kept' if judged.kept else 'BROKEN'}"


def _outcome(judged: Judged) -> Iterator[str]:
    yield _headline(judged)
    yield from (_broken(promise) for promise in judged.broken)


def _broken(promise: Promise) -> str:
    return f"  BROKEN  {_what(promise)}: {promise}"


def _what(promise: Promise) -> str:
    return f"{promise.finding.keyword:<9} {promise.finding.promise}"


def _scene(traced: Traced) -> str:
    placed = traced.scene.start.placed[0]
    given = {**placed.symbols, **traced.scene.start.registers}
    values = " ".join(f"{name}={value:#x}" for name, value in given.items())
    title = f" ({traced.title})" if traced.title else ""
    return f"{placed.binary.name}{title} at {placed.base:#x}: {values}"


def _rows(traced: Traced) -> Iterator[str]:
    rows = list(_flat(fold(traced.run.steps), 0))
    width = max((len(f"{row.address:x}") for _, row in rows), default=0)
    groups = [[row] for row in rows] if len(rows) <= _MOST_ROWS else list(_grouped(rows))
    half = _MOST_ROWS // 2
    for number, group in enumerate(groups):
        if half <= number < len(groups) - half:
            if number == half:
                yield f"  ... {len(groups) - _MOST_ROWS} more rows ..."
        elif len(group) > 1:
            at = f"{group[0][1].address:0{width}x}"
            yield f"  {at} ... {len(group)} rows of lines shown above ..."
        else:
            [(depth, row)] = group
            yield _row(traced, depth, row, width)


def _grouped(rows: list[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    """Each row, or those in a row, some at least, of instructions that were there before."""
    seen: set[int] = set()
    for is_old, group in itertools.groupby(rows, lambda each: _is_old(each[1], seen)):
        again = list(group)
        if is_old and len(again) >= _FEW_ROWS:
            yield again
        else:
            yield from ([each] for each in again)


def _is_old(row: Row, seen: set[int]) -> bool:
    is_old = row.address in seen
    seen.add(row.address)
    return is_old


def _flat(nodes: list[Node], depth: int) -> Iterator[tuple[int, Row]]:
    for node in nodes:
        if isinstance(node, Loop):
            yield from _flat(node.body, depth + 1)
        else:
            yield depth, node


def _row(traced: Traced, depth: int, row: Row, width: int) -> str:
    placed = traced.run.steps[row.first].activation.placed
    line = where(placed, row.address)
    place = f"{line.file.rpartition('/')[2]}:{line.number}" if line else ""
    source = line.text.partition(";")[0].strip() if line else ""
    times = f"x{row.times}" if row.times > 1 else ""
    left = f"{row.address:0{width}x} {'|' * depth:2} {times:>7} {place:<20} {source:<44}"
    return f"  {left} {'  '.join(_effects(traced, row))}".rstrip()


def _effects(traced: Traced, row: Row) -> Iterator[str]:
    if traced.run.steps[row.first].served:
        yield "the BIOS:"
    for name, (old, new) in _changed(traced, row).items():
        yield f"{name} {old:#x} -> {new:#x}"
    for low, high in row.writes[:_MOST_RANGES]:
        yield f"[{low:#x}..{high:#x}]"
    if len(row.writes) > _MOST_RANGES:
        yield f"and {len(row.writes) - _MOST_RANGES} more ranges"


def _changed(traced: Traced, row: Row) -> dict[str, list[int]]:
    """What an instruction changed, the first or the last time; from what and to what in the end."""
    run = traced.run
    before, after = run.steps[row.first].before, run.snapshot_after(row.last)
    old, new = registers_of(before, run.names), registers_of(after, run.names)
    changed = [
        name
        for index in {row.first, row.last}
        for name in changes(run.steps[index].before, run.snapshot_after(index), run.names)
    ]
    return {name: [old[name], new[name]] for name in dict.fromkeys(changed)}


def _kept(traced: Traced, promise: Promise) -> str:
    finding, what = promise.finding, _what(promise)
    if finding.keyword == "leaves" and finding.register in SEGMENTS:
        return f"{what}{_loaded(traced, finding.register)}"
    return what


def _loaded(traced: Traced, register: str) -> str:
    index = traced.run.last_change(register, len(traced.run.steps))
    if index is None:
        return ", which nothing loads"
    step = traced.run.steps[index]
    line = where(step.activation.placed, step.address)
    return f", loaded at {line.file}:{line.number}" if line else ""


def _json_row(traced: Traced, node: Node) -> dict[str, object]:
    if isinstance(node, Loop):
        return {"body": [_json_row(traced, inner) for inner in node.body]}
    run = traced.run
    line = where(run.steps[node.first].activation.placed, node.address)
    return {
        "address": node.address,
        "times": node.times,
        **({"file": line.file, "line": line.number, "source": line.text} if line else {}),
        "registers": _changed(traced, node),
        "writes": node.writes,
        "bios": run.steps[node.first].served,
    }


def _json_promise(promise: Promise) -> dict[str, object]:
    line = promise.line
    return {
        "keyword": promise.finding.keyword,
        "promise": promise.finding.promise,
        "kept": promise.finding.wrong is None,
        "wrong": promise.finding.wrong,
        "why": promise.why,
        "file": line.file if line else None,
        "line": line.number if line else None,
    }
