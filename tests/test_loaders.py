"""The originals under other people's loaders: what bootsplice's images are held to beside them."""

import zlib
from collections.abc import Container, Iterable
from pathlib import Path

import kexec
import loaders
import pytest
from booting import named, parts, report
from loaders import Loader
from probes import original, value

from pybuild import paths
from pybuild.material import Workshop

pytestmark = pytest.mark.boot

CMDLINE = "probe=1 hello world"
INITRD = paths.ROOT / "LICENSE"

# Where each puts a relocatable kernel that wants to be aligned to 2 MiB, if not at 0x100000.
ELSEWHERE = {
    loaders.GRUB_CUT: 0x1000000,
    kexec.KEXEC: 0x200000,
    kexec.KEXEC_I386: 0x200000,
    kexec.KEXEC_32: 0x200000,
    kexec.KEXEC_16: 0x200000,
    kexec.KEXEC_HOLE: 0x1000000,
    kexec.KEXEC_HOLE_I386: 0x1000000,
    kexec.KEXEC_CRASH: 0x4000000,
    kexec.KEXEC_CRASH_I386: 0x4000000,
}
# What those say that don't take every kernel, if one is not relocatable or has no 64-bit entry.
REFUSALS = {
    kexec.KEXEC_HOLE: "Invalid memory segment 0x100000",
    kexec.KEXEC_HOLE_I386: "Invalid memory segment 0x100000",
    kexec.KEXEC_CRASH: "BzImage is not relocatable",
    kexec.KEXEC_CRASH_I386: "BzImage is not relocatable",
    kexec.KEXEC_FILE: "locate_hole failed",
}
TAKE_ANY = [loader for loader in (*loaders.ALL, *kexec.ALL) if loader not in REFUSALS]
# A Linux takes 2 s to its kexec, i386's 4 s: of each kind one is enough for `make test`.
SLOW = {
    kexec.KEXEC_16,
    kexec.KEXEC_32,
    kexec.KEXEC_FILE,
    kexec.KEXEC_HOLE_I386,
    kexec.KEXEC_CRASH_I386,
}


def rows(each: Iterable[Loader], *, slow: Container[Loader] = SLOW) -> list[object]:
    """Loaders as a test's parameters; the slow ones wait for `make soak`."""
    return [
        pytest.param(loader, id=str(loader), marks=[pytest.mark.soak] if loader in slow else [])
        for loader in each
    ]


def run(loader: Loader, name: str, shop: Workshop, room: Path) -> dict[str, str]:
    """Boots a probe, and has its report: kernel, command line and initrd have arrived."""
    kernel = parts(named(name), shop)[0]
    log = loader.boot(kernel, expect="^end=ok", room=room, initrd=INITRD, cmdline=CMDLINE).serial
    said = report(log)
    assert value(said, "crc") == zlib.crc32(original(named(name)).protected)
    assert f" {CMDLINE} " in f" {said['cmdline']} "
    if loader.loses_initrd:
        assert value(said, "ramdisk_size") == 0
    else:
        assert value(said, "initrd_crc") == zlib.crc32(INITRD.read_bytes())
    assert ("setup" in said) is (loader.entry != "16-bit")
    return said


@pytest.mark.parametrize("loader", rows(TAKE_ANY))
def test_a_kernel_that_runs_at_one_address(loader: Loader, shop: Workshop, tmp_path: Path) -> None:
    assert value(run(loader, "probe-2.10", shop, tmp_path), "run") == 0x100000


@pytest.mark.parametrize(
    "loader",
    rows(
        {**dict.fromkeys(loaders.ALL), **ELSEWHERE},
        slow={*SLOW, loaders.U_BOOT, kexec.KEXEC, kexec.KEXEC_I386},
    ),
)
def test_a_relocatable_kernel(loader: Loader, shop: Workshop, tmp_path: Path) -> None:
    said = run(loader, "probe-relocatable", shop, tmp_path)
    assert value(said, "run") == ELSEWHERE.get(loader, 0x100000)


@pytest.mark.parametrize("loader", rows(REFUSALS))
def test_a_kernel_is_refused(loader: Loader, shop: Workshop, tmp_path: Path) -> None:
    kernel = parts(named("probe-2.10"), shop)[0]
    said = loader.boot(kernel, expect="kexec=refused", room=tmp_path, cmdline=CMDLINE).serial
    assert REFUSALS[loader] in said


@pytest.mark.soak
@pytest.mark.parametrize("memory", [512, 5120])
@pytest.mark.parametrize("loader", [kexec.KEXEC, kexec.KEXEC_FILE], ids=str)
def test_a_kernel_with_a_64_bit_entry(
    loader: Loader, memory: int, shop: Workshop, tmp_path: Path
) -> None:
    """Debian's, at the end of RAM, above 4 GiB, too."""
    each = named("debian")
    kernel, initrd = parts(each, shop)
    loader.boot(
        kernel,
        expect=each.expect,
        room=tmp_path,
        initrd=initrd,
        cmdline=each.cmdline,
        memory=memory,
    )
