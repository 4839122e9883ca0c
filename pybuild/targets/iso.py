"""Target `iso`: a CD that boots, and the same file as a disk or USB stick."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import block, loader, mbr, stream
from pybuild.block import Part
from pybuild.bootproto import SECTOR
from pybuild.files import output_file
from pybuild.loadtable import Checksum, Entry
from pybuild.plan import Plan
from pybuild.progress import Meter
from pybuild.splice import Parts, put_disk_own
from pybuild.stream import Copying, Memory, Piece, Source
from pybuild.targets import Option, Options, register

_VOLUME_ID: Final = Option("volume-id", str, "The CD's name: A to Z, 0 to 9 and _.")
_DEFAULT_VOLUME_ID: Final = "BOOTSPLICE"
_CD_SECTOR: Final = 1 << loader.CD_SHIFT  # bytes
_SECTORS: Final = _CD_SECTOR // SECTOR  # of the load table's in one of the CD's
# Hidden NTFS: what isohybrid writes. No system takes it for a file system of its own to mount or
# to repair, and Linux looks what is in it.
_PARTITION_TYPE: Final = 0x17


@register
class Iso:
    """A CD that shows the kernel, as it is spliced, and the initrds as files.

    In a folder of ours there are the command line and the plan, for people, and the boot file. Its
    first sector is the boot sector for a CD; behind that lie the loader and the parts that are in
    no other file. The image's sector 0 is the boot sector for a disk, which reads the same loader.
    """

    name = "iso"
    suffixes = (".iso",)
    before_firmware = False
    options = (_VOLUME_ID,)

    def check(self, plan: Plan, parts: Parts, options: Options) -> None:
        """Looks at what it is to be called, and at the loader's table.

        Raises:
            InputError: there are too many initrds; the volume id or SOURCE_DATE_EPOCH is none.
        """
        _identity(options)
        _BootFile(plan, parts)

    def write(
        self, plan: Plan, parts: Parts, out: Path, options: Options, meter: Meter | None = None
    ) -> None:
        """Writes the image, whole or not at all.

        Raises:
            InputError: `out` cannot be written; an initrd cannot be read or changes meanwhile; or
                as by `check`.
        """
        from pybuild import iso9660
        from pybuild.iso9660 import File

        volume_id, date = _identity(options)
        boot = _BootFile(plan, parts)
        with contextlib.ExitStack() as opened:
            initrds = [
                opened.enter_context(Source(path, size)) for _, path, size in parts.initrds.placed()
            ]
            files = [
                File("loader.bin", Memory(boot.content), is_ours=True),
                File("cmdline.txt", Memory(parts.cmdline.rstrip(b"\0") + b"\n"), is_ours=True),
                File("plan.json", Memory(plan.to_json().encode()), is_ours=True),
                File(plan.kernel, Memory(parts.image)),
                *(File(initrd.path.name, initrd) for initrd in initrds),
            ]
            image = opened.enter_context(output_file(out))
            places = iso9660.write(image, files, volume_id=volume_id, date=date)
            image.flush()  # the rest is written past its buffer

            boot_place, _, _, kernel_place, *initrd_places = places.files
            slices = boot.slices(boot_place * _SECTORS)
            setup_sectors = len(parts.image_setup) // SECTOR
            lba = kernel_place * _SECTORS + setup_sectors
            slices["kernel"] = [_Slice(0, Memory(parts.kernel), lba)]
            slices["initrd"] = [
                _Slice(offset, initrd, place * _SECTORS)
                for (offset, _, _), initrd, place in zip(
                    parts.initrds.placed(), initrds, initrd_places, strict=True
                )
            ]
            entries = loader.memory(plan)

            def make_entries() -> None:
                for part in boot.read:
                    entries.extend(_entries(part, slices[part.name]))

            copying = Copying(sum(file.content.size for file in files), meter)

            def copy() -> None:
                for file, place in zip(files, places.files, strict=True):
                    at = place * _CD_SECTOR
                    file.content.copy(image.fileno(), at, copying, onto_zeros=True)

            stream.both(make_entries, copy, copying)
            for file in files:
                file.content.check()
            bound = loader.bind(parts.code, plan, entries, loader.CD_SHIFT)
            _write_boot_sectors(image.fileno(), parts, boot_place, bound, places.size)


def _identity(options: Options) -> tuple[str, int]:
    """The volume id and the date."""
    from pybuild import iso9660

    given = str(options.get(_VOLUME_ID.name, _DEFAULT_VOLUME_ID))
    return iso9660.check_volume_id(given), iso9660.source_date()


@dataclass(frozen=True, slots=True)
class _Slice:
    """Some of a part's bytes, and where they lie.

    Attributes:
        offset: within the part.
        content: the bytes.
        lba: in sectors of the load table's.
    """

    offset: int
    content: Piece
    lba: int


class _BootFile:
    """What the CD's boot sector begins: the loader, and what a mounted CD shows in no other file.

    Attributes:
        read: all that the loader has to read.
        content: the file, with zeros for the boot sector and the loader.
    """

    def __init__(self, plan: Plan, parts: Parts) -> None:
        """Works out where everything lies in the file.

        Raises:
            InputError: there are too many parts for the loader.
        """
        self.read = block.to_read(plan, parts)
        self._inside = {
            part.name: part.data
            for part in self.read
            if isinstance(part.data, bytes) and part.name != "kernel"
        }
        initrds = sum(1 for size in parts.initrds.sizes if size)
        entries = len(loader.memory(plan))
        entries += sum(initrds if part.name == "initrd" else 1 for part in self.read)
        content = bytearray(_CD_SECTOR + loader.size(parts.code, entries, loader.CD_SHIFT))
        self._at: dict[str, int] = {}
        for name, data in self._inside.items():
            self._at[name] = len(content)
            content += data + bytes(-len(data) % _CD_SECTOR)
        self.content = bytes(content)

    def slices(self, lba: int) -> dict[str, list[_Slice]]:
        """The parts that are in the file, which begins at this LBA."""
        return {
            name: [_Slice(0, Memory(data), lba + self._at[name] // SECTOR)]
            for name, data in self._inside.items()
        }


def _entries(part: Part, slices: Sequence[_Slice]) -> list[Entry]:
    """The load table's entries for a part: one a slice, with the zeros up to the next.

    Those lie behind it in its last sector: an initrd begins at a multiple of 4 in memory.
    """
    ends = [*(each.offset for each in slices[1:]), part.size]
    entries = []
    for each, end in zip(slices, ends, strict=True):
        if each.content.size:
            checksum = Checksum()
            each.content.add_to(checksum)
            checksum.update(bytes(end - each.offset - each.content.size))
            size, address = end - each.offset, part.address + each.offset
            entries.append(Entry(part.name, each.lba, size, address, checksum.value))
    return entries


def _write_boot_sectors(descriptor: int, parts: Parts, place: int, bound: bytes, size: int) -> None:
    """Writes the loader, the boot sector for a CD before it, and the one for a disk.

    The disk has one partition, which begins at 0 and covers the whole file, so that it has the
    CD's file system, too. It is as isohybrid makes them: they boot wherever BIOSes ask for an
    active partition, and Linux's tools know them. One that begins later would need a second set of
    volume descriptors.

    Args:
        descriptor: of the image.
        parts: with the flat binaries.
        place: where the boot file begins, in sectors of the CD.
        bound: the loader with its table.
        size: bytes of the image.
    """
    sector = loader.boot_sector(parts.code, place + 1, bound, loader.CD_SHIFT)
    sector += bytes(_CD_SECTOR - len(sector))
    stream.write_at(descriptor, sector + bound, place * _CD_SECTOR)

    sector = loader.boot_sector(parts.code, (place + 1) * _SECTORS, bound, loader.DISK_SHIFT)
    partition = mbr.Partition(_PARTITION_TYPE, 0, size // SECTOR)
    # The same for the same image, another for any other: the table has the checksums.
    own = mbr.own_part(mbr.signature(bound), partition, size // SECTOR)
    stream.write_at(descriptor, put_disk_own(sector, own), 0)
