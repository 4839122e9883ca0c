"""Plans for images whose own loader reads the parts: disks and ISOs."""

import dataclasses
from typing import Any

import pytest
from fakekernel import NEWEST, VERSIONS, image

from pybuild import lowmemory, machine
from pybuild.bootproto import LOADED_HIGH
from pybuild.errors import InputError
from pybuild.kernel import Kernel, parse
from pybuild.layout import Request, place
from pybuild.plan import Plan
from pybuild.regions import Region

MIB = 1 << 20
EDD_BYTES = 127 * 512
PC = machine.load("pc", boots_anywhere=True)


def request(*initrds: int, cmdline: str = "", before_firmware: bool = False) -> Request:
    return Request(initrds, cmdline, 107, 362, "auto", before_firmware)


def kernel(version: int = NEWEST, **options: Any) -> Kernel:
    return parse("/somewhere/bzImage", image(version, **options))


def address(plan: Plan, part: str) -> int:
    load = plan.load(part)
    assert load is not None
    return load.address


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("high", [True, False])
def test_the_bounce_buffer_is_clear_of_everything(version: int, high: bool) -> None:
    """And crosses no 64 KiB boundary, which ISA DMA cannot do."""
    if version < 0x200 and high:
        return
    size = 0x321 if high else 0x7F000
    options = {} if version < 0x200 else {"loadflags": LOADED_HIGH if high else 0}
    plan = place(kernel(version, protected=size, **options), PC, request(cmdline="hello"))
    bounce = plan.bounce
    assert bounce is not None
    assert bounce.size == (EDD_BYTES if high else 0x8000)
    assert bounce.start // 0x10000 == (bounce.end - 1) // 0x10000
    assert bounce.end <= 0x9FC00
    taken = [load.region for load in plan.loads] + [plan.stack, lowmemory.LOADER]
    assert not any(bounce.overlaps(region) for region in taken)


def test_a_small_zimage_leaves_room_for_a_large_buffer() -> None:
    plan = place(kernel(protected=0x8000, loadflags=0), PC, request())
    assert plan.bounce is not None
    assert plan.bounce.size == EDD_BYTES


def test_the_boot_sector_is_a_part_that_the_loader_reads() -> None:
    plan = place(kernel(), PC, request())
    load = plan.load("bootsect")
    assert load is not None
    assert (load.address, load.size) == (0x7C00, 512)
    before = place(kernel(), PC, request(before_firmware=True))
    assert before.load("bootsect") is None
    assert before.bounce is None


def test_initrds_lie_just_above_the_kernel() -> None:
    """So that the image boots wherever there is RAM for it, however much more there is."""
    plan = place(kernel(init_size=5 * MIB), PC, request(3 * MIB))
    assert plan.runtime.end == 6 * MIB
    assert address(plan, "initrd") == 6 * MIB
    assert plan.ram == 9 * MIB


def test_initrds_keep_clear_of_a_guess() -> None:
    """Without init_size: three times the kernel's size and 1 MiB, from 1 MiB on."""
    plan = place(kernel(0x203, protected=MIB), PC, request(1))
    assert address(plan, "initrd") == 5 * MIB
    crowded = dataclasses.replace(PC, ram=3 * MIB)
    assert address(place(kernel(0x203, protected=MIB), crowded, request(1)), "initrd") == 2 * MIB


@pytest.mark.parametrize(("version", "limit"), [(0x202, 0x37FFFFFF), (0x20F, 0x2FFFFFF)])
def test_initrd_below_initrd_addr_max_and_mem(version: int, limit: int) -> None:
    options = {"initrd_addr_max": limit} if version >= 0x203 else {}
    room = limit + 1 - 16 * MIB
    fits = place(kernel(version, **options), PC, request(room))
    load = fits.load("initrd")
    assert load is not None
    assert load.region.end - 1 <= limit
    for wrong in (request(room + 16 * MIB), request(room, cmdline="mem=16M")):
        with pytest.raises(InputError, match=r"initrd: \d+ bytes, but no free range"):
            place(kernel(version, **options), PC, wrong)


def test_a_profile_of_bootsplices_own_is_no_limit_and_the_users_is(tmp_path: Any) -> None:
    asked = request(700 * MIB)
    place(kernel(), PC, asked)
    own = tmp_path / "mine.toml"
    own.write_text('base = "pc"\nram = 0x20000000\n')
    with pytest.raises(InputError, match="give a --machine with more ram"):
        place(kernel(), machine.load(str(own), boots_anywhere=True), asked)


def test_64_bit_kernels_are_known_by_xloadflags() -> None:
    assert place(kernel(0x20C, xloadflags=1), PC, request()).long_mode
    assert not place(kernel(0x20C, xloadflags=2), PC, request()).long_mode
    assert not place(kernel(0x20B), PC, request()).long_mode


def test_memory_that_must_be_free_for_the_loader() -> None:
    """A machine that has the loader's own memory in use cannot boot a disk, but a ram image."""
    busy = (*PC.busy_while_loading, Region("something", 0x4000, 0x5000))
    taken = dataclasses.replace(PC, busy_while_loading=busy)
    place(kernel(), taken, request(before_firmware=True))
    with pytest.raises(InputError, match=r"loader .* and something .* overlap"):
        place(kernel(), taken, request())
