"""Disk images and ISOs, made by `build`, booted by a BIOS: one matrix, to the guest's own report.

Each probe kernel on each drive, each real kernel on some; what else there is of hardware by pairs.
"""

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pairwise
import pytest
from booting import Made, boot, make, named, report
from pairwise import Case
from probes import PROBES, check

from pybuild import initramfs, material
from pybuild.drives import Drive
from pybuild.material import Workshop
from pybuild.recipe import Recipe

pytestmark = pytest.mark.boot

MIB = 1 << 20
FLOPPY_SIZE = 1440 << 10

# What the image is made as, and the drive that the guest finds it in. An ISO is a disk, too.
DRIVES = [
    ("disk", "ide"),
    ("disk", "ahci"),
    ("disk", "virtio"),
    ("disk", "usb"),
    ("floppy", "floppy"),
    ("iso", "cdrom"),
    ("iso", "ide"),
    ("iso", "usb"),
]
AXES: dict[str, list[str]] = {
    "profile": ["pc", "xen-hvm"],
    "machine": ["pc", "q35"],
    "cpu": ["486", "pentium3", "qemu64", "max"],
    "ram": ["16M", "64M", "512M", "3G"],
}
# Of these a real kernel takes only some, however it is booted; and a 64-bit one our loader refuses
# to start where there is no long mode.
CPUS = {
    "probe-64": ["qemu64", "max"],
    "memtest86+ia32": ["pentium3", "qemu64", "max"],
    "memtest86+x64": ["qemu64", "max"],
    "debian": ["qemu64", "max"],
    "ipxe": ["pentium3", "qemu64", "max"],
}
RAM = {
    "debian": ["512M", "3G"],
    "memtest86+ia32": ["16M", "64M"],
    "memtest86+x64": ["16M", "64M", "3G"],
}
# To its banner memtest86+ takes 1 s, but 10 s with 256 MB or more (the 32-bit one 20 s), Debian
# takes 3 s, all others less than one.
REAL = {
    "memtest86+ia32": DRIVES[0::2],
    "memtest86+x64": DRIVES[1::2],
    "debian": [drive for drive in DRIVES if drive[0] != "floppy"],
    "ipxe": DRIVES,
    "memdisk": [drive for drive in DRIVES if drive[0] != "floppy"],
}
LARGE_PAYLOAD = 64 * MIB


def allowed(case: Case) -> bool:
    kernel = str(case["kernel"])
    cpus, ram = CPUS.get(kernel, AXES["cpu"]), RAM.get(kernel, AXES["ram"])
    return case["cpu"] in cpus and case["ram"] in ram


def fits_a_floppy(each: Recipe) -> bool:
    kernel = cast(dict[str, Any], each.kernel)
    return int(kernel["defines"]["PM_SIZE"]) < FLOPPY_SIZE * 9 // 10


PROBE_ROWS: list[Case] = [
    {"kernel": each.name, "drive": drive}
    for each in PROBES
    for drive in DRIVES
    if drive[0] != "floppy" or fits_a_floppy(each)
]
PROBE_CASES = pairwise.choose(PROBE_ROWS, AXES, allowed)
# Too few rows for every pair: each kernel by itself, to have every value at least.
REAL_CASES = [
    case
    for kernel, drives in REAL.items()
    for case in pairwise.choose(
        [{"kernel": kernel, "drive": drive} for drive in drives], AXES, allowed
    )
]


def is_slow(case: Case) -> bool:
    """`make test` boots the quick ones, and Debian's kernel from each kind of image."""
    if case["kernel"] == "debian":
        return case["drive"] not in (("disk", "ahci"), ("iso", "cdrom"))
    return case["kernel"] == "memtest86+x64" and case["ram"] == "3G"


def name_of(case: Case) -> str:
    kind, drive = cast(tuple[str, str], case["drive"])
    return "-".join([str(case["kernel"]), kind, drive, *(str(case[axis]) for axis in AXES)])


def run(case: Case, made: Callable[[str, str, str], Made]) -> tuple[Made, str]:
    kind, drive = cast(tuple[str, Drive], case["drive"])
    image = made(str(case["kernel"]), str(case["profile"]), kind)
    hardware = ["-M", case["machine"], "-cpu", case["cpu"], "-m", case["ram"]]
    return image, boot(image.path, image.recipe.expect, *map(str, hardware), drive=drive)


@pytest.mark.parametrize("case", PROBE_CASES, ids=name_of)
def test_probe(case: Case, made: Callable[[str, str, str], Made]) -> None:
    image, log = run(case, made)
    check(image.recipe, report(log), image.plan)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.soak] if is_slow(case) else []) for case in REAL_CASES],
    ids=name_of,
)
def test_real(case: Case, made: Callable[[str, str, str], Made]) -> None:
    image, log = run(case, made)
    said = report(log)
    if case["kernel"] == "debian":
        assert said["cmdline"] == image.recipe.cmdline
        assert said["payload_sha256"] == hashlib.sha256(material.payload()).hexdigest()
    if case["kernel"] == "memdisk":
        assert said["last_sector"] == "right"
    moved = case["profile"] == "xen-hvm" and case["kernel"] != "debian"
    assert bool(image.plan["moves"]) is moved


def test_the_matrix_has_every_pair() -> None:
    """Or a change to the axes could leave out what it was to add."""
    every: set[object] = set()
    for row in PROBE_ROWS:
        for values in itertools.product(*AXES.values()):
            case = {**row, **dict(zip(AXES, values, strict=True))}
            every.update(pairwise.pairs(case) if allowed(case) else ())
    assert {pair for case in PROBE_CASES for pair in pairwise.pairs(case)} == every


@pytest.mark.parametrize("kernel", REAL)
def test_the_matrix_has_every_value(kernel: str) -> None:
    cases = [case for case in REAL_CASES if case["kernel"] == kernel]
    every = {**AXES, "cpu": CPUS.get(kernel, AXES["cpu"]), "ram": RAM.get(kernel, AXES["ram"])}
    for axis, values in every.items():
        assert {case[axis] for case in cases} == set(values)


@dataclass(frozen=True)
class Large:
    """Images of Debian's kernel with 64 MB in a further initrd, that replaces the payload."""

    images: dict[str, Path]
    sha256: str


@pytest.fixture(scope="module")
def large(
    built: Callable[[str], Path], shop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Large]:
    built("debian.pc")
    folder = tmp_path_factory.mktemp("large")
    payload = hashlib.shake_256(b"large").digest(LARGE_PAYLOAD)
    more = folder / "more.cpio"
    more.write_bytes(initramfs.newc([initramfs.File("payload", 0o644, payload)]))
    images = {
        out: make(named("debian"), "pc", folder / out, {}, shop=shop, more=(more,)).path
        for out in ("large.img", "large.iso")
    }
    yield Large(images, hashlib.sha256(payload).hexdigest())
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("out", "drive", "machine"),
    [
        ("large.img", "ide", "pc"),
        pytest.param("large.img", "ahci", "q35", marks=pytest.mark.soak),
        pytest.param("large.img", "virtio", "q35", marks=pytest.mark.soak),
        pytest.param("large.img", "usb", "pc", marks=pytest.mark.soak),
        ("large.iso", "cdrom", "q35"),
        pytest.param("large.iso", "ide", "pc", marks=pytest.mark.soak),
    ],
)
def test_large_initramfs(out: str, drive: Drive, machine: str, large: Large) -> None:
    """The guest prints the checksum of its payload."""
    said = report(boot(large.images[out], "^end=ok", "-M", machine, drive=drive))
    assert said["payload_sha256"] == large.sha256
