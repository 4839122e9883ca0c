"""Kernel images with a head, put anywhere and entered at the 32-bit and at the 64-bit entry.

As a loader does that runs no setup code, on the CPUs of QEMU, with page tables that map what the
64-bit boot protocol promises and nothing else.
"""

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from booting import named
from entry import CMDLINE, INITRD, PAGE, Guest, maps
from fakekernel import probe
from probes import original
from splicing import check_report, spliced

from pybuild import kernel

pytestmark = pytest.mark.boot

OK = "^end=ok"
HOME = 0x100000
RAM = ("-m", "256M", "-cpu", "max")
BUILT_IN = bytes(range(255)) * 301
GIB = 1 << 30
GIB_PAGE = 0x83  # in an entry of a page table: a page instead of a table, writable, present

# Where the image is loaded: where the kernel must run, above it, so that both overlap, and where
# nothing of the kernel is.
ADDRESSES = (HOME, 0x150000, 0x3000000)


@pytest.fixture
def built_in(tmp_path: Path) -> Path:
    path = tmp_path / "initrd"
    path.write_bytes(BUILT_IN)
    return path


def guest(file: Path, room: Path, run: int, initrd: Path | None, own: bytes = b"") -> Guest:
    image = spliced(file, room / "spliced.bzImage", cmdline="built in", initrd=initrd)
    assert image.is_relocatable
    assert kernel.read(file).protected in image.protected
    return Guest(image, b"the loader's", own, run)


def original_file(name: str) -> Path:
    return Path(original(named(name)).name)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("run", ADDRESSES, ids=hex)
def test_it_is_moved_to_where_it_must_run(
    bits: int, run: int, built: Callable[[str], Path], tmp_path: Path, built_in: Path
) -> None:
    built("probe-64.pc")
    put = guest(original_file("probe-64"), tmp_path, run, built_in)
    said = put.enter(tmp_path, OK, *RAM, BITS=bits, **maps(put.needed()) if bits == 64 else {})
    assert said["entered"] == str(bits)
    check_report(
        said, original(named("probe-64")), HOME, cmdline="built in the loader's", initrd=BUILT_IN
    )


@pytest.mark.parametrize("bits", [32, 64])
def test_the_loaders_initrd_comes_first(
    bits: int, built: Callable[[str], Path], tmp_path: Path, built_in: Path
) -> None:
    built("probe-64.pc")
    own = b"the loader's initrd" * 100
    put = guest(original_file("probe-64"), tmp_path, 0x3000000, built_in, own)
    said = put.enter(tmp_path, OK, *RAM, BITS=bits, **maps(put.needed()) if bits == 64 else {})
    check_report(
        said, original(named("probe-64")), HOME, cmdline="built in the loader's", initrd=own
    )
    assert int(said["ramdisk_image"], 0) == INITRD


@pytest.mark.parametrize("bits", [32, 64])
def test_a_relocatable_kernel_stays_where_the_image_is(
    bits: int, tmp_path: Path, built_in: Path
) -> None:
    file = probe("relocatable", tmp_path / "build", KERNEL_64=1, ABOVE_4G=1, PM_SIZE=700001)
    put = guest(file, tmp_path, 0x3000000, built_in)
    said = put.enter(tmp_path, OK, *RAM, BITS=bits, **maps(put.needed()) if bits == 64 else {})
    check_report(
        said, kernel.read(file), 0x3000000, cmdline="built in the loader's", initrd=BUILT_IN
    )


def test_five_levels_of_page_tables(
    built: Callable[[str], Path], tmp_path: Path, built_in: Path
) -> None:
    built("probe-64.pc")
    put = guest(original_file("probe-64"), tmp_path, 0x3000000, built_in)
    said = put.enter(tmp_path, OK, *RAM, BITS=64, LEVELS=5, **maps(put.needed()))
    assert int(said["cr4"], 0) & 1 << 12
    check_report(
        said, original(named("probe-64")), HOME, cmdline="built in the loader's", initrd=BUILT_IN
    )


def test_above_4_gib(built: Callable[[str], Path], tmp_path: Path) -> None:
    """Without what is built in: this kernel would not look for it there, and the head says so."""
    built("probe-64.pc")
    high = 5 * GIB + 3 * PAGE
    table = struct.pack("<512Q", *(number * GIB | GIB_PAGE for number in range(512)))
    own = b"the loader's initrd" * 100
    put = Guest(
        spliced(original_file("probe-64"), tmp_path / "spliced.bzImage"),
        b"the loader's",
        own,
        high,
        blobs={0x2000000: table},
    )
    ram = ("-cpu", "max", "-m", "6G")
    said = put.enter(tmp_path, OK, *ram, BITS=64, PAGE_SHIFT=30, HIGH_TABLE=0x2000000)
    check_report(said, original(named("probe-64")), HOME, cmdline="the loader's", initrd=own)
    assert said["page_tables_error"] == "above_4g"
    assert int(said["cr3"], 0) > high  # in the work area, behind the image


@pytest.mark.parametrize("bits", [32, 64])
def test_what_is_in_the_way_is_said(
    bits: int, built: Callable[[str], Path], tmp_path: Path, built_in: Path
) -> None:
    """boot_params where the kernel must run; and the screen is not even mapped."""
    built("probe-64.pc")
    put = dataclasses.replace(
        guest(original_file("probe-64"), tmp_path, 0x3000000, built_in), params=HOME + PAGE
    )
    ranges = maps(put.needed()) if bits == 64 else {}
    text = "bootsplice: the loader's boot_params lie in memory that this kernel needs: 0x100000 to"
    put.enter(tmp_path, text, *RAM, "-serial", "null", BITS=bits, **ranges)
    assert put.needed()["cmdline"][0] == CMDLINE
