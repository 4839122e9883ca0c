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
from fakekernel import probe
from loaders import Entry, Loader
from probes import original
from splicing import check_report, spliced

from pybuild import material, paths
from pybuild.material import Workshop

pytestmark = pytest.mark.boot

BUILT_IN, LOADERS_OWN = "built=in", "loaders=own"
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
    assert LOADERS_OWN in said["cmdline"].split()
    assert said["entered"] == entry(kind, loader).removesuffix("-bit")
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
    text = debian_cmdline(loader)
    booted = loader.boot(out, expect="^end=ok", room=room, cmdline=text, initrd=initrd, memory=512)
    check_debian(report(booted.serial), text)


def boot_debian_built_in(kind: Kind, loader: Loader, shop: Workshop, room: Path) -> None:
    kernel, initrd = parts(named(kind.recipe), shop)
    out = room / "spliced.bzImage"
    text = debian_cmdline(loader)
    spliced(kernel, out, cmdline=text, initrd=initrd)
    booted = loader.boot(out, expect="^end=ok", room=room, cmdline=LOADERS_OWN, memory=512)
    said = report(booted.serial)
    check_debian(said, text)
    assert said["cmdline"].startswith(text)
    assert LOADERS_OWN in said["cmdline"].split()


def debian_cmdline(loader: Loader) -> str:
    """On microvm this kernel has nothing to measure its clock by, and on a busy host it hangs."""
    return DEBIAN_CMDLINE + (" tsc_early_khz=2000000" if loader is loaders.QBOOT else "")


def check_debian(said: dict[str, str], text: str) -> None:
    assert text in said["cmdline"]
    assert said["payload_sha256"] == hashlib.sha256(material.payload()).hexdigest()


PROBE_32: Final = Kind("probe, 32-bit", "probe-2.10", boot_probe)
PROBE_64: Final = Kind("probe, 64-bit", "probe-64", boot_probe)
MEMTEST_32: Final = Kind("memtest86+ ia32", "memtest86+ia32", boot_memtest)
MEMTEST_64: Final = Kind("memtest86+ x64", "memtest86+x64", boot_memtest)
DEBIAN: Final = Kind("Debian amd64", "debian", boot_debian)
DEBIAN_IN: Final = Kind("Debian amd64, all built in", "debian", boot_debian_built_in)
KINDS: Final = (PROBE_32, PROBE_64, MEMTEST_32, MEMTEST_64, DEBIAN, DEBIAN_IN)

# By README's names.
LOADERS: Final = {
    loaders.STOCK: "QEMU `-kernel`, SeaBIOS",
    loaders.QBOOT: "QEMU `-kernel`, microvm (qboot)",
    loaders.GRUB: "GRUB `linux`",
    loaders.GRUB16: "GRUB `linux16`",
    loaders.ISOLINUX: "ISOLINUX",
    loaders.IPXE: "iPXE",
    loaders.U_BOOT: "U-Boot",
    kexec.KEXEC: "kexec, from amd64",
    kexec.KEXEC_32: "kexec `--entry-32bit`",
    kexec.KEXEC_16: "kexec `--real-mode`",
    kexec.KEXEC_MEM_MIN: "kexec `--mem-min` 32 MiB",
    kexec.KEXEC_FILE: "kexec `--kexec-file-syscall`",
    kexec.KEXEC_I386: "kexec, from i386",
}
# What cannot be: the reason stands in README.
NOT: Final = {
    *((kind, loaders.U_BOOT) for kind in (MEMTEST_32, MEMTEST_64, DEBIAN, DEBIAN_IN)),
    *((kind, kexec.KEXEC_16) for kind in (DEBIAN, DEBIAN_IN)),
    *((kind, kexec.KEXEC_MEM_MIN) for kind in (PROBE_32, MEMTEST_32)),
    *((kind, kexec.KEXEC_FILE) for kind in (PROBE_32, MEMTEST_32)),
}
# What has to do for `make test`; the others are for `make soak`.
QUICK: Final = {
    *((PROBE_32, loader) for loader in (*loaders.ALL, kexec.KEXEC_I386)),
    *((PROBE_64, loader) for loader in (loaders.QBOOT, kexec.KEXEC, kexec.KEXEC_MEM_MIN)),
    *((MEMTEST_32, loader) for loader in (loaders.STOCK, loaders.GRUB)),
    *((MEMTEST_64, loader) for loader in (loaders.GRUB16, loaders.ISOLINUX)),
    (DEBIAN, loaders.STOCK),
}


