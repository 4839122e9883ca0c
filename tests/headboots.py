"""What hypothesis draws for the heads: images, and what loaders do with them."""

import dataclasses
import itertools
from collections.abc import Sequence

from headed import HOME, header, make, with_dst
from hypothesis import assume
from hypothesis import strategies as st
from relocating import distances

from pybuild.bootproto import XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64
from pybuild.emulate.headboot import GDT, RAM, Boot, Entry
from pybuild.emulate.headimage import Made
from pybuild.emulate.memory import PAGE, TOP
from pybuild.emulate.paging import HIGHEST, Range

LENGTHS = st.one_of(
    st.integers(1, 9), st.integers(0x1FFC, 0x2004), st.integers(1, 0x6000), st.just(0x9001)
)
_WORDS = st.text(st.sampled_from("abc =.,-é"), max_size=40)
_ENDS = st.sampled_from((1 << 30, 5 << 30, 1 << 39, HIGHEST))  # corners of page tables


@st.composite
def images(draw: st.DrawFn, bits: int, lengths: st.SearchStrategy[int]) -> Made:
    """An image for an entry of that many bits."""
    flags = XLF_KERNEL_64 if bits == 64 else draw(st.sampled_from((0, XLF_KERNEL_64)))
    flags |= draw(st.sampled_from((0, XLF_CAN_BE_LOADED_ABOVE_4G))) if flags else 0
    length = draw(lengths)
    version = draw(st.sampled_from((0x20C, 0x20D, 0x20F) if flags else (0x20A, 0x20B, 0x20F)))
    follows = draw(st.booleans())
    fields = header(
        relocatable_kernel=int(follows),
        xloadflags=flags,
        kernel_alignment=1 << draw(st.sampled_from((0, 4, 12, 13, 16))),
        pref_address=draw(st.sampled_from((0, HOME, HOME, HOME + 0x10000, HOME + 0x2340))),
        init_size=draw(st.one_of(st.just(0), st.integers(length, length + 0x8000))),
        code32_start=HOME + draw(st.integers(0, length - 1)),
        cmdline_size=draw(st.sampled_from((255, 2047, 0xFFFF))),
        vid_mode=draw(st.integers(0, 0xFFFF)),
        root_flags=draw(st.integers(0, 0xFFFF)),
        hardware_subarch_data=draw(st.integers(0, (1 << 64) - 1)),
    )
    if version < 0x20C:
        del fields["xloadflags"]
    text = draw(st.one_of(st.just(""), _WORDS))
    return make(
        length,
        version=version,
        text=text,
        replace=draw(st.booleans()),
        initrd=draw(st.one_of(st.just(0), st.integers(1, 20), st.integers(1, 0x4000))),
        seed=draw(st.integers(0, 99)),
        fields=fields,
    )


@st.composite
def boots(draw: st.DrawFn, bits: int, lengths: st.SearchStrategy[int]) -> Boot:
    """What the protocol allows; or, now and then, a dst that it doesn't have, for every overlap."""
    made = draw(images(bits, lengths))
    plan = made.plan
    low_only = (plan.initrd_size or made.text or plan.follows) and not plan.above_4g
    limit = HIGHEST if bits == 64 and not low_only else TOP
    alignment = None
    step = plan.alignment if plan.follows else PAGE
    if plan.follows and draw(st.booleans()):
        alignment = step = 1 << draw(st.integers(0, step.bit_length() - 1))
    kinds = (
        ["home", "near", "far", "far"]
        if plan.follows
        else ["home", "near", "far", *["any dst"] * 2]
    )
    if (kind := draw(st.sampled_from(kinds))) == "any dst":
        address = PAGE * draw(st.sampled_from((0x80, 0x200, 0x345, 0xFF000)))
        distance = draw(st.sampled_from((-1, 1))) * draw(distances(plan.len))
        dst = address + plan.head_size + distance
        assume(dst > 0)
        made = with_dst(made, dst, address)
    elif kind == "home":
        address = HOME
    elif kind == "near":
        address = HOME + draw(st.integers(0, made.memory + PAGE))
        address += -address % step
    else:
        corners = [limit - made.memory, TOP - made.memory]
        if limit > TOP:
            corner = draw(_ENDS)
            corners = [corner, corner - draw(st.integers(0, made.memory))]
        address = min(draw(st.sampled_from(corners)), limit - made.memory) // step * step
    assume(address + made.memory <= limit and _fits(made))
    boot = Boot(
        bits,
        made,
        address,
        alignment=alignment,
        la57=bits == 64 and draw(st.booleans()),
        noise=draw(st.integers(0, 1 << 32)),
    )
    return draw(furnished(boot))


