"""The planner: what it promises for any kernel and machine, and what load_linux would have done."""

import dataclasses
import re
from typing import Any

import pytest
from fakekernel import NEWEST, VERSIONS, image

from pybuild import machine, mover
from pybuild.bootproto import LOADED_HIGH
from pybuild.errors import InputError
from pybuild.kernel import Kernel, parse
from pybuild.layout import Request, place
from pybuild.machine import Machine
from pybuild.plan import Plan
from pybuild.regions import Region

MIB = 1 << 20
PC = machine.load("pc")
XEN = machine.load("xen-hvm")
KEPT = dataclasses.replace(PC, overwritten_by_firmware=())  # with firmware that wipes nothing


def request(
    *initrds: int,
    cmdline: str = "",
    move: mover.Choice = "auto",
    before_firmware: bool = True,
    relocator_size: int = 107,
) -> Request:
    return Request(initrds, cmdline, relocator_size, 362, move, before_firmware)


def kernel(version: int = NEWEST, **options: Any) -> Kernel:
    return parse("/somewhere/bzImage", image(version, **options))


def at(plan: Plan) -> dict[str, int]:
    return {load.part: load.address for load in plan.loads}


def patched(plan: Plan) -> dict[str, int]:
    return {patch.field: patch.new for patch in plan.patches}


# ---- what load_linux does ------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("high", [True, False])
def test_places_of_load_linux(version: int, high: bool) -> None:
    """Loaded after the firmware, as a disk would be: the addresses of the patch series."""
    if version < 0x200 and high:
        return
    options = {} if version < 0x200 else {"loadflags": LOADED_HIGH if high else 0}
    plan = place(kernel(version, **options), PC, request(cmdline="hello", before_firmware=False))
    recent = high and version >= 0x202
    assert at(plan)["setup"] == (0x10000 if recent else 0x90000)
    assert at(plan)["cmdline"] == (0x20000 if recent else 0x9A000 - 16)
    assert at(plan)["kernel"] == (0x100000 if high else 0x10000)
    assert plan.entry.cs == at(plan)["setup"] // 16 + 0x20
    assert plan.entry.data_segments == at(plan)["setup"] // 16
    assert plan.entry.esp == at(plan)["cmdline"] - at(plan)["setup"] - 16
    assert not plan.moves


@pytest.mark.parametrize("version", VERSIONS)
def test_command_line_by_pointer_or_by_magic(version: int) -> None:
    plan = place(kernel(version), PC, request(cmdline="root=/dev/sda"))
    offset = at(plan)["cmdline"] - at(plan)["setup"]
    fields = patched(plan)
    if version < 0x202:
        assert fields["cmd_line_magic"] == 0xA33F
        assert fields["cmd_line_offset"] == offset
        assert "cmd_line_ptr" not in fields
    else:
        assert fields["cmd_line_ptr"] == at(plan)["cmdline"]
        assert not fields.keys() & {"cmd_line_magic", "cmd_line_offset"}
    moved = offset + len("root=/dev/sda") + 1
    assert fields.get("setup_move_size") == (moved if version in (0x200, 0x201) else None)
    assert fields.get("heap_end_ptr") == (offset - 0x200 if version >= 0x201 else None)
    assert fields.get("loadflags") == (0x81 if version >= 0x201 else None)
    assert fields.get("type_of_loader") == (0xFF if version >= 0x200 else None)


def test_loadflags_keep_the_kernels_own_bits() -> None:
    plan = place(kernel(loadflags=0x23), PC, request())
    assert patched(plan)["loadflags"] == 0xA3


@pytest.mark.parametrize(
    ("version", "limit"), [(0x202, 0x37FFFFFF), (0x203, 0x2FFFFFF), (NEWEST, 0x2FFFFFF)]
)
def test_initrd_as_high_as_it_may_be(version: int, limit: int) -> None:
    options = {"initrd_addr_max": 0x2FFFFFF} if version >= 0x203 else {}
    plan = place(kernel(version, **options), KEPT, request(5000))
    high = min(limit + 1, PC.ram - 0x40000)
    assert at(plan)["initrd"] == (high - 5000) & ~0xFFF
    assert patched(plan)["ramdisk_image"] == at(plan)["initrd"]
    assert patched(plan)["ramdisk_size"] == 5000


