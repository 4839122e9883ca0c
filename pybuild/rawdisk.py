"""A raw disk image or a block device, opened to be written in place, sector by sector.

Nobody else may have it: a block device must not be mounted, and a second bootsplice is refused.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.lookslike import looks_like

BOOT_SIGNATURE: Final = slice(0x1FE, 0x200)  # of sector 0, and of every extended boot record
BOOT_SIGNATURE_BYTES: Final = b"\x55\xaa"

_BLKSSZGET: Final = 0x1268  # ioctl_list(2): a block device's logical sectors, bytes
_INT: Final = struct.Struct("@i")
_CD_MAGIC: Final = (0x8001, b"CD001")  # ISO 9660, ECMA-119 8.1.2
_HEAD: Final = 0x8001 + len(_CD_MAGIC[1])  # bytes
_GPT_OF_4K_SECTORS: Final = (4096, b"EFI PART")
_EXPECTED: Final = "expected a raw disk image (see `qemu-img convert -O raw`) or a block device"


@dataclass(frozen=True, slots=True)
class Disk:
    """An open disk.

    Attributes:
        name: its path, for messages.
        sectors: how many sectors of 512 bytes it has.
        descriptor: the open file.
    """

    name: str
    sectors: int
    descriptor: int

    def read(self, lba: int, count: int) -> bytes:
        """So many sectors; all of them lie on the disk."""
        found = bytearray()
        while len(found) < count * SECTOR:
            at = lba * SECTOR + len(found)
            with self.named():
                chunk = os.pread(self.descriptor, count * SECTOR - len(found), at)
            if not chunk:
                raise InputError(f"{self.name}: sector {at // SECTOR} is behind its end")
            found += chunk
        return bytes(found)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Writes at an offset in bytes; what is no longer than a sector is written in one piece."""
        left = memoryview(data)
        while left:
            with self.named():
                written = os.pwrite(self.descriptor, left, offset)
            left, offset = left[written:], offset + written

    def flush(self) -> None:
        """Waits until everything that was written is on the medium."""
        with self.named():
            os.fsync(self.descriptor)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Names the disk in an error of the system's, which by itself names nothing."""
        try:
            yield
        except OSError as error:
            error.filename = self.name
            raise


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Disk]:
    """Opens a disk to be read and written, and looks whether it is one.

    Raises:
        InputError: it is none, it is in use, or its sectors have another size than 512 bytes.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InputError(f"{path}: no disk: {_EXPECTED}")
        # On a block device, O_EXCL fails while it or a partition of it is mounted: open(2).
        exclusive = os.O_EXCL if stat.S_ISBLK(mode) else 0
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InputError(
                f"{path}: in use: it or a partition of it is mounted, or swap, or part of a "
                "volume; unmount it first"
            ) from error
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        _lock(path, descriptor)
        if stat.S_ISBLK(mode):
            _check_device(path, descriptor)
        disk = Disk(str(path), os.lseek(descriptor, 0, os.SEEK_END) // SECTOR, descriptor)
        _check_contents(disk)
        yield disk
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> None:
    """For udev, too, such a lock on a block device means: leave it alone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{path}: in use: another program has locked it") from error


def _check_device(path: Path, descriptor: int) -> None:
    device = os.fstat(descriptor).st_rdev
    if Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/partition").exists():
        raise InputError(
            f"{path}: is a partition; give the disk that it is on, and --partition with its number"
        )
    (size,) = _INT.unpack(fcntl.ioctl(descriptor, _BLKSSZGET, bytes(_INT.size)))
    if size != SECTOR:
        raise InputError(f"{path}: has sectors of {size} bytes, expected {SECTOR}")


def _check_contents(disk: Disk) -> None:
    head = disk.read(0, min(-(-_HEAD // SECTOR), disk.sectors))
    if head[BOOT_SIGNATURE] != BOOT_SIGNATURE_BYTES:
        raise InputError(
            f"{disk.name}: no raw disk with a partition table: no 55aa at {BOOT_SIGNATURE.start:#x}"
            f", {looks_like(head)}; {_EXPECTED}"
        )
    if head.startswith(_CD_MAGIC[1], _CD_MAGIC[0]):
        raise InputError(f"{disk.name}: is a CD image (ISO 9660), not a disk with free room")
    if head.startswith(_GPT_OF_4K_SECTORS[1], _GPT_OF_4K_SECTORS[0]):
        raise InputError(f"{disk.name}: is the image of a disk with sectors of 4096 bytes, not 512")
