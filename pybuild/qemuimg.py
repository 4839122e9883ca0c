"""Disk images in other forms than raw, made by `qemu-img convert`; the same disk, the same bytes.

QEMU gives an image identifiers that are new each time; they are written over here.
"""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from pybuild.bootproto import SECTOR
from pybuild.errors import BuildError
from pybuild.stream import write_at

# VMDK 1.1, "Hosted Sparse Extent Header": the descriptor's place and size, in sectors.
_VMDK_DESCRIPTOR: Final = (0x1C, struct.Struct("<QQ"))
# VirtualBox's VDICore.h, VDIHEADER1PLUS: the image's UUID, and that of its last change.
_VDI_UUIDS: Final = (0x188, 0x198)
# MS-VHDX 2.2.2, header, 4 KiB and there twice: signature, CRC-32C, sequence number, FileWriteGuid,
# DataWriteGuid, the rest; in that the log's size and place.
_VHDX_HEADERS: Final = (64 << 10, 128 << 10)
_VHDX_HEADER: Final = struct.Struct("<4sIQ16s16s4048s")
_VHDX_LOG_AT: Final = 0x44
_VHDX_LOG: Final = struct.Struct("<IQ")
# 2.2.3, region table, with its entry for the metadata; 2.6, metadata table, with its entry for the
# disk's own identifier (2.6.2.5, "page 83 data").
_VHDX_REGIONS: Final = 192 << 10
_VHDX_TABLE_SIZE: Final = 64 << 10
_VHDX_METADATA: Final = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_VHDX_DISK_ID: Final = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
_CRC32C: Final = 0x82F63B78  # Castagnoli's polynomial, the lowest power first


def find() -> str:
    """Where qemu-img is.

    Raises:
        BuildError: it isn't installed.
    """
    found = shutil.which("qemu-img")
    if found is None:
        raise BuildError(
            "qemu-img is not installed; run `apt-get install qemu-utils`, "
            "or give -o a name that ends with .img, for a raw image"
        )
    return found


def convert(raw: int, out: int, name: Path, identity: UUID) -> None:
    """Writes a raw image in the form that a file's suffix stands for.

    Args:
        raw: the raw image's descriptor.
        out: the descriptor of the file to write; what it held is lost.
        name: what that file is to be called.
        identity: what all identifiers in it are made from.

    Raises:
        BuildError: qemu-img is missing, or fails.
    """
    form = name.suffix.lower()
    why = _convert("raw", f"/proc/self/fd/{raw}", form.removeprefix("."), raw, out)
    if why:
        raise BuildError(f"{name}: not written: {why}")
    _SETTLE[form](out, name, identity)


def to_raw(path: Path, form: str, raw: int) -> None:
    """Writes the disk that an image has as a raw image, with holes where it is empty.

    Args:
        path: the image.
        form: qemu-img's name of its form.
        raw: the descriptor of the file to write; what it held is lost.

    Raises:
        BuildError: qemu-img is missing, or fails.
    """
    why = _convert(form, str(path.resolve()), "raw", raw)
    if why:
        raise BuildError(f"{path}: cannot be read as {form}: {why}")


def _convert(form: str, source: str, to: str, *descriptors: int) -> str:
    """Converts to the last of these descriptors; returns why it failed."""
    # The files have no names, but the system has names for descriptors.
    out = f"/proc/self/fd/{descriptors[-1]}"
    command = [find(), "convert", "-f", form, "-O", to, source, out]
    run = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=descriptors)
    why = " ".join(run.stderr.split()) or f"exit status {run.returncode}"
    return why if run.returncode else ""


def _settle_nothing(_out: int, _name: Path, _identity: UUID) -> None:
    """All is the same each time already."""


def _settle_vmdk(out: int, name: Path, identity: UUID) -> None:
    """Gives it its name, which VMware looks at, and a content ID."""
    at, form = _VMDK_DESCRIPTOR
    offset, size = (value * SECTOR for value in form.unpack(os.pread(out, form.size, at)))
    text = os.pread(out, size, offset).rstrip(b"\0").decode("latin-1")
    own = re.sub(r"[^\w.-]", "_", name.name, flags=re.ASCII)
    text = re.sub(r"^CID=.*$", f"CID={identity.int & 0x7FFFFFFF:08x}", text, flags=re.M)
    text = re.sub(r'^(RW \d+ SPARSE) ".*"$', rf'\1 "{own}"', text, flags=re.M)
    write_at(out, text.encode("latin-1").ljust(size, b"\0"), offset)


def _settle_vdi(out: int, _name: Path, identity: UUID) -> None:
    for number, at in enumerate(_VDI_UUIDS):
        write_at(out, uuid5(identity, f"vdi {number}").bytes_le, at)


def _settle_vhdx(out: int, _name: Path, identity: UUID) -> None:
    # Of the two headers the one with the higher sequence number counts. Its log GUID is 0, as the
    # image was closed: the log's entries mean nothing any more.
    current = max(
        (os.pread(out, _VHDX_HEADER.size, at) for at in _VHDX_HEADERS),
        key=lambda header: int(_VHDX_HEADER.unpack(header)[2]),
    )
    signature, _, _, _, _, rest = _VHDX_HEADER.unpack(current)
    file_id, data_id, disk_id = (uuid5(identity, f"vhdx {n}").bytes_le for n in range(3))
    for sequence, at in enumerate(_VHDX_HEADERS, 1):
        checksum = 0
        for _ in range(2):  # it is computed with its own field 0
            header = _VHDX_HEADER.pack(signature, checksum, sequence, file_id, data_id, rest)
            checksum = _crc32c(header)
        write_at(out, header, at)
    log_size, log = _VHDX_LOG.unpack_from(current, _VHDX_LOG_AT)
    write_at(out, bytes(log_size), log)
    metadata = _vhdx_find(out, _VHDX_REGIONS, _VHDX_METADATA, 8)
    write_at(out, disk_id, metadata + _vhdx_find(out, metadata, _VHDX_DISK_ID, 4))


def _vhdx_find(out: int, at: int, wanted: UUID, size: int) -> int:
    """The offset, of so many bytes, that a table has behind a GUID."""
    table = os.pread(out, _VHDX_TABLE_SIZE, at)
    found = table.index(wanted.bytes_le) + len(wanted.bytes)
    return int.from_bytes(table[found : found + size], "little")


def _crc32c(data: bytes | bytearray) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


_SETTLE: Final[dict[str, Callable[[int, Path, UUID], None]]] = {
    ".qcow2": _settle_nothing,
    ".vmdk": _settle_vmdk,
    ".vdi": _settle_vdi,
    ".vhdx": _settle_vhdx,
}
