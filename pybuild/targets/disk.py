"""Target `disk`: a disk image that a BIOS boots, raw or in another form that qemu-img makes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from pybuild import mbr
from pybuild.block import Block, Written
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.files import output_file
from pybuild.plan import Plan
from pybuild.progress import Meter
from pybuild.regions import align_up
from pybuild.splice import Parts, put_disk_own
from pybuild.stream import write_at
from pybuild.targets import Option, Options, register

FLOPPY_SIZE: Final = 80 * 2 * 18 * SECTOR  # "1.44 MB": cylinders, heads, sectors a track

_CONVERTED: Final = (".qcow2", ".vmdk", ".vdi", ".vhdx")  # what qemuimg.py knows
_FLOPPY_LBA: Final = 1  # right behind the boot sector
_DISK_LBA: Final = (1 << 20) // SECTOR  # where partition tools begin, for all erase block sizes
_NAMESPACE: Final = UUID("9b1c4e70-6f0e-5f6c-8d55-6f6b0f0f5c1e")  # of this project's GUIDs


@dataclass(frozen=True, slots=True)
class _Shape:
    """A disk, in sectors.

    Attributes:
        start: where its partition begins; 0 if it has none.
        end: where that ends, the first sector behind it.
        sectors: how many the disk has.
    """

    start: int
    end: int
    sectors: int


@register
class Disk:
    """A disk image: a boot sector, and a partition with the loader and all that it reads."""

    name = "disk"
    suffixes = (".img", ".raw", *_CONVERTED)
    before_firmware = False
    options = (
        Option("gpt", bool, "A GUID partition table instead of an MBR's."),
        Option("size", int, "Make the disk so many bytes large (K, M, G)."),
        Option("floppy", bool, "A 1.44 MB floppy, without partitions."),
    )

    def check(self, plan: Plan, parts: Parts, options: Options) -> None:
        """Works out how large it is.

        Raises:
            InputError: the disk would be too small, or nothing can be of that size.
        """
        _lay_out(plan, parts, options)

    def write(
        self, plan: Plan, parts: Parts, out: Path, options: Options, meter: Meter | None = None
    ) -> None:
        """Writes the image; a file that is there is replaced.

        Raises:
            InputError: `out` is there and is no file; or as by `check`.
            BuildError: the file's suffix needs qemu-img, and that is missing or fails.
        """
        block, shape = _lay_out(plan, parts, options)
        if out.suffix.lower() not in _CONVERTED:
            with output_file(out) as stream:
                _write(stream.fileno(), block, shape, options, meter)
            return
        import tempfile  # it and qemuimg take time, and few need them

        from pybuild import qemuimg

        qemuimg.find()  # before anything takes time
        with output_file(out) as stream, tempfile.TemporaryFile(dir=out.parent) as raw:
            identity = _write(raw.fileno(), block, shape, options, meter)
            qemuimg.convert(raw.fileno(), stream.fileno(), out, identity)


def _lay_out(plan: Plan, parts: Parts, options: Options) -> tuple[Block, _Shape]:
    if options.get("floppy"):
        block = Block(plan, parts, _FLOPPY_LBA)
        return block, _floppy(block, options)
    block = Block(plan, parts, _DISK_LBA)
    return block, _disk(block, options)


def _floppy(block: Block, options: Options) -> _Shape:
    for other in ("gpt", "size"):
        if options.get(other):
            raise InputError(f"option floppy: a floppy has no {other}; leave out one of the two")
    if block.end * SECTOR > FLOPPY_SIZE:
        raise InputError(
            f"option floppy: the image needs {block.end * SECTOR} bytes, and a floppy has "
            f"{FLOPPY_SIZE}; leave it out, for a disk"
        )
    return _Shape(0, 0, FLOPPY_SIZE // SECTOR)


def _disk(block: Block, options: Options) -> _Shape:
    """The least disk, of whole cylinders, or one of the size that was asked for."""
    end = needed = block.end
    is_gpt = bool(options.get("gpt"))
    if is_gpt:
        from pybuild import gpt

        end = align_up(block.end, _DISK_LBA)
        needed = end + gpt.SECTORS_BEHIND
    size = options.get("size")
    if size is None:
        # Its geometry depends on its size, which depends on its geometry.
        sectors = align_up(needed, mbr.SMALL.cylinder)
        sectors = align_up(needed, mbr.geometry(sectors).cylinder)
    else:
        size = int(size)
        sectors = size // SECTOR
        least = align_up(needed, mbr.geometry(sectors).cylinder) * SECTOR
        if size < least:
            raise InputError(f"option size is {size} bytes, but the disk needs at least {least}")
        if size % SECTOR:
            raise InputError(f"option size is {size} bytes, expected a multiple of {SECTOR}")
    if not is_gpt:
        end = align_up(end, mbr.geometry(sectors).cylinder)
    return _Shape(block.lba, end, sectors)


def _write(out: int, block: Block, shape: _Shape, options: Options, meter: Meter | None) -> UUID:
    """Writes the raw image to an empty file; returns what is unique to it."""
    os.ftruncate(out, shape.sectors * SECTOR)
    written = block.write(out, onto_zeros=True, meter=meter)
    identity = _identity(written)
    own = bytes(mbr.SIZE)
    if options.get("gpt"):
        from pybuild import gpt

        ids = [uuid5(identity, name) for name in ("disk", "partition")]
        table = gpt.table(ids[0], ids[1], shape.start, shape.end, shape.sectors)
        write_at(out, table.primary, SECTOR)
        write_at(out, table.backup, (shape.sectors - gpt.SECTORS_BEHIND) * SECTOR)
        own = table.mbr
    elif shape.start:
        partition = mbr.Partition(mbr.NON_FS_DATA, shape.start, shape.end)
        own = mbr.own_part(mbr.signature(identity.bytes), partition, shape.sectors)
    write_at(out, put_disk_own(written.boot_sector, own), 0)
    return identity


def _identity(written: Written) -> UUID:
    """The same for the same contents, and for no other."""
    return uuid5(_NAMESPACE, " ".join(f"{checksum:08x}" for checksum in written.checksums))
