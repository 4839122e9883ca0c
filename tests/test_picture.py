"""The picture of a plan, for any plan that the planner makes."""

import dataclasses
from typing import Final

import drawn
import pytest
from fakekernel import image
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_headplan import kernels as images
from test_layout import PC, XEN, request
from test_layout_any import kernels, machines

from pybuild.drawing import picture, sheet, svgmap, textmap, textwidth
from pybuild.drawing.picture import size_text
from pybuild.drawing.sheet import Sheet
from pybuild.emulate.headimage import Made
from pybuild.errors import InputError
from pybuild.kernel import Kernel, parse
from pybuild.layout import place
from pybuild.machine import Machine
from pybuild.phases import Phase
from pybuild.protected import CODE_ALIGNMENT
from pybuild.regions import Region

WIDTH: Final = 80
NARROW: Final = 60  # the least for three columns
NAMES: Final = st.text(max_size=200) | st.text(
    "WMm@\N{CJK UNIFIED IDEOGRAPH-5B57}<&\"'>", max_size=99
)


def check_svg(told: Sheet) -> None:
    drawing = drawn.parse(svgmap.render(told))
    drawn.check(drawn.texts(drawing), *drawn.size(drawing))
    shown = [int(label, 0) for label in drawn.addresses(drawing)]
    assert shown == sorted(shown)
    for column in told.picture.columns:
        for row in column.rows:
            assert row.region.start in shown, row
            # What only aligns the next row is not worth a line.
            assert any(0 <= each - row.region.end < CODE_ALIGNMENT for each in shown), row
    assert drawn.arrows(drawing) == len(told.moves)


def check_text(told: Sheet) -> None:
    for ascii_only, width in ((False, NARROW), (False, 200), (True, WIDTH)):
        drawing = textmap.render(told.picture, width, ascii_only=ascii_only)
        lines = drawing.plain.splitlines()
        assert max(map(len, lines)) <= width
        assert not ascii_only or "".join(lines).isascii()
        found = [int(line.split()[0], 0) for line in lines if line.startswith("0x")]
        assert found == [stretch.start for stretch in told.picture.stretches] + [told.picture.top]
        heads, tails = ("◄", "─") if not ascii_only else ("<", "-")
        assert sum(line.count(heads) for line in lines) == len(told.moves), lines
        assert ascii_only or sum(line.count(tails) for line in lines) == len(told.moves)


@settings(max_examples=100, derandomize=True)
@given(
    image=kernels(),
    target=machines(),
    initrds=st.lists(st.integers(0, 8 << 20), max_size=2),
    before_firmware=st.booleans(),
    name=NAMES,
)
def test_any_plan_has_a_picture(
    image: Kernel, target: Machine, initrds: list[int], before_firmware: bool, name: str
) -> None:
    asked = request(*initrds, before_firmware=before_firmware)
    try:
        plan = place(image, target, asked)
    except InputError:
        assume(False)
    told = sheet.of_plan(plan, target, asked.busy(target))
    told = dataclasses.replace(told, kernel=name)
    check_svg(told)
    check_text(told)
    for column in told.picture.columns:
        regions = [row.region for row in column.rows if row.kind not in ("firmware", "left")]
        assert not any(
            one.overlaps(other) for n, one in enumerate(regions) for other in regions[n + 1 :]
        )
    assert all(part.why for part in told.parts)
    assert all(patch.why for patch in told.patches)


@settings(max_examples=60, derandomize=True)
@given(made=images(), target=machines())
def test_any_image_that_moves_itself_has_a_picture(made: Made, target: Machine) -> None:
    try:
        told = sheet.of_head(made.plan, target)
    except InputError:
        told = sheet.of_head(made.plan, PC)
    check_svg(told)
    check_text(told)
    assert all(part.why for part in told.parts)
    assert all(patch.why for patch in told.patches)


def test_rows_that_overlap_are_side_by_side() -> None:
    source, goal = Region("kernel", 0x3000, 0x7000), Region("kernel's destination", 0x1000, 0x5000)
    other = Region("initrd", 0x9000, 0xA000)
    drawing = picture.draw([Phase("now", (goal, other), (), ((source, goal),))], 0x10000, "end")
    (column,) = drawing.columns
    found = {(row.region.name, row.kind): (row.lane, row.lanes) for row in column.rows}
    assert found == {
        ("kernel's destination", "kernel"): (0, 2),
        ("kernel", "left"): (1, 2),
        ("initrd", "data"): (0, 1),
    }
    assert [(s.start, s.end, s.is_free) for s in drawing.stretches] == [
        (0, 0x1000, True),
        (0x1000, 0x3000, False),
        (0x3000, 0x5000, False),
        (0x5000, 0x7000, False),
        (0x7000, 0x9000, True),
        (0x9000, 0xA000, False),
        (0xA000, 0x10000, True),
    ]
    three = dataclasses.replace(drawing, columns=(column, column, column))
    lines = textmap.render(three, 78).plain.splitlines()
    assert "  █ dst              ◄┐ █ dst " in lines[2]
    assert "  █        ▒ src     ─┘ █        ▒ src " in lines[3]


def test_what_is_not_ours_is_shown_once() -> None:
    """The first of two that overlap has what they share; beyond the top there is nothing."""
    theirs = (Region("a", 0x2000, 0x3000), Region("b", 0x1000, 0x5000), Region("c", 0x9000, 0xA000))
    drawing = picture.draw([Phase("now", (), theirs)], 0x4000, "end")
    rows = [(row.region.name, row.region.start, row.region.end) for row in drawing.columns[0].rows]
    assert rows == [("b", 0x1000, 0x2000), ("a", 0x2000, 0x3000), ("b", 0x3000, 0x4000)]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "1 byte"),
        (107, "107 bytes"),
        (1536, "1.5 KiB"),
        (142776, "139.4 KiB"),
        (1 << 26, "64 MiB"),
    ],
)
def test_sizes_for_a_person(size: int, text: str) -> None:
    assert size_text(size) == text


@given(
    words=st.lists(st.text("aWm0", min_size=1, max_size=9), min_size=1, max_size=30),
    room=st.integers(120, 400),
    most=st.integers(1, 3),
)
def test_a_text_in_lines(words: list[str], room: int, most: int) -> None:
    """Nothing of it is lost but what the last line has no room for."""
    text = " ".join(words)
    lines = textwidth.wrapped(text, room, 12, most)
    assert len(lines) <= most
    assert all(textwidth.width(line, 12) <= room for line in lines)
    shown = " ".join(lines)
    assert text == shown or (shown.endswith("…") and text.startswith(shown[:-1]))


def test_a_name_that_xml_cannot_hold() -> None:
    plan = place(parse("a\x01\udc80&<b", image()), XEN, request())
    told = sheet.of_plan(plan, XEN, request().busy(XEN))
    check_svg(told)
    text = svgmap.render(told)
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}&amp;&lt;b on " in text
    assert text.encode()