def test_initrds_are_padded_to_four_bytes_each() -> None:
    plan = place(kernel(), PC, request(1, 5, 3))
    assert patched(plan)["ramdisk_size"] == 4 + 8 + 3


def test_initrd_below_mem() -> None:
    plan = place(kernel(), PC, request(5000, cmdline="mem=64M quiet"))
    assert at(plan)["initrd"] == (64 * MIB - 5000) & ~0xFFF


@pytest.mark.parametrize(
    ("option", "mode"), [("normal", 0xFFFF), ("ext", 0xFFFE), ("ask", 0xFFFD), ("0x317", 0x317)]
)
def test_vga(option: str, mode: int) -> None:
    plan = place(kernel(), PC, request(cmdline=f"vga=1 quiet vga={option}"))
    assert patched(plan)["vid_mode"] == mode


# ---- moving and relocating -----------------------------------------------------------------------


def test_not_relocatable_while_the_firmware_is_in_the_way() -> None:
    plan = place(kernel(0x202, setup_sects=4, protected=5 * MIB + 3), XEN, request())
    (move,) = plan.moves
    assert (move.src, move.dst, move.len) == (0x200000, 0x100000, 5 * MIB + 3)
    assert move.by == "hook"
    assert move.relocator == 0x200000 + 5 * MIB + 16
    assert patched(plan)["code32_start"] == move.relocator
    assert plan.notes[:2] == (
        "kernel is NOT relocatable",
        f"helper at {move.relocator:#x} of size 107 bytes, "
        "to move kernel of 5242883 bytes from 0x200000 to 0x100000",
    )


def test_relocatable_while_the_firmware_is_in_the_way() -> None:
    plan = place(kernel(relocatable_kernel=1, kernel_alignment=0x200000), XEN, request())
    assert not plan.moves
    assert at(plan)["kernel"] == patched(plan)["code32_start"] == 0x200000
    assert plan.notes[0] == "kernel is relocatable"


def test_relocatable_keeps_its_alignment_where_there_is_room() -> None:
    image = kernel(relocatable_kernel=1, kernel_alignment=16 * MIB, min_alignment=21)
    plan = place(image, XEN, request())
    assert at(plan)["kernel"] == 16 * MIB
    assert "kernel_alignment" not in patched(plan)


def test_relocatable_may_be_aligned_to_less() -> None:
    """2.10: down to 1 << min_alignment, and then the header says so."""
    image = kernel(relocatable_kernel=1, kernel_alignment=8 * MIB, min_alignment=21)
    rom = (Region("rom", MIB, 17 * MIB),)
    target = Machine("m", "", 24 * MIB, XEN.reserved[:2], rom)
    plan = place(image, target, request(before_firmware=False))
    assert at(plan)["kernel"] == plan.runtime.start == 20 * MIB
    assert patched(plan)["kernel_alignment"] == 4 * MIB


def test_relocatable_is_aligned_to_less_if_its_init_size_needs_it() -> None:
    image = kernel(
        relocatable_kernel=1, kernel_alignment=16 * MIB, min_alignment=21, init_size=14 * MIB
    )
    target = Machine("m", "", 29 * MIB, XEN.reserved[:2], XEN.busy_while_loading)
    plan = place(image, target, request(before_firmware=False))
    assert plan.runtime.start == at(plan)["kernel"] == 8 * MIB
    assert patched(plan)["kernel_alignment"] == 8 * MIB


def test_kernel_alignment_is_a_power_of_two() -> None:
    with pytest.raises(InputError, match="kernel_alignment is 0xbb8, expected a power of two"):
        place(kernel(relocatable_kernel=1, kernel_alignment=3000), XEN, request())


@pytest.mark.parametrize("option", ["mem=-5", "mem=0", "mem=nopentium", "mem="])
def test_mem_that_is_no_limit(option: str) -> None:
    high = PC.ram - 0x40000
    plan = place(kernel(initrd_addr_max=2**32 - 1), KEPT, request(1, cmdline=option))
    assert at(plan)["initrd"] == (high - 1) & ~0xFFF


