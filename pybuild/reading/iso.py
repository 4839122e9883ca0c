"""Reads an ISO that target `iso` wrote: two boot sectors, which lead to one loader, and files."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pybuild import installed, iso9660, planfile
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.plan import Plan
from pybuild.rawdisk import Disk
from pybuild.reading import agree, code, payload
from pybuild.reading import disk as disks
from pybuild.reading.code import Binaries
from pybuild.reading.found import Change, File, Image
from pybuild.reading.payload import Payload, span

_MARK: Final = "an ISO 9660 file system that boots by a boot sector of bootsplice's"
# El Torito 1.0: the boot record volume descriptor, where in it the catalog's sector is, and of the
# catalog the validation entry's checksummed words and the initial entry.
_BOOT_RECORD: Final = 17
_BOOT_RECORD_ID: Final = b"\0CD001\x01EL TORITO SPECIFICATION"
_CATALOG: Final = (0x47, struct.Struct("<I"))
_VALIDATION: Final = struct.Struct("<16H")
_INITIAL: Final = struct.Struct("<BBHBBHI")  # bootable, media, segment, type, 0, sectors, LBA
_BOOTABLE: Final = 0x88
_NO_EMULATION: Final = 0
_VOLUME_SIZE: Final = (16 * iso9660.SECTOR + 80, struct.Struct("<I"))  # ECMA-119 8.4.8
_PLAN: Final = "plan.json"
_CMDLINE: Final = "cmdline.txt"
_MOST: Final = 1 << 20  # bytes of a file that is looked into


class _DamagedError(Exception):
    """What is wrong."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """The El Torito entry: where the boot file begins, and how many sectors a BIOS loads."""

    offset: int
    sectors: int


def read(disk: Disk, binaries: Binaries, size: int) -> Image:
    """What is on the CD.

    Args:
        disk: the file.
        binaries: the flat binaries.
        size: of it, bytes.
    """
    damage: list[str] = []
    facts: dict[str, int | str] = {}
    sectors = {0: disk.read(0, 1)}
    try:
        entry = _el_torito(disk)
        facts |= {"el_torito_offset": entry.offset, "el_torito_sectors": entry.sectors}
        sectors[entry.offset] = span(disk, entry.offset, SECTOR)
    except _DamagedError as error:
        damage.append(f"El Torito: {error}")
    ours = {at: sector for at, sector in sectors.items() if installed.is_ours(sector)}
    damage += [f"no boot sector of bootsplice's at {at:#x}" for at in sectors.keys() - ours]
    first = [
        payload.sector_part(binaries, "CD boot sector" if at else "boot sector", at, sector)
        for at, sector in ours.items()
    ]
    if len({payload.loader_place(sector)[:3] for sector in ours.values()}) > 1:
        damage.append("the two boot sectors lead to different loaders")
    found = payload.read(disk, binaries, next(iter(ours.values())))
    parts = code.suspect((*first, *found.parts), payload.TOGETHER)
    files: list[File] = []
    plan = None
    try:
        files += _files(disk)
        plan = _plan(disk, files, found)
    except _DamagedError as error:
        damage.append(str(error))
    if plan is not None:
        damage += agree.differences(plan, parts, found.kernel, binaries)
        damage += _kernel_file(disk, files, plan, found)
        facts |= {"machine": plan.machine, "kernel": plan.kernel}
    return Image(
        path=disk.name,
        size=size,
        kind="iso",
        mark=_MARK,
        parts=parts,
        kernel=found.kernel,
        changes=tuple(Change(p.field, p.old, p.new) for p in plan.patches)
        if plan
        else found.changes,
        cmdline=found.text,
        table=disks.table(disk, damage),
        files=tuple(files),
        facts=facts,
        damage=tuple(damage),
    )


def is_ours(disk: Disk) -> bool:
    """Whether one of the two boot sectors is there."""
    try:
        return any(installed.is_ours(span(disk, at, SECTOR)) for at in (0, _el_torito(disk).offset))
    except _DamagedError:
        return installed.is_ours(disk.read(0, 1))


def _el_torito(disk: Disk) -> _Entry:
    """The entry.

    Raises:
        _DamagedError: it cannot be read.
    """
    try:
        return _read_el_torito(disk)
    except InputError as error:
        raise _DamagedError("lies behind the image's end") from error


def _read_el_torito(disk: Disk) -> _Entry:
    record = span(disk, _BOOT_RECORD * iso9660.SECTOR, iso9660.SECTOR)
    if not record.startswith(_BOOT_RECORD_ID):
        raise _DamagedError(f"no boot record in sector {_BOOT_RECORD}")
    at, form = _CATALOG
    (catalog_at,) = form.unpack_from(record, at)
    catalog = span(disk, catalog_at * iso9660.SECTOR, iso9660.SECTOR)
    if sum(_VALIDATION.unpack_from(catalog)) & 0xFFFF:
        raise _DamagedError("the catalog's checksum is wrong")
    bootable, media, _, _, _, sectors, lba = _INITIAL.unpack_from(catalog, _VALIDATION.size)
    if (bootable, media, sectors) != (_BOOTABLE, _NO_EMULATION, iso9660.BOOT_SECTORS) or not lba:
        raise _DamagedError(
            f"the entry has {bootable:#04x}, media {media}, {sectors} sectors from {lba}, expected "
            f"{_BOOTABLE:#04x}, media {_NO_EMULATION}, {iso9660.BOOT_SECTORS} sectors"
        )
    span(disk, lba * iso9660.SECTOR, SECTOR)
    return _Entry(lba * iso9660.SECTOR, sectors)


def _files(disk: Disk) -> list[File]:
    """Every file, by its Rock Ridge path.

    Raises:
        _DamagedError: the file system cannot be read.
    """
    import pycdlib

    at, form = _VOLUME_SIZE
    (sectors,) = form.unpack_from(span(disk, at, form.size))
    if sectors * iso9660.SECTOR > disk.sectors * SECTOR:  # pycdlib would shorten the files to fit
        raise _DamagedError(
            f"cut off: the file system has {sectors * iso9660.SECTOR} bytes, and the image "
            f"{disk.sectors * SECTOR}"
        )
    iso = pycdlib.PyCdlib()
    try:
        with open(disk.descriptor, "rb", closefd=False) as stream:
            iso.open_fp(stream)
            paths = [
                f"{folder.rstrip('/')}/{name}"
                for folder, _, names in iso.walk(rr_path="/")
                for name in names
            ]
            records = [iso.get_record(rr_path=path) for path in paths]
            found = [
                File(path, record.extent_location() * iso9660.SECTOR, record.get_data_length())
                for path, record in zip(paths, records, strict=True)
            ]
    except OSError:
        raise
    except Exception as error:  # of every kind there is: it expects a file system that is whole
        raise _DamagedError(f"the file system cannot be read: {error}") from error
    return sorted(found, key=lambda file: file.path)


def _kernel_file(disk: Disk, files: list[File], plan: Plan, found: Payload) -> Iterator[str]:
    """The file has the kernel that is booted, and before it a real-mode part for other loaders."""
    offsets = {part.name: part.offset for part in found.parts}
    for file in files:
        if found.kernel is None or file.path.count("/") > 1:
            continue
        setup = found.kernel.data
        if file.offset + len(setup) == offsets.get("kernel") and not agree.is_of_image(
            plan, setup, span(disk, file.offset, len(setup))
        ):
            yield f"{file.path}: not the real-mode part that is booted"


def _plan(disk: Disk, files: list[File], found: Payload) -> Plan | None:
    """The plan, if it can be read; the command line for people must be the kernel's.

    Raises:
        _DamagedError: one of the two is damaged.
    """
    ours = {file.path.rpartition("/")[2]: file for file in files if file.path.count("/") > 1}
    content = {}
    for name in (_PLAN, _CMDLINE):
        file = ours.get(name)
        if file is None or file.size > _MOST:
            raise _DamagedError(f"{name}: is not on the CD")
        try:
            content[name] = span(disk, file.offset, file.size)
        except InputError as error:
            raise _DamagedError(f"{name}: lies behind the image's end") from error
    if found.cmdline is not None and content[_CMDLINE] != found.cmdline.rstrip(b"\0") + b"\n":
        raise _DamagedError(f"{_CMDLINE}: not the command line that the kernel gets")
    try:
        return planfile.parse(content[_PLAN])
    except ValueError as error:
        raise _DamagedError(f"{_PLAN}: not as bootsplice writes it: {error}") from error
