"""A file that a PC boots from, told by its content, and QEMU's arguments that attach it.

Everything is attached with QEMU's snapshot=on, or read-only: what the guest writes never reaches
the file, and many guests may boot from one at a time.
"""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pybuild import bootproto
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.lookslike import looks_like

Drive = Literal["ide", "ahci", "virtio", "usb", "floppy", "cdrom"]

# How each drive is attached: QEMU's arguments behind the -drive that has the id "image".
# bootindex=0 puts it before every drive that the user's own arguments add. ide.0 is what a plain
# `qemu-system-x86_64 disk.img` uses: the first IDE channel; the machine q35 has no IDE controller,
# there ide.0 and ide.1 are ports of its AHCI controller. A further AHCI controller fits every
# machine, so `ahci` need not know which it is.
_ATTACHED: Final[dict[Drive, tuple[str, ...]]] = {
    "ide": ("-device", "ide-hd,bus=ide.0,drive=image,bootindex=0"),
    "ahci": (
        *("-device", "ahci,id=controller"),
        *("-device", "ide-hd,bus=controller.0,drive=image,bootindex=0"),
    ),
    "virtio": ("-device", "virtio-blk-pci,drive=image,bootindex=0"),
    "usb": (
        *("-device", "qemu-xhci,id=controller"),
        *("-device", "usb-storage,bus=controller.0,drive=image,bootindex=0"),
    ),
    # Only with if=floppy does the machine q35 have a floppy controller; so it has no bootindex.
    "floppy": ("-boot", "order=a"),
    "cdrom": ("-device", "ide-cd,bus=ide.1,drive=image,bootindex=0"),
}

DEFAULT_MEMORY: Final = 512  # MiB of RAM that a guest has who boots from a file

_CD_MAGIC: Final = (0x8001, b"CD001")  # ISO 9660, ECMA-119 8.1.2: in sector 16, of 2048 bytes
# What QEMU calls a format, and how its files begin: docs/interop/qcow2.txt in QEMU's sources; the
# VMDK specification's sparse extents and its descriptor files; VirtualBox's VDICore.h; MS-VHDX.
_FORMATS: Final = (
    ("qcow2", 0x0, b"QFI\xfb"),
    ("vmdk", 0x0, b"KDMV"),
    ("vmdk", 0x0, b"# Disk DescriptorFile"),
    ("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    ("vhdx", 0x0, b"vhdxfile"),
)
_HEAD: Final = 0x8001 + len(_CD_MAGIC[1])  # bytes at a file's start that tell what it is
_LARGEST_FLOPPY: Final = 2880 << 10  # bytes; a larger image is no floppy to QEMU
_EXPECTED: Final = (
    "a disk image with a boot sector, an ISO 9660 image, a qcow2, vmdk, vdi or vhdx image, "
    "or a folder that `build --target ram` wrote"
)


@dataclass(frozen=True, slots=True)
class Image:
    """A file, or a block device, to boot from.

    Attributes:
        path: where it is.
        format: what QEMU calls its format.
        is_cd: whether it has an ISO 9660 file system, and so is a CD if nobody says otherwise.
        size: bytes of the file; 0 for a block device.
    """

    path: Path
    format: str
    is_cd: bool
    size: int

    @property
    def usual_drive(self) -> Drive:
        """What it is attached as if nobody says otherwise."""
        return "cdrom" if self.is_cd else "ide"


def is_folder(path: Path, drive: Drive | None) -> bool:
    """Whether an image is a folder, which must be one that target `ram` wrote.

    Raises:
        InputError: it is one, and a drive was asked for.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return False
    except OSError:  # whoever reads it says why it can't be
        return False
    if drive is not None:
        raise InputError(f"{path}: is a folder; --drive {drive} is for a disk or CD image")
    return True


def is_kernel(path: Path) -> bool:
    """Whether a file is a Linux kernel, by its setup header's magic; not if it can't be read."""
    try:
        if not path.is_file():  # to open a pipe is to wait for whoever writes to it
            return False
        with path.open("rb") as stream:
            return _is_kernel(stream.read(_HEAD))
    except OSError:
        return False


def read(path: Path) -> Image:
    """Looks what a file is.

    Raises:
        InputError: it cannot be read, or is nothing that a PC boots from.
    """
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise InputError(f"{path}: no image to boot: expected {_EXPECTED}")
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path}: no image to boot: {error.strerror}") from error
    for name, offset, magic in _FORMATS:
        if head.startswith(magic, offset):
            return Image(path, name, is_cd=False, size=status.st_size)
    is_cd = head.startswith(_CD_MAGIC[1], _CD_MAGIC[0])
    if not (is_cd or _has_boot_sector(head)):
        raise InputError(f"{path}: no image to boot: {looks_like(head)}; expected {_EXPECTED}")
    if _is_kernel(head):
        raise InputError(
            f"{path}: no image to boot: a Linux kernel, which no BIOS starts by itself; "
            "make an image of it with `bootsplice build`"
        )
    return Image(path, "raw", is_cd=is_cd, size=status.st_size)


def arguments(image: Image, drive: Drive | None) -> list[str]:
    """QEMU's arguments that attach the image as what the machine boots from.

    Args:
        image: the image.
        drive: what it is to be; None for `cdrom` if it is one, else `ide`.

    Raises:
        InputError: it is too large for a floppy.
    """
    drive = drive or image.usual_drive
    if drive == "floppy" and image.format == "raw" and image.size > _LARGEST_FLOPPY:
        raise InputError(
            f"{image.path}: has {image.size} bytes, and a floppy has at most {_LARGEST_FLOPPY}; "
            "give another --drive"
        )
    # An absolute path, as QEMU takes what stands before a colon for a protocol.
    name = option_value(str(image.path.absolute()))
    kept = "readonly=on" if drive == "cdrom" else "snapshot=on"
    interface = "if=floppy" if drive == "floppy" else "if=none,id=image"
    return [
        *("-drive", f"{interface},format={image.format},{kept},file={name}"),
        *_ATTACHED[drive],
    ]


def option_value(text: str) -> str:
    """A text as a value in one of QEMU's options, where a comma is written twice."""
    return text.replace(",", ",,")


def _is_kernel(head: bytes) -> bool:
    return head[SECTOR + 2 : SECTOR + 6] == bootproto.HEADER_MAGIC.to_bytes(4, "little")


def _has_boot_sector(head: bytes) -> bool:
    return head[SECTOR - 2 : SECTOR] == bootproto.BOOT_FLAG.to_bytes(2, "little")