def _fits(made: Made) -> bool:
    """Whether all that a kernel with a dst of its own uses is below 4 GiB."""
    return made.plan.follows or made.plan.dst + made.memory <= TOP


def ours(boot: Boot) -> list[Range]:
    """What nothing of the loader's may be in."""
    at = boot.places
    initrd = [(at.initrd.start, at.initrd.end)] if at.initrd else []
    destination = (boot.destination, boot.destination + boot.made.plan.len)
    return [destination, boot.window, (at.work.start, at.work.end), *initrd]


@st.composite
def furnished(draw: st.DrawFn, boot: Boot) -> Boot:
    """And what the loader brings, close to the image and the kernel's place, and the E820 map."""
    plan = boot.made.plan
    top = HIGHEST if boot.bits == 64 and plan.above_4g else TOP
    taken = [boot.loaded, *ours(boot)]
    edges = [at for low, high in taken for at in (low, high)] + [0x10000, 0x98000, top]

    def put(size: int, align: int) -> int:
        for edge in draw(st.permutations(edges)):
            down = (edge - size) // align * align
            for at in (edge + -edge % align, down):
                free = all(at + size <= low or high <= at for low, high in taken)
                if free and at >= PAGE and at + size <= top:
                    taken.append((at, at + size))
                    edges.extend(taken[-1])
                    return at
        raise AssertionError("there is always room below 640 KiB")

    params = put(PAGE, draw(st.sampled_from((16, PAGE))))
    line = draw(st.one_of(st.none(), st.just(""), _WORDS))
    room = boot.made.image["cmdline_size"] if not boot.made.replace else 255
    if line is not None and draw(st.booleans()):
        line = "x" * min(room, 3000)
    cmdline = None
    if line is not None:
        encoded = line.encode()
        assume(len(encoded) <= room)
        cmdline = (put(len(encoded) + 1, 1), encoded)
    size = draw(st.sampled_from((0, 0, 1, 0x3001)))
    initrd = (put(size, PAGE), size) if size else None
    boot = dataclasses.replace(boot, initrd=initrd)
    # With its own GDT the head has no need of the loader's, wherever that is but in the image.
    gdt = put(GDT, 8)
    low, high = boot.window
    clear = all(low + GDT <= s or e <= low for s, e in (boot.loaded, *boot.loaders))
    if draw(st.booleans()) and clear and high - low >= GDT:
        gdt = low
    boot = dataclasses.replace(boot, boot_params=params, cmdline=cmdline, gdt=gdt)
    return dataclasses.replace(boot, e820=draw(maps(boot)))


@st.composite
def maps(draw: st.DrawFn, boot: Boot) -> tuple[Entry, ...]:
    """An E820 map in which all is RAM that must be: in pieces, in any order, with odd ones."""
    if draw(st.booleans()):
        return ()
    used = ours(boot)
    edges = [at for low, high in used for at in (low, high)]
    last = HIGHEST if boot.bits == 64 else draw(st.sampled_from((TOP, 1 << 40)))
    cuts = sorted({0, last, *draw(st.lists(st.sampled_from([*edges, PAGE, HOME + 5]), max_size=4))})
    found = [(low, high - low, RAM) for low, high in itertools.pairwise(cuts)]
    for edge in draw(st.lists(st.sampled_from(edges), max_size=3)):
        size = draw(st.integers(0, 0x2000))
        at = edge - draw(st.sampled_from((0, size)))
        if _free(used, at, at + size) and at >= 0:
            found.append((at, size, draw(st.integers(2, 1 << 31))))
    if boot.bits == 32:  # above 4 GiB, where 32 bits of the address say something else
        at, size = draw(st.sampled_from(used))
        found.append((TOP + at, draw(st.sampled_from((PAGE, 1 << 33))), 2))
    found.append((draw(st.sampled_from(edges)), 0, 2))  # an empty one is nowhere
    return tuple(draw(st.permutations(found)))


def _free(used: Sequence[Range], start: int, end: int) -> bool:
    return all(end <= low or high <= start for low, high in used)
