"""Kernel images with a head, made by the real flow of kernels that are not real."""

import dataclasses
import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import fakekernel
from held import TREE

from pybuild import cmdline, headplan, headsplice, kernel, mover
from pybuild.assembler import Tree
from pybuild.bootproto import LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64
from pybuild.flat import FlatBinary
from pybuild.headplan import HeadPlan
from pybuild.kernel import Kernel
from pybuild.splice import HEAD_32, HEAD_64, RELOCATOR, RELOCATOR_64

HOME: Final = 0x100000


@dataclass(frozen=True, repr=False)
class Made:
    """An image, and what it was made of."""

    kernel: Kernel
    plan: HeadPlan
    image: Kernel
    text: bytes
    replace: bool
    initrd: bytes

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What hypothesis shows: none of the bytes."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        return f"Made({dataclasses.replace(self.plan, patches=())})"

    @property
    def memory(self) -> int:
        """What its header asks for."""
        return self.image["init_size"]


@functools.cache
def code(tree: Tree = TREE) -> dict[str, FlatBinary]:
    return {name: tree.load(name) for name in (HEAD_32, HEAD_64, RELOCATOR, RELOCATOR_64)}


def make(
    length: int = 0x1234,
    fields: Mapping[str, int] = MappingProxyType({}),
    *,
    text: str = "",
    replace: bool = False,
    initrd: int = 0,
    version: int = fakekernel.NEWEST,
    end: int | None = None,
    seed: int = 0,
    tree: Tree = TREE,
    move: mover.Choice = "auto",
    data: bytes | None = None,
) -> Made:
    """An image of a kernel of that length with these header fields, or of `data`."""
    noise = random.Random(seed)
    if data is None:
        usual = {"kernel_version": 0x10, "setup_sects": 2}
        if version >= headplan.NEWEST_NEEDED:
            usual["init_size"] = length + 0x1000
        values = {**usual, **fields}
        data = fakekernel.image(version, protected=1, end=end, text=None, efi_stub=False, **values)
        data = data[:-1] + noise.randbytes(length)
    original = kernel.parse("bzImage", data)
    request = headplan.Request(
        cmdline=text,
        replace=replace,
        initrd_size=initrd,
        code_size=headsplice.code_size(code(tree)),
        relocator_size=headsplice.relocator_size(code(tree)),
        has_crc=headsplice.crc_holds(original),
        move=move,
    )
    plan = headplan.place(_source(original), request)
    contents = noise.randbytes(initrd)
    made = Made(original, plan, original, cmdline.encode(text), replace, contents)
    return _spliced(made, request, tree)


def with_dst(made: Made, dst: int, address: int, tree: Tree = TREE) -> Made:
    """An image whose kernel must run at `dst`, and is loaded at `address`, of any two.

    The protocol has only one such dst, 0x100000, and no loader puts an image below it. So its
    init_size does not cover `dst` above the image; here it is as large as that takes.
    """
    plan = dataclasses.replace(made.plan, dst=dst, run=dst)
    used = headplan.places(plan, address)
    end = max(region.end for region in (used.kernel, used.work, used.initrd or used.work))
    plan = dataclasses.replace(plan, memory=max(made.plan.memory, end - address))
    patches = tuple(
        dataclasses.replace(p, new=plan.memory) if p.field == "init_size" else p
        for p in plan.patches
    )
    plan = dataclasses.replace(plan, patches=patches)
    request = headplan.Request(
        made.text.decode(), made.replace, len(made.initrd), plan.code_size, 0, False, "auto"
    )
    return _spliced(dataclasses.replace(made, plan=plan), request, tree)


def _spliced(made: Made, request: headplan.Request, tree: Tree) -> Made:
    source = _source(made.kernel)
    image, _ = headsplice.splice(made.kernel, source, made.plan, code(tree), request, [made.initrd])
    return dataclasses.replace(made, image=kernel.parse("image", image.data))


def header(**fields: int) -> dict[str, int]:
    """Fields of a kernel for both entries that takes everything everywhere."""
    return {
        "xloadflags": XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
        "loadflags": LOADED_HIGH,
        "initrd_addr_max": 0xFFFF_FFFF,
        **fields,
    }


def _source(original: Kernel) -> Kernel:
    return headsplice.raised(headsplice.bare(original)[0])