def entry(kind: Kind, loader: Loader) -> Entry:
    """Where a loader enters an image of such a kernel: kexec asks xloadflags."""
    if kind in (PROBE_32, MEMTEST_32) or loader not in SIXTY_FOUR:
        return loader.entry
    return "64-bit"


SIXTY_FOUR: Final = (kexec.KEXEC, kexec.KEXEC_MEM_MIN, kexec.KEXEC_FILE)
SOAK: Final[tuple[list[pytest.MarkDecorator], ...]] = ([], [pytest.mark.soak])
CASES: Final = [(kind, loader) for kind in KINDS for loader in LOADERS if (kind, loader) not in NOT]


@pytest.mark.parametrize(
    ("kind", "loader"),
    [
        pytest.param(
            *case, id=f"{case[0]}-{case[1]}", marks=[] if case in QUICK else pytest.mark.soak
        )
        for case in CASES
    ],
)
def test_it_boots(kind: Kind, loader: Loader, shop: Workshop, tmp_path: Path) -> None:
    kind.check(kind, loader, shop, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("loader", [loaders.RESCUE, loaders.RESCUE16], ids=str)
@pytest.mark.parametrize("kind", [PROBE_32, PROBE_64, DEBIAN_IN], ids=str)
def test_grub_as_it_is_installed(
    kind: Kind, loader: Loader, shop: Workshop, tmp_path: Path
) -> None:
    """From an ISO by grub-mkrescue, with all of its modules and a grub.cfg."""
    kind.check(kind, loader, shop, tmp_path)


def test_the_table_in_the_readme_is_what_is_tested() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in (paths.ROOT / "README.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    heading = next(n for n, row in enumerate(rows) if row[:2] == ["loader", "entry"])
    assert rows[heading][2:] == [kind.name for kind in KINDS]
    table = {row[0]: row[1:] for row in rows[heading + 2 :][: len(LOADERS)]}
    assert set(table) == set(LOADERS.values())
    for loader, name in LOADERS.items():
        entries, *cells = table[name]
        seen = {entry(kind, loader) for kind in KINDS if (kind, loader) in CASES}
        assert entries == ", ".join(sorted(seen))
        for kind, cell in zip(KINDS, cells, strict=True):
            assert cell.startswith("yes") is ((kind, loader) in CASES), (name, kind)


@pytest.mark.parametrize("is_spliced", [False, True], ids=["original", "with a head"])
def test_kexec_puts_a_64_bit_kernel_anywhere(is_spliced: bool, tmp_path: Path) -> None:
    """One that is not relocatable, too, as near to the end of RAM as it can."""
    kernel = probe("2.10", tmp_path, PROTOCOL=0x20F, KERNEL_64=1, ABOVE_4G=1, PM_SIZE=70001)
    if is_spliced:
        spliced(kernel, kernel := tmp_path / "spliced.bzImage")
    booted = kexec.KEXEC.boot(kernel, expect="^end=ok", room=tmp_path)
    runs = int(report(booted.serial)["run"], 0)
    assert runs == HOME if is_spliced else runs > 16 * HOME


@pytest.mark.parametrize(
    "loader", [kexec.KEXEC_HOLE, pytest.param(kexec.KEXEC_CRASH, marks=pytest.mark.soak)], ids=str
)
def test_where_there_is_no_ram_the_head_says_so(
    loader: Loader, shop: Workshop, tmp_path: Path
) -> None:
    """kexec refuses the original there, see test_loaders.py."""
    kernel, *_ = parts(named("probe-2.10"), shop)
    out = tmp_path / "spliced.bzImage"
    spliced(kernel, out)
    text = "bootsplice: there is no RAM where this kernel needs it: 0x100000 to 0x"
    loader.boot(out, expect=text, room=tmp_path)
