"""What an image that bootsplice built is, for a person and for a program."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from pybuild import report, words
from pybuild.partitions import Table
from pybuild.reading.found import Change, Image, Part, Sum

_WIDTH: Final = 80  # of a line with symbols
_OTHER: Final = "not this version's code: its symbols cannot be read"


def describe(image: Image) -> dict[str, object]:
    """Everything that `inspect --json` prints; offsets and sizes are bytes, addresses physical."""
    return {
        "file": image.path,
        "size": image.size,
        "kind": image.kind,
        "recognised": image.mark,
        "damage": damage(image),
        "parts": [_part(part) for part in image.parts],
        "cmdline": image.cmdline,
        "kernel": {
            **report.identity(image.kernel),
            "setup_size": image.kernel.setup_size,
            "fields": report.fields(image.kernel),
        }
        if image.kernel
        else None,
        "changes": [
            {"field": change.field, "old": change.old, "new": change.new}
            for change in image.changes
        ],
        "partitions": _table(image.table) if image.table else None,
        "saved": {
            "lba": image.record.own.start,
            "sectors": image.record.own.size,
            "claimed": image.record.claimed.size,
        }
        if image.record
        else None,
        "files": [
            {"path": file.path, "offset": file.offset, "size": file.size} for file in image.files
        ],
        "arguments": list(image.arguments),
        "facts": dict(image.facts),
    }


def damage(image: Image) -> list[str]:
    """What is wrong, a line each."""
    found = list(image.damage)
    for part in image.parts:
        if part.damage:
            found += [f"{part.name}: {each}" for each in part.damage]
        elif part.sum is not None and not part.sum.holds:
            found.append(f"{part.name}: {_checksum(part.sum)}")
    return [words.harmless(line) for line in found]


def text(image: Image) -> str:
    """What `inspect` shows: a summary, the parts, the symbols, the header, the damage."""
    wrong = damage(image)
    summary = list(_summary(image, wrong))
    wide = max(10, *(len(name) for name, _ in summary))
    lines = [f"{name:<{wide}} {value}".rstrip() for name, value in summary]
    lines += ["", f"{'offset':<11} {'size':<11} {'address':<11} {'checksum':<18} part"]
    lines += [_line(part) for part in image.parts]
    lines += ["", "symbols"]
    lines += _symbols(image.parts)
    if image.changes:
        lines += ["", f"{'field':<22} {'was':<18} is"]
        lines += [_change(change) for change in image.changes]
    if image.files:
        lines += ["", f"{'offset':<11} {'size':<11} file"]
        lines += [f"{file.offset:<#11x} {file.size:<11} {file.path}" for file in image.files]
    lines += [f"DAMAGED: {each}" for each in wrong]
    return words.harmless("\n".join(lines))


def _summary(image: Image, wrong: list[str]) -> Iterator[tuple[str, str]]:
    checked = sum(1 for part in image.parts if part.sum is not None)
    yield "file", f"{image.path}, {image.size} bytes"
    yield "image", f"{image.kind}: {image.mark}"
    if wrong:
        yield "state", "DAMAGED, see below"
    else:
        yield "state", f"whole: {checked} checksums hold" if checked else "no fault; no checksums"
    if image.kernel:
        yield from report.summary(image.kernel).items()
    if image.cmdline is not None:
        yield "cmdline", image.cmdline
    if image.table:
        for each in image.table.partitions:
            active = ", active" if each.active else ""
            yield (
                f"{image.table.scheme} {each.number}",
                f"sectors {each.start} to {each.start + each.sectors - 1}, "
                f"type {each.type}{active}",
            )
    if image.record:
        own = image.record.own
        yield "saved", f"the boot sector before, in sector {own.start}; ours up to {own.end - 1}"
    for name, value in image.facts.items():
        shown = f"{value:#x}" if isinstance(value, int) else value
        yield name.replace("_", " "), shown
    for argument in image.arguments:
        yield "qemu", argument


def _line(part: Part) -> str:
    offset = "memory" if part.offset is None else f"{part.offset:#x}"
    address = "-" if part.address is None else f"{part.address:#x}"
    state = "-"
    if part.sum is not None:
        state = f"{part.sum.stored:#010x} {'ok' if part.sum.holds else 'DAMAGED'}"
    elif part.damage:
        state = "DAMAGED"
    return f"{offset:<11} {part.size:<11} {address:<11} {state:<18} {part.name}"


def _symbols(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        for code in part.code:
            if code.symbols is None:
                yield f"{code.source:<18} {_OTHER}"
            else:
                values = " ".join(f"{name}={value:#x}" for name, value in code.symbols.items())
                indent = " " * 19
                yield textwrap.fill(
                    f"{code.source:<18} {values}",
                    _WIDTH,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )


def _change(change: Change) -> str:
    old = "?" if change.old is None else f"{change.old:#x}"
    return f"{change.field:<22} {old:<18} {change.new:#x}"


def _checksum(found: Sum) -> str:
    if found.computed is None:
        return f"{found.method} {found.stored:#010x} cannot be verified"
    return f"{found.method} is {found.computed:#010x}, expected {found.stored:#010x}"


def _part(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "offset": part.offset,
        "size": part.size,
        "address": part.address,
        "checksum": {
            "method": part.sum.method,
            "stored": part.sum.stored,
            "computed": part.sum.computed,
            "holds": part.sum.holds,
        }
        if part.sum
        else None,
        "code": [
            {"source": code.source, "symbols": None if code.symbols is None else {**code.symbols}}
            for code in part.code
        ],
        "damage": list(part.damage),
    }


def _table(table: Table) -> dict[str, object]:
    return {
        "scheme": table.scheme,
        "partitions": [
            {
                "number": each.number,
                "start": each.start,
                "sectors": each.sectors,
                "type": each.type,
                "active": each.active,
            }
            for each in table.partitions
        ],
    }
