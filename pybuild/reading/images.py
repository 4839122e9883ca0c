"""Opens an image, and has the reader of its kind read it.

A file is opened to be read only; of a large one only what its load table names is read.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pybuild import build, installed, partitions, rawdisk
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.rawdisk import Disk
from pybuild.reading import bzimage, disk, iso, ram
from pybuild.reading.found import Image
from pybuild.reading.marks import Form


def folder(path: Path) -> Image:
    """What is in a folder that target `ram` wrote.

    Raises:
        InputError: it is another folder, or its plan cannot be read.
    """
    return ram.read(path, build.code())


def spliced(kernel: Kernel) -> Image | None:
    """What is in a kernel image that target `bzimage` wrote; None if it is any other."""
    return bzimage.read(kernel, build.code())


def image(path: Path, form: Form) -> Image | None:
    """What is in an image.

    Args:
        path: its file, or a block device.
        form: what it is by its first bytes.

    Returns:
        None if bootsplice did not build it.

    Raises:
        BuildError: it is of a form that only qemu-img reads, and that is missing or fails.
    """
    with contextlib.ExitStack() as stack:
        if form in ("disk", "iso"):
            opened = stack.enter_context(_opened(path))
        else:
            import tempfile

            from pybuild import qemuimg

            raw = stack.enter_context(tempfile.TemporaryFile())
            qemuimg.to_raw(path, form, raw.fileno())
            opened = _disk(str(path), raw.fileno())
        if opened.sectors == 0:
            return None
        size = path.stat().st_size or opened.sectors * SECTOR  # a block device's is 0
        if form == "iso":
            return iso.read(opened, build.code(), size) if iso.is_ours(opened) else None
        is_ours = installed.is_ours(opened.read(0, 1))
        return disk.read(opened, build.code(), size) if is_ours else None


def boots(path: Path) -> str | None:
    """What a disk boots that is not ours, for a message; None if it is none, or nobody knows."""
    with contextlib.suppress(InputError, OSError), _opened(path) as opened:
        sector = opened.read(0, 1) if opened.sectors else bytes(SECTOR)
        if sector[rawdisk.BOOT_SIGNATURE] == rawdisk.BOOT_SIGNATURE_BYTES:
            found = installed.others(opened, sector, partitions.read(opened))
            return f"{found.name} in sector {found.start}" if found else None
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Disk]:
    with path.open("rb") as stream:
        yield _disk(str(path), stream.fileno())


def _disk(name: str, descriptor: int) -> Disk:
    return Disk(name, os.lseek(descriptor, 0, os.SEEK_END) // SECTOR, descriptor)