def test_code32_start_keeps_its_distance_to_the_load_address() -> None:
    image = kernel(relocatable_kernel=1, code32_start=0x100020)
    assert (
        patched(place(image, XEN, request()))["code32_start"]
        == at(place(image, XEN, request()))["kernel"] + 0x20
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"code32_start": 0}, "code32_start 0x0 lies outside"),
        ({"loadflags": 0}, "a zImage's setup code"),
        ({"version": 0x203, "kernel_version": 0}, "GRUB's lnxboot"),
    ],
)
def test_early_for_what_does_not_look_at_code32_start(options: dict[str, int], reason: str) -> None:
    everything_low = Machine("m", "", 64 * MIB, PC.reserved, (Region("rom", 0x10000, 0x90000),))
    target = everything_low if options.get("loadflags") == 0 else XEN
    options = dict(options)
    plan = place(kernel(options.pop("version", NEWEST), **options), target, request())
    (move,) = plan.moves
    assert move.by == "early"
    assert reason in move.reason
    assert "code32_start" not in patched(plan)
    assert "syssize" not in patched(plan)


def test_memdisk_is_known() -> None:
    data = image(0x203, setup_sects=4, text="MEMDISK 6.04")
    assert place(parse("memdisk", data), XEN, request()).moves[0].by == "early"


def test_move_as_asked() -> None:
    assert place(kernel(setup_sects=4), XEN, request(move="early")).moves[0].by == "early"
    assert place(kernel(code32_start=0), XEN, request(move="hook")).moves[0].by == "hook"
    low = kernel(0x203, loadflags=0)
    with pytest.raises(InputError, match=r"cannot be moved by a hook.*zImage.*use early"):
        place(low, PC, request(move="hook"))


# ---- what doesn't fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "asked", "machine_ram", "words"),
    [
        ({"version": 0x205}, request(cmdline="x" * 256), None, "256 characters.*at most 255"),
        ({"cmdline_size": 300}, request(cmdline="x" * 301), None, "301 characters.*at most 300"),
        ({"version": 0}, request(1), None, "too old to load a ram disk"),
        ({}, request(PC.ram), None, f"initrd: {PC.ram} bytes.*no free range"),
        ({"setup_sects": 127}, request(cmdline=""), None, "real-mode part has 65536.*only"),
        ({"loadflags": 0, "protected": 0x80001}, request(), None, "zImage.*524289.*524288"),
        ({"init_size": 0x10000000}, request(), 64 * MIB, r"init_size\).*ends above.*0x4000000"),
        ({"protected": 5 * MIB}, request(), 4 * MIB, "no room for|ends above|overlap"),
    ],
)
def test_what_does_not_fit(
    options: dict[str, int], asked: Request, machine_ram: int | None, words: str
) -> None:
    options = dict(options)
    target = Machine("m", "", machine_ram, PC.reserved[:2]) if machine_ram else PC
    with pytest.raises(InputError) as error:
        place(kernel(options.pop("version", NEWEST), **options), target, asked)
    assert re.search(words, str(error.value)), error.value
    assert "\n" not in str(error.value)


def test_a_clash_names_both_regions_with_their_addresses() -> None:
    taken = Machine("m", "", 64 * MIB, (*PC.reserved[:2], Region("a hole", 0x300000, 0x400000)))
    with pytest.raises(InputError) as error:
        place(kernel(init_size=4 * MIB), taken, request())
    assert "kernel at run time (init_size) (0x100000..0x500000)" in str(error.value)
    assert "a hole (0x300000..0x400000)" in str(error.value)


# ---- found by review -----------------------------------------------------------------------------


def test_no_initrd_leaves_none_in_the_header() -> None:
    """An image that was loaded before may name one: "0 if none"."""
    plan = place(kernel(ramdisk_image=0x1000000, ramdisk_size=77), PC, request())
    assert patched(plan)["ramdisk_image"] == patched(plan)["ramdisk_size"] == 0


