"""The seed's own home: images booted as HVM guests of a real Xen, whose firmware is at 0x100000.

Each boot is one of `bootsplice boot --on xen`: a lab of its own, which starts in 0.1 s.
"""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pairwise
import pytest
from booting import Made, boot_on_xen, make, named, plan, report
from pairwise import Case
from peek import HVMLOADER, with_peek
from probes import check
from qemuguest import PNG

from pybuild import material
from pybuild.bootproto import BZIMAGE_LOAD_ADDRESS
from pybuild.drives import Drive
from pybuild.material import Workshop

# A guest takes 10 s on an idle machine, 60 s with a CD and another test beside it.
pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("xen"),
]

STAGING = 0x200000

# Who moves each kernel from STAGING to where it must run, if it is anybody.
KERNELS: dict[str, str | None] = {
    "probe-bzimage": "hook",
    "memtest86+ia32": "hook",
    "memtest86+x64": "hook",
    "debian": None,
    "ipxe": "early",
}
SLOW = ("probe-bzimage", "memtest86+ia32", "debian", "ipxe")  # and much like the other
DRIVES: list[tuple[str, Drive]] = [("disk", "ide"), ("iso", "cdrom")]
AXES: dict[str, list[str]] = {"vcpus": ["1", "2"], "memory": ["64", "512", "4096"]}
# Debian's needs more than 64; to its screen memtest86+ takes 10 s, but 20 s with 512 and the 32-bit
# one 30 s.
MEMORY = {
    "debian": ["512", "4096"],
    "memtest86+ia32": ["64"],
    "memtest86+x64": ["64", "4096"],
}
SMALL = 128  # MiB, for the same reason, of a guest that a folder is built for

ROWS: list[Case] = [{"kernel": kernel, "drive": drive} for drive in DRIVES for kernel in KERNELS]


def allowed(case: Case) -> bool:
    return case["memory"] in MEMORY.get(str(case["kernel"]), AXES["memory"])


# Too few rows for every pair: each drive by itself, to have every value on each at least.
CASES = [
    case
    for drive in DRIVES
    for case in pairwise.choose([row for row in ROWS if row["drive"] == drive], AXES, allowed)
]


def is_quick(case: Case) -> bool:
    """Of the others `make test` boots the images that target ram makes."""
    return case["kernel"] == "probe-bzimage" and case["drive"] == DRIVES[0]


def name_of(case: Case) -> str:
    kind, _ = cast(tuple[str, Drive], case["drive"])
    return "-".join([str(case["kernel"]), kind, *(str(case[axis]) for axis in AXES)])


def check_debian(log: str, vcpus: str) -> None:
    said = report(log)
    assert said["cmdline"] == named("debian").cmdline
    assert said["payload_sha256"] == hashlib.sha256(material.payload()).hexdigest()
    assert said["cpus"] == vcpus


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak] if name in SLOW else []) for name in KERNELS],
)
def test_ram(name: str, built: Callable[[str], Path], shop: Workshop, tmp_path: Path) -> None:
    """Target ram: hvmloader owns 0x100000 until the boot sector runs; then the kernel does."""
    image = built(f"{name}.xen-hvm")
    each = named(name)
    if name.startswith("memtest"):
        machine = tmp_path / "small.toml"
        machine.write_text(f'base = "xen-hvm"\nram = {SMALL << 20}\n')
        image = make(each, str(machine), tmp_path / "small", {}, shop=shop).path
    planned = plan(image)
    loaded = {load["part"]: load["address"] for load in planned["loads"]}
    assert loaded["kernel"] == STAGING
    moves = [(move["by"], move["src"], move["dst"]) for move in planned["moves"]]
    mover = KERNELS[name]
    assert moves == ([(mover, STAGING, BZIMAGE_LOAD_ADDRESS)] if mover else [])

    log = boot_on_xen(with_peek(image, tmp_path / "image"), each.expect)
    assert report(log)["at_100000"] == HVMLOADER
    if name.startswith("probe"):
        check(each, report(log), planned)
    if name == "debian":
        check_debian(log, vcpus="1")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if is_quick(case) else [pytest.mark.soak]) for case in CASES],
    ids=name_of,
)
def test_disk_and_iso(case: Case, made: Callable[[str, str, str], Made], tmp_path: Path) -> None:
    name, vcpus = str(case["kernel"]), str(case["vcpus"])
    kind, drive = cast(tuple[str, Drive], case["drive"])
    image = made(name, "xen-hvm", kind)
    hardware = ("--memory", str(case["memory"]), "--vcpus", vcpus, "--drive", drive)
    screen = tmp_path / "screen.png"
    log = boot_on_xen(image.path, image.recipe.expect, *hardware, "--screenshot", str(screen))
    assert screen.read_bytes().startswith(PNG)
    if name.startswith("probe"):
        check(image.recipe, report(log), image.plan)
    if name == "debian":
        check_debian(log, vcpus)


def test_the_matrix_has_every_value_on_each_drive() -> None:
    for drive, (axis, values) in itertools.product(DRIVES, AXES.items()):
        assert {case[axis] for case in CASES if case["drive"] == drive} == set(values)
