"""The probe kernels' images in Bochs: other firmware, and a CPU that does as the manuals say."""

from collections.abc import Callable
from pathlib import Path

import bochs
import pytest
from booting import Made, named, report
from probes import PROBES, check

pytestmark = pytest.mark.boot

PROFILES = ["pc", "xen-hvm"]


@pytest.mark.parametrize(
    ("name", "profile"),
    [(each.name, PROFILES[number % 2]) for number, each in enumerate(PROBES)]
    + [("probe-bzimage", "xen-hvm"), ("probe-zimage", "pc")],
)
def test_disk(
    name: str, profile: str, made: Callable[[str, str, str], Made], tmp_path: Path
) -> None:
    image = made(name, profile, "disk")
    log = bochs.boot(image.path, named(name).expect, tmp_path)
    check(image.recipe, report(log), image.plan)


@pytest.mark.parametrize(
    ("name", "kind", "drive"),
    [
        ("probe-relocatable", "iso", "cdrom"),
        ("probe-zimage", "iso", "cdrom"),
        ("probe-2.10", "iso", "disk"),
        ("probe-2.05", "floppy", "floppy"),
    ],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_other_media(
    name: str,
    kind: str,
    drive: bochs.Kind,
    profile: str,
    made: Callable[[str, str, str], Made],
    tmp_path: Path,
) -> None:
    image = made(name, profile, kind)
    log = bochs.boot(image.path, named(name).expect, tmp_path, kind=drive)
    check(image.recipe, report(log), image.plan)


@pytest.mark.parametrize("cpu", ["pentium", "corei7_skylake_x"])
def test_other_cpus(cpu: str, made: Callable[[str, str, str], Made], tmp_path: Path) -> None:
    image = made("probe-bzimage", "xen-hvm", "disk")
    log = bochs.boot(image.path, image.recipe.expect, tmp_path, megs=16, cpu=cpu)
    check(image.recipe, report(log), image.plan)
