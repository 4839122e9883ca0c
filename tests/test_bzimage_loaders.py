"""Kernel images with a head, under other people's loaders: each to the guest's own report.

README.md has a table of what is seen here, and a test holds it to that.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import kexec
import loaders
import pytest
from booting import named, parts, report
from loaders import Loader
from probes import original
from splicing import check_report, spliced

from pybuild import material
from pybuild.material import Workshop

pytestmark = pytest.mark.boot

BUILT_IN, LOADERS_OWN = "built in", "the loader's own"
HOME = 0x100000
MEMTEST_SCREEN = r"Memtest86\+ v"
DEBIAN_CMDLINE = "console=ttyS0 quiet panic=-1"


@dataclass(frozen=True)
class Kind:
    """A kind of kernel, as README's table has it, and how an image of it is held to its report."""

    name: str
    recipe: str
    check: Callable[["Kind", Loader, Workshop, Path], None]

    def __str__(self) -> str:
        return self.name


def boot_probe(kind: Kind, loader: Loader, shop: Workshop, room: Path) -> None:
    """Command line and initrd built in; the loader's command line comes behind."""
    kernel, *_ = parts(named(kind.recipe), shop)
    initrd = room / "built-in"
    initrd.write_bytes(bytes(range(255)) * 501)
    out = room / "spliced.bzImage"
    spliced(kernel, out, cmdline=BUILT_IN, initrd=initrd)
    booted = loader.boot(out, expect="^end=ok", room=room, cmdline=LOADERS_OWN)
    said = report(booted.serial)
    assert said["cmdline"].startswith(f"{BUILT_IN} ")
    assert said["cmdline"].endswith(LOADERS_OWN)
    assert ("setup" in said) is (loader.entry != "16-bit")
    wanted = original(named(kind.recipe))
    check_report(said, wanted, HOME, cmdline=said["cmdline"], initrd=initrd.read_bytes())


def boot_memtest(kind: Kind, loader: Loader, shop: Workshop, room: Path) -> None:
    kernel, *_ = parts(named(kind.recipe), shop)
    out = room / "spliced.bzImage"
    spliced(kernel, out)
    loader.boot(out, expect=MEMTEST_SCREEN, room=room)


def boot_debian(kind: Kind, loader: Loader, shop: Workshop, room: Path) -> None:
    """With the loader's command line and initrd, through an image that has neither."""
    kernel, initrd = parts(named(kind.recipe), shop)
    out = room / "spliced.bzImage"
    spliced(kernel, out)
    booted = loader.boot(
        out, expect="^end=ok", room=room, cmdline=DEBIAN_CMDLINE, initrd=initrd, memory=384
    )
    check_debian(report(booted.serial), ends=DEBIAN_CMDLINE)


def boot_debian_built_in(kind: Kind, loader: Loader, shop: Workshop, room: Path) -> None:
    kernel, initrd = parts(named(kind.recipe), shop)
    out = room / "spliced.bzImage"
    spliced(kernel, out, cmdline=DEBIAN_CMDLINE, initrd=initrd)
    booted = loader.boot(out, expect="^end=ok", room=room, cmdline="loader=1", memory=384)
    check_debian(report(booted.serial), ends="loader=1")


def check_debian(said: dict[str, str], *, ends: str) -> None:
    assert DEBIAN_CMDLINE in said["cmdline"]
    assert said["cmdline"].endswith(ends)
    assert said["payload_sha256"] == hashlib.sha256(material.payload()).hexdigest()


PROBE_32: Final = Kind("probe, 32-bit", "probe-2.10", boot_probe)
PROBE_64: Final = Kind("probe, 64-bit", "probe-64", boot_probe)
MEMTEST_32: Final = Kind("memtest86+ ia32", "memtest86+ia32", boot_memtest)
MEMTEST_64: Final = Kind("memtest86+ x64", "memtest86+x64", boot_memtest)
DEBIAN: Final = Kind("Debian amd64", "debian", boot_debian)
DEBIAN_IN: Final = Kind("Debian amd64, all built in", "debian", boot_debian_built_in)
KINDS: Final = (PROBE_32, PROBE_64, MEMTEST_32, MEMTEST_64, DEBIAN, DEBIAN_IN)

LOADERS: Final = (
    loaders.STOCK,
    loaders.QBOOT,
    loaders.GRUB,
    loaders.GRUB16,
    loaders.ISOLINUX,
    loaders.IPXE,
    kexec.KEXEC,
    kexec.KEXEC_I386,
    kexec.KEXEC_FILE,
    kexec.KEXEC_32,
    kexec.KEXEC_16,
)


@pytest.mark.parametrize("loader", LOADERS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_boots(kind: Kind, loader: Loader, shop: Workshop, tmp_path: Path) -> None:
    kind.check(kind, loader, shop, tmp_path)
