"""The kernel modules that dom0 loads, in an order in which they can be loaded."""

import lzma
from collections.abc import Sequence
from pathlib import PurePath

from pybuild import apt
from pybuild.xen import elf
from pybuild.xen.packages import NEEDS, Package


def in_loading_order(kernel: Package, names: Sequence[str]) -> dict[str, bytes]:
    """Modules, each after those that it depends on: what insmod takes, by name.

    Those that are built into the kernel are left out.

    Args:
        kernel: a linux-image package.
        names: the modules' names, spelt with `_`.

    Raises:
        apt.Unavailable: the kernel has no such module.
        BuildError: a module cannot be read.
    """
    files = {
        _name(path): kernel.tree / place
        for path, place in kernel.files.items()
        if path.endswith((".ko", ".ko.xz"))
    }
    listed = kernel.file("usr/lib/modules/*/modules.builtin").path.read_text().split()
    builtin = {_name(path) for path in listed}
    modules: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in builtin or name in modules:
            return
        if name not in files:
            raise apt.Unavailable(f"{kernel.name}: has no module {name}; {NEEDS}")
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        for other in elf.module_depends(content):
            add(other)
        modules[name] = content

    for name in names:
        add(name)
    return modules


def _name(path: str) -> str:
    """A module's name, by its file's: virtio_pci for kernel/drivers/virtio/virtio-pci.ko.xz."""
    return PurePath(path).name.partition(".")[0].replace("-", "_")
