"""A folder of target `ram` whose disk first says what the firmware has left at 0x100000.

kernels/peek/peek.asm is put before the folder's own boot sector. It prints a line `at_100000=` with
five bytes in hexadecimal, and where it cannot go on a line `peek:` that says why.
"""

import shutil
from pathlib import Path
from typing import Final

from pybuild import flock, material, paths
from pybuild.bootproto import SECTOR
from pybuild.material import Workshop
from pybuild.targets import ram

HVMLOADER: Final = "fc fa 0f 01 15"  # cld; cli; lgdt: what a Xen HVM guest's firmware begins with
_SOURCE: Final = {"source": "peek/peek.asm"}


def with_peek(folder: Path, out: Path) -> Path:
    """Copies a folder that target `ram` wrote; the copy's disk begins with peek.

    Returns:
        The copy, `out`.
    """
    shutil.copytree(folder, out)
    disk = out / ram.BOOT_DISK
    sectors = disk.read_bytes()
    own, second, rest = sectors[:SECTOR], sectors[SECTOR : 2 * SECTOR], sectors[2 * SECTOR :]
    assert second == bytes(SECTOR)
    disk.write_bytes(sector() + own + rest)
    return out


def sector() -> bytes:
    """The boot sector, assembled."""
    shop = Workshop(paths.ROOT, paths.BUILD, paths.cache_directory(), print)
    with flock.held(paths.IMAGES / ".lock"):  # whoever makes the same in another process
        assembled = material.make(_SOURCE, paths.KERNELS, "peek", shop).read_bytes()
    assert len(assembled) == SECTOR
    return assembled
