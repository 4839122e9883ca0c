"""Writes a CD's file system that a BIOS boots from: ISO 9660, Rock Ridge, Joliet, El Torito.

`pycdlib` does the work; what it would take from the machine that it runs on is given to it here.
"""

import contextlib
import io
import os
import re
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from pybuild import bootproto, isonames, mbr
from pybuild.errors import InputError
from pybuild.regions import align_up
from pybuild.stream import Piece

SECTOR: Final = 2048  # bytes

_APPLICATION: Final = "BOOTSPLICE"
_LONGEST_VOLUME_ID: Final = 32
_VOLUME_ID: Final = re.compile(f"[A-Z0-9_]{{1,{_LONGEST_VOLUME_ID}}}")  # ECMA-119 8.4.7
_LONGEST_JOLIET_VOLUME_ID: Final = 16  # the same bytes, two for a character
BOOT_SECTORS: Final = 4  # of 512 bytes, that the BIOS loads: some load four whatever is asked
# A drive may fail to read the last sectors of a CD that was written track at once, and Linux reads
# ahead into them: mkisofs, too, ends its images with so many empty ones.
_RUN_OUT: Final = 150
# A disk of whole cylinders (mbr.SMALL) is the same disk whoever counts its sectors; and SeaBIOS
# gives an AHCI disk of less than one no geometry, and so does not boot it.
_UNIT: Final = mbr.SMALL.cylinder * bootproto.SECTOR
_FOLDER: Final = "bootsplice"  # ours
_CATALOG: Final = "boot.cat"
_FILE_MODE, _FOLDER_MODE = 0o100444, 0o040555  # st_mode

_NO_DATE: Final = 315532800  # 1980-01-01, before any kernel: where MS-DOS's time begins
_DATE: Final = re.compile("[0-9]{1,10}")
_LAST_DATE: Final = 5869583999  # 2155-12-31 23:59:59; ECMA-119 9.1.5 has a byte for the year


@dataclass(frozen=True, slots=True)
class File:
    """A file for the CD.

    Attributes:
        name: what it is called, unless another of the folder's files is called so, too.
        content: what is in it.
        is_ours: whether it lies in our folder, and not in the root folder.
    """

    name: str
    content: Piece
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything lies on the CD.

    Attributes:
        files: the sector where each file begins.
        size: bytes of the whole.
    """

    files: tuple[int, ...]
    size: int


def source_date() -> int:
    """The date of everything on the CD, in seconds since 1970, UTC.

    It is SOURCE_DATE_EPOCH (reproducible-builds.org/specs/source-date-epoch), or always the same.

    Raises:
        InputError: SOURCE_DATE_EPOCH is no such date.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return _NO_DATE
    if not _DATE.fullmatch(text) or int(text) > _LAST_DATE:
        raise InputError(
            f"SOURCE_DATE_EPOCH={text}: expected seconds since 1970-01-01, 0 to {_LAST_DATE} "
            "(ISO 9660 ends with 2155)"
        )
    return int(text)


def check_volume_id(text: str) -> str:
    """The volume id, if it is one: ECMA-119 8.4.7, d-characters.

    Raises:
        InputError: it is none.
    """
    if not _VOLUME_ID.fullmatch(text):
        raise InputError(
            f"option volume-id is {text!r}, expected 1 to {_LONGEST_VOLUME_ID} of the characters "
            "A to Z, 0 to 9 and _"
        )
    return text


def write(stream: BinaryIO, files: Sequence[File], *, volume_id: str, date: int) -> Places:
    """Writes the file system, but neither the files' contents nor the system area.

    Args:
        stream: where to; empty, and written in any order.
        files: what is on the CD. The first is the El Torito boot image, and is ours.
        volume_id: as `check_volume_id` wants it.
        date: of everything, in seconds since 1970.
    """
    import pycdlib  # takes longer to import than all the rest

    with _clock(date):
        iso = pycdlib.PyCdlib()
        iso.new(
            vol_ident=volume_id[:_LONGEST_JOLIET_VOLUME_ID],
            app_ident_str=_APPLICATION,
            joliet=3,
            rock_ridge="1.09",
        )
        # It refuses for both directories what is too long for Joliet's alone.
        iso.pvd.volume_identifier = volume_id.ljust(_LONGEST_VOLUME_ID).encode()

        ours, *names = isonames.choose([_FOLDER, *(f.name for f in files if not f.is_ours)])
        folder, joliet_folder = f"/{ours.iso.rstrip('.')}", f"/{ours.joliet}"
        iso.add_directory(
            folder, rr_name=ours.rock_ridge, joliet_path=joliet_folder, file_mode=_FOLDER_MODE
        )
        in_root = iter(names)
        in_ours = iter(isonames.choose([file.name for file in files if file.is_ours]))
        paths = []
        for file in files:
            name = next(in_ours if file.is_ours else in_root)
            paths.append(f"{folder if file.is_ours else ''}/{name.iso};1")
            iso.add_fp(
                io.BytesIO(),
                file.content.size,
                paths[-1],
                rr_name=name.rock_ridge,
                joliet_path=f"{joliet_folder if file.is_ours else ''}/{name.joliet}",
                file_mode=_FILE_MODE,
            )
        iso.add_eltorito(
            paths[0],
            bootcatfile=f"{folder}/{_CATALOG.upper()};1",
            rr_bootcatname=_CATALOG,
            joliet_bootcatfile=f"{joliet_folder}/{_CATALOG}",
            boot_load_size=BOOT_SECTORS,
        )

        iso.force_consistency()
        used = iso.pvd.space_size * SECTOR
        size = align_up(used + _RUN_OUT * SECTOR, _UNIT)
        # The volume takes it all, so that a copy of the volume is a copy of the whole image.
        for descriptor in [*iso.pvds, *iso.svds]:
            descriptor.add_to_space_size(size - used)
        iso.inodes.clear()  # what it would copy: only sizes and places are its business here
        iso.write_fp(stream)
        sectors = [iso.get_record(iso_path=path).extent_location() for path in paths]
        iso.close()
    return Places(tuple(sectors), size)


@contextlib.contextmanager
def _clock(date: int) -> Iterator[None]:
    """Lets pycdlib see a clock that stands still, and no time zone.

    It takes a date only for a few of its records, never for the volume's last change, and turns
    each into the machine's local time. So the name `time` in its modules is another module
    meanwhile; should a version of it look for anything else in there, that is an AttributeError
    and no wrong date.
    """
    from pycdlib import dates, headervd, pycdlib

    stopped = types.SimpleNamespace(
        time=lambda: float(date), localtime=time.gmtime, strftime=time.strftime
    )
    modules = (dates, headervd, pycdlib)
    name = "time"
    for module in modules:
        setattr(module, name, stopped)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, name, time)
