"""What the Xen lab runs, taken from Debian packages: Xen, dom0's kernel and dom0's files."""

import gzip
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pybuild import apt
from pybuild.progress import Progress
from pybuild.xen import libraries, modules
from pybuild.xen.packages import NEEDS, TOP, File, Package, Packages

_HYPERVISOR: Final = re.compile(r"xen-hypervisor-(\d+(?:\.\d+)*)-amd64")
_KERNEL: Final = "linux-image-amd64"  # a metapackage, which depends on the kernel's package

# What dom0 has, by package, as globs. Libraries are found by what these need.
_PROGRAMS: Final = {
    "xen-utils-{xen}": (
        "usr/lib/xen-*/bin/xl",
        "usr/lib/xen-*/bin/xenstored",
        "usr/lib/xen-*/bin/xenconsoled",
        "usr/lib/xen-*/bin/xen-init-dom0",
    ),
    "xenstore-utils": ("usr/bin/xenstore-read",),
    "qemu-system-xen": ("usr/libexec/xen-qemu-system-i386",),
    "busybox-static": ("usr/bin/busybox",),
}
_DATA: Final = {
    "xen-utils-{xen}": ("usr/lib/xen-*/boot/hvmloader",),
    "seabios": (
        "usr/share/seabios/bios-256k.bin",
        "usr/share/seabios/vgabios-stdvga.bin",
    ),
    "qemu-system-data": (
        "usr/share/qemu/keymaps/en-us",
        "usr/share/qemu/kvmvapic.bin",
        "usr/share/qemu/linuxboot.bin",  # for kernel= in a guest's configuration
        "usr/share/qemu/linuxboot_dma.bin",
    ),
}
_MODULES: Final = (
    "xen_front_pgdir_shbuf",
    "xen_privcmd",
    "xen_evtchn",
    "xen_gntdev",
    "xen_gntalloc",
    "xenfs",
    "virtio_pci",
    "virtio_scsi",
    "virtio_console",
    "sd_mod",
)


def make(folder: Path, *, progress: Progress) -> None:
    """Makes a folder of everything that the Xen lab runs, whole or not at all.

        boot/xen, boot/vmlinuz  the hypervisor, an ELF file; dom0's kernel
        root/                   dom0's files as the packages have them, with /usr merged
        modules/NN-name.ko      the kernel modules for insmod, in the order of their names
        packages.json           which packages all this was taken from, and their versions

    Nothing is installed. It takes 700 MB beside `folder` while it runs.

    Args:
        folder: is not there yet. The caller sees to it that nobody else makes it.
        progress: called with one line before each step that may take long.

    Raises:
        apt.Unavailable: this system has no apt, a package cannot be downloaded, or the
            distribution does not have what the lab needs.
        BuildError: a package cannot be unpacked, or is not as expected.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        room = Path(name)
        made = room / "made"
        for place in (made / "boot", made / "modules"):
            place.mkdir(parents=True)
        packages = Packages(room, progress)
        xen = _newest_xen(packages.known)
        hypervisor = f"xen-hypervisor-{xen}-amd64"
        programs, data = (
            {name.format(xen=xen): globs for name, globs in table.items()}
            for table in (_PROGRAMS, _DATA)
        )
        packages.get([hypervisor, _KERNEL, *programs, *data])
        kernel = _kernel(packages)
        executables = _pick(programs, packages)
        files = [
            *executables,
            *_pick(data, packages),
            *libraries.resolve(executables, packages),
        ]
        progress("putting together what the Xen lab runs")
        image = packages.unpacked[hypervisor].file("boot/xen-*.gz")
        (made / "boot" / "xen").write_bytes(gzip.decompress(image.path.read_bytes()))
        shutil.copy(kernel.file("boot/vmlinuz-*").path, made / "boot" / "vmlinuz")
        ordered = modules.in_loading_order(kernel, _MODULES)
        for number, (module, content) in enumerate(ordered.items()):
            (made / "modules" / f"{number:02}-{module}.ko").write_bytes(content)
        _fill(made / "root", files)
        used = {image.package, kernel, *(file.package for file in files)}
        versions = {package.name: package.version for package in used}
        (made / "packages.json").write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")
        made.rename(folder)


def _newest_xen(known: Iterable[str]) -> str:
    found = [match[1] for name in known if (match := _HYPERVISOR.fullmatch(name))]
    if not found:
        raise apt.Unavailable(f"xen-hypervisor: apt knows no such package; {NEEDS}")
    return max(found, key=lambda version: [int(number) for number in version.split(".")])


def _kernel(packages: Packages) -> Package:
    """The package of the kernel that the metapackage depends on; it is fetched here."""
    depends = packages.unpacked[_KERNEL].depends
    names = [name for name in depends if name.startswith("linux-image-")]
    if not names:
        raise apt.Unavailable(f"{_KERNEL}: depends on no linux-image package; {NEEDS}")
    packages.get(names[:1])
    return packages.unpacked[names[0]]


def _pick(globs: Mapping[str, Sequence[str]], packages: Packages) -> list[File]:
    return [packages.unpacked[name].file(glob) for name in globs for glob in globs[name]]


def _fill(root: Path, files: Iterable[File]) -> None:
    """Copies files, with the links on the way to them, and makes what else dom0 needs."""
    for name in TOP:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for file in files:
        target = None
        for member in reversed(file.chain()):
            path = root / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if target is None:
                shutil.copy(member.path, path)
            elif not path.is_symlink():
                path.symlink_to(os.path.relpath(target, path.parent))
            target = path
    (root / "etc" / "xen").mkdir(parents=True)
    (root / "etc" / "xen" / "xl.conf").touch()