@pytest.mark.parametrize("end", [0x218, 0x21C, 0x220, 0x228])
def test_a_header_that_ends_early_takes_neither_command_line_nor_initrd(end: int) -> None:
    image = kernel(0x20A, end=end)
    place(image, PC, request())
    with pytest.raises(InputError, match=rf"no command line: its header ends at {end:#x}"):
        place(image, PC, request(cmdline="quiet"))
    if end < 0x220:
        with pytest.raises(InputError, match=rf"takes no initrd: its header ends at {end:#x}"):
            place(image, PC, request(1))


@pytest.mark.parametrize(("version", "flags"), [(0x205, 1), (0x203, 0)])
def test_initrd_keeps_clear_of_where_an_old_kernel_unpacks_itself(version: int, flags: int) -> None:
    """Without init_size that is a guess: kept free where there is room, no reason to refuse."""
    image = kernel(version, loadflags=flags, protected=0x70000)
    target = Machine("m", "", 12 * MIB, PC.reserved[:2])
    assert at(place(image, target, request(8 * MIB)))["initrd"] >= MIB + 3 * 0x70000
    assert at(place(image, target, request(10 * MIB)))["initrd"] < MIB + 3 * 0x70000


def test_relocatable_looks_on_when_its_init_size_hits_something() -> None:
    image = kernel(
        relocatable_kernel=1, kernel_alignment=2 * MIB, init_size=50 * MIB, pref_address=16 * MIB
    )
    hole = Machine("m", "", 512 * MIB, (*PC.reserved, Region("hole", 24 * MIB, 25 * MIB)))
    plan = place(image, hole, request())
    assert at(plan)["kernel"] == plan.runtime.start == 26 * MIB
    assert patched(plan)["code32_start"] == 26 * MIB


def test_what_was_spliced_already_is_refused() -> None:
    image = kernel(setup_sects=4, code32_start=0x2217E0)
    for target in (PC, XEN):
        with pytest.raises(InputError, match=r"code32_start is 0x2217e0, outside.*spliced already"):
            place(image, target, request())
    assert place(image, XEN, request(move="early")).moves


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("mem=64M mem=128M", 64 * MIB),
        ("mem=0100M", 64 * MIB),
        ("mem=0x40m", 64 * MIB),
        ("mem=64M@0", 64 * MIB),
        ("mem=65536k", 64 * MIB),
        ("quiet -- mem=64M", PC.ram - 0x40000),
    ],
)
def test_mem_as_the_kernel_reads_it(line: str, limit: int) -> None:
    plan = place(kernel(initrd_addr_max=2**32 - 1), KEPT, request(1, cmdline=line))
    assert at(plan)["initrd"] == (limit - 1) & ~0xFFF


def test_vga_in_c_form() -> None:
    assert patched(place(kernel(), PC, request(cmdline="vga=0301")))["vid_mode"] == 0o301
    for wrong in ("vga=", "vga=09", "vga=1M", "vga=0x10000", "vga=best"):
        with pytest.raises(InputError, match=r"vga=.*expected normal, ext, ask"):
            place(kernel(), PC, request(cmdline=wrong))


def test_patches_say_which_are_about_the_image() -> None:
    plan = place(kernel(setup_sects=4), XEN, request(1, cmdline="quiet"))
    about_image = {patch.field for patch in plan.patches if not patch.of_loader}
    assert about_image == {"code32_start", "syssize"}


def test_doubts_are_said() -> None:
    bare = Machine("bare", "", 64 * MIB)
    notes = place(kernel(), bare, request(5, 0, before_firmware=False)).notes
    assert any("reserves nothing below 1 MiB" in note and 'base = "pc"' in note for note in notes)
    assert any("an initrd is empty" in note for note in notes)
    assert len(place(kernel(), PC, request(5)).notes) == 1


def test_a_hook_against_better_knowledge_says_so() -> None:
    (move,) = place(kernel(code32_start=0), XEN, request(move="hook")).moves
    assert move.reason.startswith("as asked, although its code32_start 0x0 lies outside")
