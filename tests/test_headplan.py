"""The plan of an image with a head, and the image: what is refused, what its header says."""

import dataclasses
import re
import zlib
from collections.abc import Mapping

import fakekernel
import pytest
from headed import HOME, header, make
from heading import hold_head
from held import MIB, examples
from hypothesis import given
from hypothesis import strategies as st

from pybuild import headplan, headsplice, kernel, layout, machine
from pybuild.bootproto import (
    BZIMAGE_LOAD_ADDRESS,
    LOADED_HIGH,
    XLF_CAN_BE_LOADED_ABOVE_4G,
    XLF_KERNEL_64,
)
from pybuild.emulate.headboot import Boot
from pybuild.emulate.headimage import Made
from pybuild.emulate.memory import PAGE, TOP
from pybuild.errors import InputError
from pybuild.regions import align_up

ROOM = 0x264  # where a header ends that has init_size


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"loadflags": 0, "code32_start": 0x10000}, "a zImage (loadflags bit 0 clear) cannot"),
        ({"code32_start": HOME - 1}, "its setup code would pass the head by: its code32_start"),
        ({"pref_address": HOME - 1}, "pref_address is 0xfffff, expected 0x100000 or above"),
        ({"pref_address": TOP - PAGE, "init_size": 2 * PAGE}, "with init_size below 4 GiB"),
        ({"pref_address": TOP - 5 * PAGE, "init_size": PAGE}, "expected all of it below 4 GiB"),
        ({"kernel_alignment": 0x3000}, "kernel_alignment is 0x3000, expected a power of two"),
        ({"init_size": TOP - HOME - 0x1000}, "bytes of memory (init_size) from 0x100000"),
    ],
)
@pytest.mark.parametrize("follows", [0, 1])
def test_headers_that_are_refused(fields: Mapping[str, int], reason: str, follows: int) -> None:
    with pytest.raises(InputError, match=f"^bzImage: .*{re.escape(reason)}"):
        make(fields={"relocatable_kernel": follows, **fields})


@pytest.mark.parametrize(("version", "end"), [(0x203, 0x230), (0x209, 0x258), (0x20F, 0x263)])
def test_headers_without_room(version: int, end: int) -> None:
    name = f"2.{version & 0xFF:02d}"
    reason = f"bzImage: protocol {name}, and its header ends at {end:#x}: no room for pref_address"
    with pytest.raises(InputError, match=f"^{reason} .*: --load-addr$"):
        make(data=fakekernel.image(version, end=end, setup_sects=2))


def test_requests_that_are_refused() -> None:
    with pytest.raises(InputError, match=r"256 characters, but bzImage takes at most 255 \(cmdl"):
        make(text="x" * 256)
    with pytest.raises(InputError, match=r"takes at most 65535 \(cmdline_size\)"):
        make(text="x" * 0x10000, fields={"cmdline_size": 1 << 20})
    with pytest.raises(InputError, match="a kernel reads only one line"):
        make(text="a\nb")
    with pytest.raises(InputError, match="vga=nice, expected normal, ext, ask or a number"):
        make(text="vga=nice")
    with pytest.raises(InputError, match="move early: nothing runs before the setup code of a bz"):
        make(move="early")
    almost = {"init_size": TOP - HOME - 0x8000}
    assert make(fields=almost).plan.memory <= TOP - HOME
    with pytest.raises(InputError, match="expected all of it below 4 GiB"):
        make(initrd=0x5000, fields=almost)


def test_setup_code_that_passes_a_head_by() -> None:
    memdisk = fakekernel.image(0x20F, setup_sects=2, text="MEMDISK 4.05", init_size=0x4000)
    with pytest.raises(InputError, match="MEMDISK's setup code doesn't look at code32_start; "):
        make(data=memdisk)
    assert make(data=memdisk, move="hook").plan.len == 0x321
    lnxboot = fakekernel.image(0x20F, setup_sects=1, init_size=0x4000)
    with pytest.raises(InputError, match="GRUB's lnxboot; build a disk or an ISO instead"):
        make(data=lnxboot)


# Memory


