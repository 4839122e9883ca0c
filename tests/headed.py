"""Kernel images with a head, made by the real flow of kernels that are not real."""

import dataclasses
import functools
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import fakekernel
from held import TREE

from pybuild import headplan, kernel, mover
from pybuild.assembler import Tree
from pybuild.bootproto import LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64
from pybuild.emulate import headimage
from pybuild.emulate.headimage import Made
from pybuild.flat import FlatBinary

HOME: Final = 0x100000


@functools.cache
def code(tree: Tree = TREE) -> dict[str, FlatBinary]:
    return headimage.code_of(tree)


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
    contents = noise.randbytes(initrd)
    return headimage.make(
        original, code(tree), text=text, replace=replace, initrd=contents, move=move
    )


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
    return headimage.splice(dataclasses.replace(made, plan=plan), request, code(tree))


def header(**fields: int) -> dict[str, int]:
    """Fields of a kernel for both entries that takes everything everywhere."""
    return {
        "xloadflags": XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
        "loadflags": LOADED_HIGH,
        "initrd_addr_max": 0xFFFF_FFFF,
        **fields,
    }
