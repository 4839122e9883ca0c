"""Kernels with a head put in, started as EFI programs by OVMF."""

from collections.abc import Callable
from pathlib import Path

import ovmf
import pytest
from booting import named, report
from efikernel import real, with_head
from ovmf import Entry
from splicing import spliced

from pybuild.material import Workshop, make

pytestmark = pytest.mark.boot

TAIL = b"tail" * 100_000  # lies where, in memory, the kernel's .bss would begin
MEMTEST_SCREEN = r"Memtest86\+ v"
MEMTEST_RAM = ("-m", "128M")  # the less, the sooner


@pytest.fixture(scope="session")
def initrd(built: Callable[[str], Path], shop: Workshop) -> Path:
    """The initramfs of the recipe debian."""
    built("debian.pc")
    recipe = named("debian")
    return make(recipe.initrd[0], recipe.folder, "debian.initrd1", shop)


def reports(kernel: bytes, room: Path, initrd: Path, entry: Entry) -> dict[str, str]:
    log = ovmf.boot(
        kernel,
        named("debian").expect,
        room,
        cmdline="console=ttyS0 quiet panic=-1",
        initrd=initrd,
        entry=entry,
    )
    said = report(log)
    del said["mem_kb"]
    return said


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, initrd: Path) -> dict[str, str]:
    """What the initramfs reports on the original kernel, started as an EFI program."""
    said = reports(real("debian").data, tmp_path_factory.mktemp("original"), initrd, "pe")
    assert said["end"] == "ok"
    assert said["cmdline"] == "console=ttyS0 quiet panic=-1" + ovmf.INITRD_OPTION
    return said


def test_debian_from_target_bzimage(expected: dict[str, str], tmp_path: Path, initrd: Path) -> None:
    image = spliced(Path(real("debian").name), tmp_path / "spliced.bzImage")
    assert reports(image.data, tmp_path, initrd, "pe") == expected


@pytest.mark.soak
@pytest.mark.parametrize("by", [0x1000, 0x3000])
def test_debian_with_a_head(
    by: int, expected: dict[str, str], tmp_path: Path, initrd: Path
) -> None:
    image = with_head(real("debian"), by, TAIL)
    assert reports(image, tmp_path, initrd, "pe") == expected


@pytest.mark.soak
def test_debian_with_a_head_by_the_handover_protocol(
    expected: dict[str, str], tmp_path: Path, initrd: Path
) -> None:
    """The entry that old loaders take: handover_offset, in memory of init_size."""
    said = reports(with_head(real("debian"), 0x3000, TAIL), tmp_path, initrd, "handover")
    without = expected["cmdline"].removesuffix(ovmf.INITRD_OPTION)
    assert said == {**expected, "cmdline": without}


@pytest.mark.soak
@pytest.mark.parametrize("by", [0, 0x1000, 0x3000])
def test_memtest_with_a_head(by: int, tmp_path: Path) -> None:
    original = real("memtest86+x64")
    image = with_head(original, by, TAIL) if by else original.data
    ovmf.boot(image, MEMTEST_SCREEN, tmp_path, *MEMTEST_RAM, cmdline="console=ttyS0,115200")
