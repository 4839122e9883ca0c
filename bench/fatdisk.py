"""A disk with one active FAT partition, made by mtools, for the loaders that read a file system."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import tools
from pybuild.errors import BuildError

_SECTOR: Final = 512
_HEADS: Final = 255
_SECTORS: Final = 63  # of a track; SYSLINUX and QEMU look at such numbers
START: Final = 1 << 20  # bytes before the partition, as partitioning tools leave them
_SPARE: Final = 4 << 20  # bytes: FATs, directories, the loader's own files
# The largest that all take: SYSLINUX is up to 1.6 times faster than with mformat's own choice.
_CLUSTER: Final = 64  # sectors
_BOOT_CODE: Final = 440
_FAT_LBA: Final = 0x0C


def make(
    out: Path, boot: bytes, files: Sequence[Path], *, extra: Sequence[Path] = (), gap: bytes = b""
) -> None:
    """Makes the image.

    Args:
        out: the image.
        boot: the MBR's code, of which the first 440 bytes are taken.
        files: into the root directory.
        extra: more of them, small ones.
        gap: what lies between the MBR and the partition.
    """
    if _SECTOR + len(gap) > START:
        raise BuildError(f"{out}: {len(gap)} bytes do not fit before the partition")
    size = sum(path.stat().st_size for path in files) + _SPARE
    sectors = size // _SECTOR
    first = START // _SECTOR
    entry = struct.pack(
        "<B3sB3sII", 0x80, _chs(first), _FAT_LBA, _chs(first + sectors - 1), first, sectors
    )
    mbr = boot[:_BOOT_CODE].ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa"
    with out.open("wb") as stream:
        stream.write(mbr + gap)
        stream.truncate(START + sectors * _SECTOR)
    partition = f"{out}@@{START}"
    geometry = ["-h", str(_HEADS), "-s", str(_SECTORS), "-H", str(first), "-c", str(_CLUSTER)]
    tools.run("mformat", "-i", partition, "-T", str(sectors), *geometry, "::")
    tools.run("mcopy", "-i", partition, *files, *extra, "::")


def _chs(lba: int) -> bytes:
    cylinder, rest = divmod(lba, _HEADS * _SECTORS)
    head, sector = divmod(rest, _SECTORS)
    return bytes([head, sector + 1 | cylinder >> 2 & 0xC0, cylinder & 0xFF])
