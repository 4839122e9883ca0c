"""Images of every kind, for `inspect` to read: made by the real flow, once each."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from disks import patch
from fakekernel import probe
from intodisk import PLACES, disk_of

from pybuild import build
from pybuild.build import Order
from pybuild.plan import Plan
from pybuild.reading import recognise
from pybuild.reading.found import Image

CMDLINE: Final = "console=ttyS0 one"
# Output, probe kernel, machine, options, and who moves it.
RECIPES: Final[Mapping[str, tuple[str, str, str, Mapping[str, object]]]] = {
    "mbr": ("a.img", "2.10", "xen-hvm", {}),
    "gpt": ("gpt.img", "2.10", "xen-hvm", {"gpt": True}),
    "floppy": ("floppy.img", "2.10", "pc", {"floppy": True}),
    "size": ("size.img", "relocatable", "xen-hvm", {"size": "64M"}),
    "early": ("early.img", "zimage", "xen-hvm", {}),
    "old": ("old.img", "old", "pc", {}),
    "qcow2": ("a.qcow2", "2.10", "xen-hvm", {}),
    "vmdk": ("a.vmdk", "2.10", "xen-hvm", {}),
    "vdi": ("a.vdi", "2.10", "xen-hvm", {}),
    "vhdx": ("a.vhdx", "2.10", "xen-hvm", {}),
    "iso": ("a.iso", "2.10", "xen-hvm", {}),
    "iso-early": ("early.iso", "zimage", "xen-hvm", {}),
    "ram": ("ram", "2.10", "xen-hvm", {}),
    "ram-early": ("ram-early", "zimage", "xen-hvm", {}),
}
INTO: Final = {f"into-{name}": place for name, place in PLACES.items()}


@dataclass(frozen=True)
class Made:
    """An image, and the plan that it was made by."""

    path: Path
    plan: Plan


def maker(folder: Path) -> Callable[[str], Made]:
    """Makes each image of RECIPES and INTO when it is first asked for."""
    known: dict[str, Made] = {}
    initrds = [folder / "initrd", folder / "more"]
    for path, size in zip(initrds, (70_001, 3_000), strict=True):
        path.write_bytes(random.Random(size).randbytes(size))

    def make(name: str) -> Made:
        if name in known:
            return known[name]
        if name in INTO:
            layout, number, _ = INTO[name]
            order = Order(probe("2.10", folder), tuple(initrds[:1]), CMDLINE)
            path = folder / f"{name}.img"
            disk_of(layout, path)
            known[name] = Made(path, build.build_into(order, path, number)[0])
            return known[name]
        out, kind, machine, options = RECIPES[name]
        target = {"iso": "iso", "ram": "ram"}.get(name.partition("-")[0], "disk")
        files = () if kind == "old" else tuple(initrds)
        order = Order(probe(kind, folder), files, CMDLINE, machine, target, options=options)
        known[name] = Made(folder / out, build.build(order, folder / out))
        return known[name]

    return make


def inspected(path: Path) -> Image:
    """What is read of an image."""
    found = recognise.read(path)
    assert isinstance(found, Image)
    return found


def flipped(path: Path, at: int, out: Path) -> Path:
    """A copy of a file with one bit of a byte changed."""
    data = path.read_bytes()
    out.write_bytes(data)
    patch(out, 0, at, bytes((data[at] ^ 0x10,)))
    return out
