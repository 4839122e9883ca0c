"""What a file or a folder is: an image that bootsplice built, or a kernel.

Only images need what reads them, so it is imported when one is there.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pybuild import kernel as kernels
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.reading import marks

if TYPE_CHECKING:
    from pybuild.reading.found import Image


def read(path: Path) -> "Kernel | Image":
    """What is there.

    Raises:
        InputError: neither of the two, or it cannot be read.
        BuildError: the image is of a form that only qemu-img reads, and that is missing or fails.
    """
    head = marks.head(path)
    form = marks.form(head)
    if form or marks.is_folder(path):
        from pybuild.reading import images

        found = images.image(path, form) if form else images.folder(path)
        if found:
            return found
    if head:
        _check_head(path, head)
    kernel = kernels.read(path)
    if marks.has_head(kernel) or marks.is_hooked(kernel):
        from pybuild.reading import images

        return images.spliced(kernel) or kernel
    return kernel


def _check_head(path: Path, head: bytes) -> None:
    """Refuses what is no kernel before all of it is read: it may be somebody's disk."""
    try:
        kernels.parse_setup(str(path), head)
    except InputError as error:
        from pybuild.reading import images

        boots = images.boots(path)
        raise InputError(f"{error}; it boots {boots}" if boots else str(error)) from error
