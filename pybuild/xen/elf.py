"""What an ELF file needs: shared libraries and an interpreter, or other kernel modules."""

import io
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from pybuild.errors import BuildError


def needed(path: Path) -> tuple[str, ...]:
    """The sonames of the shared libraries that a program or library names (DT_NEEDED), in order.

    Raises:
        BuildError: it is no ELF file that can be read.
    """
    try:
        with path.open("rb") as stream:
            segments = ELFFile(stream).iter_segments()
            tags: list[Any] = [  # DynamicTag gets its attributes when it is made
                tag
                for segment in segments
                if isinstance(segment, DynamicSegment)
                for tag in segment.iter_tags("DT_NEEDED")
            ]
            return tuple(tag.needed for tag in tags)
    except ELFError as error:
        raise _unreadable(str(path), error) from error


def interpreter(path: Path) -> str | None:
    """The program that loads this one (PT_INTERP), an absolute path; None if it needs none.

    Raises:
        BuildError: it is no ELF file that can be read.
    """
    try:
        with path.open("rb") as stream:
            for segment in ELFFile(stream).iter_segments():
                if isinstance(segment, InterpSegment):
                    return segment.get_interp_name()
    except ELFError as error:
        raise _unreadable(str(path), error) from error
    return None


def module_depends(content: bytes) -> tuple[str, ...]:
    """The names of the kernel modules that a module needs in the kernel before it, in order.

    They are spelt with `_`, as in /proc/modules, whether the file says `-` or `_`.

    Raises:
        BuildError: it is no kernel module that can be read.
    """
    try:
        section = ELFFile(io.BytesIO(content)).get_section_by_name(".modinfo")
        fields = section.data().split(b"\0") if section else []
    except ELFError as error:
        raise _unreadable("kernel module", error) from error
    for field in fields:
        if field.startswith(b"depends="):
            names = field.removeprefix(b"depends=").decode().replace("-", "_")
            return tuple(name for name in names.split(",") if name)
    raise BuildError("kernel module: expected a field depends in a section .modinfo, found none")


def _unreadable(what: str, error: ELFError) -> BuildError:
    return BuildError(f"{what}: not a readable ELF file: {error}")
