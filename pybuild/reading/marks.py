"""How an image that bootsplice built is told from anything else: by a look, without its code.

`inspect` of a kernel needs this much to know that it is one: nothing here imports much.
"""

import contextlib
import stat
from pathlib import Path
from typing import Final, Literal

from pybuild.bootproto import SECTOR
from pybuild.kernel import Kernel
from pybuild.loadtable import BOOT_ID_AT, BOOT_ID_MAGIC
from pybuild.targets import ram

Form = Literal["disk", "iso", "qcow2", "vmdk", "vdi", "vhdx"]

# Where to look in a file: what is behind this tells nothing.
HEAD_SIZE: Final = 256 * SECTOR  # bytes: a kernel's real-mode part has no more

_FORMS: Final[tuple[tuple[Form, int, bytes], ...]] = (
    ("iso", 0x8001, b"CD001"),  # ECMA-119 8.1.2
    ("disk", BOOT_ID_AT, BOOT_ID_MAGIC),
    ("qcow2", 0, b"QFI\xfb"),
    ("vmdk", 0, b"KDMV"),
    ("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    ("vhdx", 0, b"vhdxfile"),
)
_HEAD_SAYS: Final = b"bootsplice: the loader's boot_params"  # in asm/include/head.inc
_HEAD_LIMIT: Final = 0x4000  # bytes; both heads are shorter


def head(path: Path) -> bytes:
    """A file's first HEAD_SIZE bytes; none of what is no file or disk, or cannot be read."""
    with contextlib.suppress(OSError):  # whoever reads all of it will say why
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            with path.open("rb") as stream:
                return stream.read(HEAD_SIZE)
    return b""


def is_folder(path: Path) -> bool:
    """Whether this is a folder that target `ram` wrote."""
    with contextlib.suppress(OSError):  # a name may be too long
        return (path / ram.PLAN).is_file()
    return False


def form(head: bytes) -> Form | None:
    """What a file may be an image of, by its first HEAD_SIZE bytes; None if it may be a kernel."""
    return next((form for form, at, magic in _FORMS if head.startswith(magic, at)), None)


def has_head(kernel: Kernel) -> bool:
    """Whether a kernel's protected-mode part seems to begin with a head of ours."""
    start = kernel.setup_size
    if not (kernel.is_high and kernel.has("init_size")):
        return False
    return kernel.data.find(_HEAD_SAYS, start, start + _HEAD_LIMIT) >= 0


def is_hooked(kernel: Kernel) -> bool:
    """Whether a kernel's header leads to another place than its own code32_start."""
    if not kernel.is_high or kernel.is_relocatable:
        return False
    return kernel["code32_start"] not in (0, kernel.load_address)
