"""The pictures of `bootsplice plan` in a browser: how wide their texts really are."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import drawn
import pytest
from booting import named, parts
from drawn import Box
from missing import missing

from pybuild import build
from pybuild.build import Order
from pybuild.drawing import sheet, svgmap
from pybuild.drawing.sheet import Sheet
from pybuild.material import Workshop

pytestmark = pytest.mark.soak

BROWSER: Final = "chromium"
ROUNDED: Final = 1.5  # pixels; the browser gives whole ones
# What each text takes, as the browser lays it out; in the DOM, where --dump-dom prints it.
PAGE: Final = """\
<!doctype html><meta charset="utf-8"><body>%s<pre id="found"></pre><script>
const found = [...document.querySelectorAll("svg")].map(svg => ({
  width: svg.width.baseVal.value, height: svg.height.baseVal.value,
  texts: [...svg.querySelectorAll("text")].map(text => {
    const box = text.getBBox();
    return [text.textContent, box.x, box.y, box.x + box.width, box.y + box.height];
  }),
}));
document.getElementById("found").textContent = JSON.stringify(found);
</script>
"""


def sheets(shop: Workshop, room: Path) -> Iterator[Sheet]:
    memtest, debian, zimage = (
        parts(named(name), shop)[0] for name in ("memtest86+x64", "debian-bzimage", "probe-zimage")
    )
    initrd = room / "initrd"
    initrd.write_bytes(bytes(64 << 20))
    for order in (
        Order(memtest, machine="xen-hvm"),
        Order(memtest, machine="xen-hvm", target="ram"),
        Order(memtest, machine="xen-hvm", target="bzimage"),
        Order(memtest, target="bzimage"),
        Order(debian),
        Order(debian, (initrd,), "x" * 2000),
        Order(debian, (initrd,), target="bzimage"),
        Order(zimage, target="ram", move="early"),
    ):
        yield sheet.of(build.prepare(order), order.target)


def measured(page: Path) -> list[tuple[float, float, list[Box]]]:
    """Of each picture in a page: its width and height, and its texts."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", f"--user-data-dir={page.parent / 'profile'}"]
    run = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout)
    assert found, run.stdout
    return [
        (picture["width"], picture["height"], [Box(*text) for text in picture["texts"]])
        for picture in json.loads(html.unescape(found[1]))
    ]


def test_no_text_is_on_another_or_leaves_the_picture(shop: Workshop, tmp_path: Path) -> None:
    if shutil.which(BROWSER) is None:
        missing(f"{BROWSER} is not installed")
    told = list(sheets(shop, tmp_path))
    for name in ("W" * 200, "mw@%" * 50, 'Wide & <long> "names" 0x12345678 ' * 5, "字" * 99):
        told += [dataclasses.replace(told[number], kernel=name) for number in (0, 4)]
    pictures = [svgmap.render(each) for each in told]
    page = tmp_path / "page.html"
    page.write_text(PAGE % "\n".join(pictures))
    found = measured(page)
    assert len(found) == len(pictures)
    for text, (width, height, boxes) in zip(pictures, found, strict=True):
        drawing = drawn.parse(text)
        assert (width, height) == drawn.size(drawing)
        expected = drawn.texts(drawing)
        assert [box.text for box in boxes] == [box.text for box in expected]
        drawn.check(boxes, width, height)
        for box, most in zip(boxes, expected, strict=True):
            assert most.left <= box.left + ROUNDED, (box, most)
            assert box.right <= most.right + ROUNDED, (box, most)
