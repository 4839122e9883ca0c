"""What `bootsplice plan` prints for a person."""

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pybuild import words
from pybuild.drawing import picture, textmap
from pybuild.drawing.sheet import Sheet


def show(sheet: Sheet, console: Console) -> None:
    """Prints the sheet."""
    console.print(_text(f"{sheet.kernel} on {sheet.machine}: {sheet.summary}", "bold"))
    console.print(_text(sheet.reason))
    console.print()
    ascii_only = console.options.ascii_only
    drawing = textmap.render(sheet.picture, console.width, ascii_only=ascii_only)
    console.print(drawing, no_wrap=True, overflow="crop")
    for title, lines in _facts(sheet):
        console.print(_text(f"\n{title}", "bold"))
        for line in lines:
            console.print(_text(textwrap.indent(textwrap.fill(line, console.width - 2), "  ")))
    for title, heads, rows in _tables(sheet):
        if rows:
            console.print(_text(f"\n{title}", "bold"))
            console.print(_table(heads, rows))


def _text(text: str, style: str = "") -> Text:
    """A text as it may be shown: names of files and machines can hold anything."""
    return Text(words.harmless(text), style)


def _facts(sheet: Sheet) -> Iterable[tuple[str, Sequence[str]]]:
    for move in sheet.moves:
        lines = [f"src={move['src']:#x}  dst={move['dst']:#x}  len={move['len']:#x}"]
        if "relocator" in move:
            then = f"it puts code32_start back: {move['code32_start']:#x}"
            if move["by"] == "early":
                then = "it returns to the early stage"
            lines.append(
                f"relocator: {move['relocator_size']} bytes at {move['relocator']:#x}; {then}"
            )
            lines.append(f"entered by: {move['by']}, {move['reason']}")
        yield f"Move of the {move['what']}", lines
    if sheet.entry:
        yield f"Entry of {sheet.entry_is}", [_values(sheet.entry)]
    if sheet.kernel_entry:
        yield "Entry of the kernel, by the relocator", [_values(sheet.kernel_entry)]
    yield "Notes, as build has them", sheet.notes


def _values(entry: Mapping[str, int | str]) -> str:
    """Registers, neighbours of one value together; those that are unchanged at the end."""
    known = {name: value for name, value in entry.items() if isinstance(value, int)}
    told = [
        f"{'='.join(names)}={value:#x}"
        for value, names in itertools.groupby(known, known.__getitem__)
    ]
    same = " ".join(name for name in entry if name not in known)
    return "  ".join([*told, *([f"unchanged: {same}"] if same else [])])


def _tables(sheet: Sheet) -> Iterable[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    yield (
        "What goes where, and by which rule (sizes in bytes)",
        ("", "loaded at", "used at", "size", "rule"),
        [
            (
                picture.label(part.name),
                "" if part.loaded_at is None else f"{part.loaded_at:#x}",
                f"{part.runs_at:#x}",
                str(part.size),
                part.why,
            )
            for part in sheet.parts
        ],
    )
    yield (
        "Header fields that change",
        ("field", "offset", "old", "new", "why"),
        [
            (patch.field, f"{patch.offset:#x}", f"{patch.old:#x}", f"{patch.new:#x}", patch.why)
            for patch in sheet.patches
        ],
    )
    yield (
        f"What is not ours, by machine profile {sheet.machine}",
        ("from", "to", "what", "when"),
        [
            (
                f"{taken.start:#x}",
                f"{taken.end:#x}",
                taken.name,
                "always" if len(taken.when) == len(sheet.picture.columns) else taken.when[0],
            )
            for taken in sheet.taken
        ],
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head == "size" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    return table
