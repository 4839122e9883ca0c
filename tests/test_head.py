"""The heads, in images from the real flow: they have the kernel moved, wherever they are loaded."""

import dataclasses

import pytest
from headboots import LENGTHS, boots
from headed import HOME, header, make, with_dst
from heading import hold_head
from held import MIB, examples
from hypothesis import given
from hypothesis import strategies as st

from pybuild.emulate.headboot import Boot
from pybuild.emulate.memory import PAGE, TOP
from pybuild.emulate.paging import HIGHEST
from pybuild.headplan import ENTRY_64

pytestmark = pytest.mark.contract("i386/head", "x86_64/head")

both = pytest.mark.parametrize("bits", [32, 64])


@both
@examples(90)
@given(data=st.data())
def test_kernel_finds_all_that_it_should(bits: int, data: st.DataObject) -> None:
    boot = data.draw(boots(bits, LENGTHS))
    hold_head(dataclasses.replace(boot, trace=False))


@both
@given(data=st.data())
@examples(8)
def test_every_write_is_declared(bits: int, data: st.DataObject) -> None:
    boot = data.draw(boots(bits, st.integers(1, 0x800)))
    values = st.integers(0, (1 << bits) - 1)
    names = ("ebp", "edi", "ebx", "esp") if bits == 32 else ("rbp", "rdi", "rbx", "rsp", "r15")
    spared = {name: data.draw(values, name) for name in names}
    hold_head(dataclasses.replace(boot, registers=spared))


@both
@pytest.mark.parametrize("length", [3 * MIB + 1, 8 * MIB + 5])
def test_large_ones(bits: int, length: int) -> None:
    """Close by, so that it is copied downwards or upwards; and far away."""
    made = make(length, initrd=MIB + 3, text="a", fields=header())
    up = with_dst(made, HOME + MIB + 1, HOME) if length > 8 * MIB else made
    for it, address in ((made, HOME), (up, HOME)):
        hold_head(Boot(bits, it, address, cmdline=(0x70000, b"b"), trace=False))
    top = HIGHEST if bits == 64 else TOP
    hold_head(Boot(bits, made, (top - made.memory) & -PAGE, trace=False))


@both
@pytest.mark.parametrize("follows", [0, 1])
def test_a_head_on_a_head(bits: int, follows: int) -> None:
    """An image is a kernel like any other."""
    inner = make(0x1111, text="in", initrd=99, fields=header(relocatable_kernel=follows))
    outer = make(text="out", initrd=55, data=inner.image.data)
    assert outer.kernel.is_relocatable
    for address in (HOME, 0x345000):
        hold_head(Boot(bits, outer, address, cmdline=(0x70000, b"x"), initrd=(0x60000, 9)))
        first = Boot(bits, outer, address, trace=False)
        after = hold_head(first).after
        # For the head inside, the one outside is the loader.
        work, initrd = first.places.work, first.places.initrd
        assert initrd
        line = (work.start + outer.plan.work_cmdline, b"out")
        inside = Boot(bits, inner, first.destination, cmdline=line, initrd=(initrd.start, 55))
        at = outer.kernel.field("code32_start")
        assert after.read(0x90000 + at.offset, at.size) == address.to_bytes(4, "little")
        for name in ("syssize", "cmd_line_ptr", "ramdisk_image", "ramdisk_size", "init_size"):
            at = outer.kernel.field(name)
            assert after.read(0x90000 + at.offset, at.size) == inside.page()[at.offset : at.end]
        hold_head(dataclasses.replace(inside, trace=False))


@pytest.mark.parametrize("length", [ENTRY_64 - 1, ENTRY_64, ENTRY_64 + 1])
def test_entries_of_a_kernel_that_covers_its_own_head(length: int) -> None:
    for start in (0, 5, length - 1):
        fields = header(relocatable_kernel=1, code32_start=HOME + start)
        for bits in (32, 64):
            hold_head(Boot(bits, make(length, fields=fields), HOME))
