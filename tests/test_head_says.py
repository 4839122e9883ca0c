"""What is wrong, a head says on COM1 and on the screen, in 32 and in 64 bits, and then it stops."""

import dataclasses
import itertools

import pytest
from headed import HOME, header, make
from speaking import message

from pybuild.bootproto import XLF_KERNEL_64
from pybuild.emulate.headboot import RAM, Boot
from pybuild.emulate.memory import PAGE, TOP

pytestmark = pytest.mark.contract("i386/head", "x86_64/head")

both = pytest.mark.parametrize("bits", [32, 64])
AT = 0x400000
LENGTH = 0x2345
WORDS = {
    "boot_params": "bootsplice: the loader's boot_params lie in memory that this kernel needs: ",
    "cmdline": "bootsplice: the loader's command line lies in memory that this kernel needs: ",
    "initrd": "bootsplice: the loader's initrd lies in memory that this kernel needs: ",
    "ram": "bootsplice: there is no RAM where this kernel needs it: ",
}


def span(start: int, end: int) -> str:
    return f"{start:#x} to {end - 1:#x}"


WHAT = ("boot_params", "cmdline", "initrd")
WHERE = ("first", "last", "run", "work", "built-in initrd")


def boot(bits: int, **fields: int) -> Boot:
    """An image far above the kernel's place, which reaches from 1 MiB to init_size."""
    fields = header(init_size=0x8000, **fields)
    return Boot(bits, make(LENGTH, text="quiet", initrd=0x1234, fields=fields), AT, trace=False)


@both
@pytest.mark.parametrize(
    ("what", "where"),
    # Where the loader brings an initrd the built-in one stays where it is.
    sorted({*itertools.product(WHAT, WHERE)} - {("initrd", "built-in initrd")}),
)
def test_what_the_loader_brings_is_in_the_way(bits: int, what: str, where: str) -> None:
    it = boot(bits)
    places = it.places
    assert places.initrd
    destination = (HOME, HOME + LENGTH)
    run = (HOME, HOME + 0x8000)
    work = (places.work.start, places.work.end)
    built_in = (places.initrd.start, places.initrd.end)
    size = {"boot_params": PAGE, "cmdline": 4, "initrd": 0x1111}[what]
    at, hit = {
        "first": (HOME + 1 - size, destination),
        "last": (HOME + LENGTH - 1, destination),
        "run": (HOME + 0x8000 - 1, run),
        "work": (places.work.end - size, work),
        "built-in initrd": (places.initrd.start + 3, built_in),
    }[where]
    if what == "boot_params":
        it = dataclasses.replace(it, boot_params=at)
    elif what == "cmdline":
        it = dataclasses.replace(it, cmdline=(at, b"abc"))
    else:
        it = dataclasses.replace(it, initrd=(at, size))
    assert message(it) == WORDS[what] + span(*hit)


@both
@pytest.mark.parametrize(
    ("e820", "hit"),
    [
        ([(0, HOME, RAM)], (HOME, HOME + LENGTH)),
        ([(0, HOME + LENGTH - 1, RAM), (HOME + LENGTH, TOP, RAM)], (HOME, HOME + LENGTH)),
        ([(0, TOP, RAM), (HOME + LENGTH - 1, 1, 2)], (HOME, HOME + LENGTH)),
        ([(0, HOME + LENGTH, RAM)], (HOME, HOME + 0x8000)),
        ([(0, TOP, RAM), (HOME + 0x7FFF, 1, 3)], (HOME, HOME + 0x8000)),
        # A hole is no smaller because what is round it is in the map twice.
        ([(0, HOME + 0x7000, RAM), (HOME, 0x7000, RAM)], (HOME, HOME + 0x8000)),
        ([(TOP + HOME, TOP, RAM)], (HOME, HOME + LENGTH)),
    ],
)
def test_there_is_no_ram(bits: int, e820: list[tuple[int, int, int]], hit: tuple[int, int]) -> None:
    it = dataclasses.replace(boot(bits), e820=tuple(e820))
    assert message(it) == WORDS["ram"] + span(*hit)


@both
@pytest.mark.parametrize("what", ["work", "initrd"])
@pytest.mark.parametrize("length", [LENGTH, 0x40000])
def test_there_is_no_ram_behind_the_image(bits: int, what: str, length: int) -> None:
    """Where there is none, there are no page tables either: they take the kernel's place."""
    it = dataclasses.replace(boot(bits), made=make(length, initrd=0x1234, fields=header()))
    region = {"work": it.places.work, "initrd": it.places.initrd}[what]
    assert region
    it = dataclasses.replace(it, e820=((0, TOP, RAM), (region.end - 1, 1, 2)))
    assert message(it) == WORDS["ram"] + span(region.start, region.end)


@both
def test_command_line_is_too_long(bits: int) -> None:
    it = boot(bits, cmdline_size=20)  # "quiet", a blank and 14
    fits = dataclasses.replace(it, cmdline=(0x70000, b"x" * 14))
    with pytest.raises(AssertionError, match="goes on"):
        message(fits)
    too_long = dataclasses.replace(it, cmdline=(0x70000, b"x" * 15))
    assert message(too_long) == (
        "bootsplice: the built-in command line and the loader's are too long for this kernel"
    )


@both
def test_initrd_would_lie_too_high(bits: int) -> None:
    high = boot(bits).places.initrd
    assert high
    it = boot(bits, initrd_addr_max=high.end - 2, xloadflags=XLF_KERNEL_64)
    words = "bootsplice: the built-in initrd would lie above initrd_addr_max: "
    assert message(it, early=False) == words + span(high.start, high.end)


@pytest.mark.parametrize("what", ["boot_params", "cmdline", "initrd", "work"])
def test_something_is_out_of_reach(what: str) -> None:
    made = make(LENGTH, text="x" * (what == "work"), fields=header(xloadflags=XLF_KERNEL_64))
    it = {
        "boot_params": Boot(64, made, AT, boot_params=TOP),
        "cmdline": Boot(64, made, AT, cmdline=(TOP, b"abc")),
        "initrd": Boot(64, made, AT, initrd=(TOP, 5)),
        "work": Boot(64, made, 5 << 30),
    }[what]
    assert message(it, early=False) == (
        "bootsplice: boot_params, command line or initrd lie above 4 GiB, out of this kernel's "
        "reach"
    )
