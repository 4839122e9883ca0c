"""The probe kernels, every variant on both machines: booted in QEMU, held to their own report."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from booting import boot, plan, report
from probes import PROBES, check, original, value

from pybuild.recipe import Recipe

pytestmark = pytest.mark.boot

CASES = [
    (each, image) for each in PROBES for image, of in each.images.items() if of.target == "ram"
]


@pytest.mark.parametrize(("each", "name"), CASES, ids=[name for _, name in CASES])
def test_probe(each: Recipe, name: str, built: Callable[[str], Path]) -> None:
    image = built(name)
    check(each, report(boot(image, each.expect)), plan(image))


@pytest.mark.parametrize("name", ["probe-bzimage.xen-hvm", "probe-zimage.pc", "probe-old.xen-hvm"])
@pytest.mark.parametrize("qemu", ["-M q35", "-cpu 486", "-cpu max", "-m 2G"])
def test_other_hardware(name: str, qemu: str, built: Callable[[str], Path]) -> None:
    each = next(each for each in PROBES if name in each.images)
    said = report(boot(built(name), each.expect, *qemu.split()))
    assert value(said, "crc") == zlib.crc32(original(each).protected)