@st.composite
def kernels(draw: st.DrawFn) -> Made:
    """Of every kind, not relocatable or with all that makes one run elsewhere than it is loaded."""
    length = draw(st.integers(1, 0x9000))
    low = draw(st.integers(0, 24))
    fields = header(
        relocatable_kernel=draw(st.integers(0, 1)),
        kernel_alignment=draw(st.sampled_from((0, *(1 << n for n in range(0, 26, 3)), 1 << 21))),
        min_alignment=low,
        pref_address=draw(st.sampled_from((0, HOME, HOME + 0x123, 2 * MIB, 3 * MIB + 5, 16 * MIB))),
        init_size=draw(st.one_of(st.just(0), st.integers(1, 64 * MIB), st.integers(1, 0xA000))),
        xloadflags=draw(st.integers(0, 3)),
    )
    initrd = draw(st.one_of(st.just(0), st.integers(1, 0x9000)))
    return make(length, initrd=initrd, text=draw(st.sampled_from(("", "x"))), fields=fields)


@examples(150)
@given(made=kernels(), data=st.data())
def test_all_that_the_head_uses_is_in_what_the_image_asks_for(
    made: Made, data: st.DataObject
) -> None:
    """At every address that the protocol allows: its own, the preferred one, any aligned one."""
    alignment = made.image["kernel_alignment"]
    if alignment and data.draw(st.booleans(), "lowered"):
        low = min(1 << made.image["min_alignment"], alignment)
        alignment = data.draw(st.sampled_from((low, max(alignment // 2, low))), "alignment")
    step = max(alignment, 1)
    aligned = align_up(HOME + data.draw(st.integers(0, 80 * MIB), "L"), step)
    preferred = made.image["pref_address"]
    at = data.draw(st.sampled_from((HOME, preferred, align_up(preferred, step), aligned)), "at")
    used = headplan.places(made.plan, at, initrd=data.draw(st.booleans()), alignment=alignment)
    end = at + made.image["init_size"]
    regions = [used.work, *([used.initrd] if used.initrd else [])]
    for region in regions:
        assert at <= region.start
        assert region.end <= end
        assert not region.overlaps(used.kernel)
        assert region.start % PAGE == 0
    assert used.work.start >= at + made.plan.image_size
    assert len(regions) == 1 or not regions[0].overlaps(regions[1])
    if made.plan.follows:
        assert used.kernel.end <= end


def test_an_alignment_that_the_load_address_does_not_have() -> None:
    """Loaded at 1 MiB, a kernel runs where its own alignment lets it."""
    fields = header(relocatable_kernel=1, kernel_alignment=2 * MIB, init_size=0x6000)
    made = make(0x3000, initrd=99, fields=fields)
    assert headplan.places(made.plan, HOME).kernel.end == 2 * MIB + 0x6000
    for bits in (32, 64):
        hold_head(Boot(bits, made, HOME, trace=False))


def test_no_alignment_is_one_byte() -> None:
    fields = header(kernel_alignment=0, pref_address=0, init_size=0x20000)
    made = make(0x3000, {"relocatable_kernel": 1, **fields})
    for bits in (32, 64):
        hold_head(Boot(bits, made, HOME + 0x123, trace=False))


# Headers


@pytest.mark.parametrize("version", range(0x205, 0x20A))
@pytest.mark.parametrize("follows", [0, 1])
def test_an_older_header_with_room_is_raised(version: int, follows: int) -> None:
    made = make(
        0x3000,
        {"relocatable_kernel": follows},
        version=version,
        end=ROOM,
        text="x",
        initrd=7,
    )
    image = made.image
    assert (image.version, image.header_end) == (0x20A, ROOM)
    assert image["init_size"] == made.plan.memory
    assert image["pref_address"] == HOME
    assert image["cmdline_size"] == 255 - 2 if version >= 0x206 else 253
    assert image.is_relocatable
    if version < 0x209:
        assert image["setup_data"] == 0  # not the filler that was there
    # Nothing says how much it needs to unpack itself: as much as elsewhere, then.
    assert made.plan.init_size >= 3 * 0x3000 + MIB
    hold_head(Boot(32, made, 4 * MIB, trace=False))


def test_a_header_without_room_is_not_raised() -> None:
    for version, end in ((0x204, ROOM), (0x209, ROOM - 1), (0x20A, ROOM)):
        old = kernel.parse("old", fakekernel.image(version, end=end))
        assert headsplice.raised(old) is old


def test_header_fields_of_the_image() -> None:
    fields = header(
        payload_offset=0x10,
        payload_length=0x100,
        handover_offset=0x190,
        kernel_info_offset=0x99,
        cmdline_size=2047,
        xloadflags=XLF_KERNEL_64,
    )
    made = make(0x1234, text="quiet", initrd=0x777, fields=fields)
    image, plan, original = made.image, made.plan, made.kernel
    for name in ("payload_offset", "handover_offset", "kernel_info_offset"):
        assert image[name] == fields[name] + plan.head_size
    assert image["payload_length"] == 0x100
    assert image["cmdline_size"] == 2047 - len("quiet ")
    assert image["syssize"] * 16 == image.protected_size == plan.size
    assert image["xloadflags"] == XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G
    assert image["kernel_alignment"] == 1 << image["min_alignment"] == PAGE
    assert image["init_size"] == plan.memory
    assert image.protected[plan.head_size :][: plan.len] == original.protected
    assert image.protected[plan.initrd :][:0x777] == made.initrd
    unchanged = {f.name for f in original.fields} - {p.field for p in plan.patches}
    assert all(image[name] == original[name] for name in unchanged)


@pytest.mark.parametrize("flags", [0, XLF_KERNEL_64, 2, 3, 0x3C])
def test_xloadflags_of_a_relocatable_kernel_stay(flags: int) -> None:
    assert make(fields=header(relocatable_kernel=1, xloadflags=flags)).image["xloadflags"] == flags
    more = XLF_CAN_BE_LOADED_ABOVE_4G if flags & XLF_KERNEL_64 else 0
    assert make(fields=header(xloadflags=flags)).image["xloadflags"] == flags | more


def test_a_command_line_that_replaces_leaves_room_for_any() -> None:
    assert make(text="quiet", replace=True).image["cmdline_size"] == 255
    assert make().image["cmdline_size"] == 255
    assert make(text="vga=0x305").image["vid_mode"] == 0x305


def test_offsets_of_nothing_stay_zero() -> None:
    image = make().image
    assert (image["payload_offset"], image["handover_offset"], image["kernel_info_offset"]) == (
        0,
        0,
        0,
    )


@pytest.mark.parametrize("holds", [True, False])
def test_a_crc_that_held_holds_again(holds: bool) -> None:
    data = bytearray(fakekernel.image(setup_sects=2, kernel_version=0x10, protected=0x400 - 4))
    data[0x1F4:0x1F8] = (0x400 // 16).to_bytes(4, "little")
    crc = zlib.crc32(data) ^ (0xFFFFFFFF if holds else 0)
    made = make(data=bytes(data) + crc.to_bytes(4, "little"), initrd=0x123)
    whole = made.image.data[: made.image.setup_size + 16 * made.image["syssize"]]
    assert len(whole) == len(made.image.data)
    assert (zlib.crc32(whole) == 0xFFFFFFFF) is holds


def test_the_same_input_gives_the_same_bytes() -> None:
    one, other = (make(text="x", initrd=0x3001, seed=3, fields=header()) for _ in range(2))
    assert one.image.data == other.image.data
    assert one.plan == other.plan
    assert one.plan == other.plan


def test_notes_say_what_was_decided() -> None:
    moved, followed = make().plan, make(fields={"relocatable_kernel": 1}).plan
    assert any("is moved to 0x100000" in note for note in moved.notes)
    assert any("runs where the image is loaded" in note for note in followed.notes)


def test_an_image_is_a_relocatable_kernel_for_this_project_too() -> None:
    made = make(text="x", initrd=0x999, fields=header())
    request = layout.Request(
        initrd_sizes=(), cmdline="", relocator_size=128, early_size=256, move="auto",
        before_firmware=False,
    )  # fmt: skip
    plan = layout.place(made.image, machine.load("pc"), request)
    assert not plan.moves
    assert plan.load("kernel").address == BZIMAGE_LOAD_ADDRESS  # type: ignore[union-attr]
    again = dataclasses.replace(made.image, name="again")
    assert kernel.parse("again", again.data)["loadflags"] & LOADED_HIGH
