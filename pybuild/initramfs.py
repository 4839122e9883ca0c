"""An initramfs that boots to a shell script: busybox, /init and a payload for it to check.

The archive is cpio's "newc" format (Linux: Documentation/driver-api/early-userspace/
buffer-format.rst), compressed with gzip. The same input gives the same bytes,
with the same zlib.
"""

import gzip
import io
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pybuild.errors import InputError

_LARGEST_FILE: Final = 0xFFFF_FFFF  # bytes; sizes are eight hexadecimal digits


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory, mode 0755. It must come before what it holds."""

    name: str


@dataclass(frozen=True, slots=True)
class File:
    """A regular file; `mode` is its permission bits."""

    name: str
    mode: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link to `target`."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class CharacterDevice:
    """A character device, mode 0600."""

    name: str
    major: int
    minor: int


Entry = Directory | File | Symlink | CharacterDevice


def newc(entries: Iterable[Entry]) -> bytes:
    """A cpio archive of these entries, in this order, owned by root and dated 1970.

    Names are paths without a leading slash.

    Raises:
        InputError: a file is larger than the format can say.
    """
    archive = bytearray()
    for inode, entry in enumerate(entries, start=1):
        match entry:
            case Directory():
                archive += _member(entry.name, inode, stat.S_IFDIR | 0o755, links=2)
            case File():
                archive += _member(entry.name, inode, stat.S_IFREG | entry.mode, entry.content)
            case Symlink():
                archive += _member(entry.name, inode, stat.S_IFLNK | 0o777, entry.target.encode())
            case CharacterDevice():
                device = (entry.major, entry.minor)
                archive += _member(entry.name, inode, stat.S_IFCHR | 0o600, device=device)
    archive += _member("TRAILER!!!", inode=0, mode=0)
    return bytes(archive)


def make(busybox: bytes, init: bytes, payload: bytes) -> bytes:
    """A gzip'ed initramfs that runs `init`, a script for busybox's sh.

    Args:
        busybox: a statically linked busybox; it becomes /bin/busybox and /bin/sh.
        init: becomes /init.
        payload: becomes /payload, whose checksum tells whether all of it arrived.

    Raises:
        InputError: one of them is 4 GiB or larger.
    """
    archive = newc(
        [
            Directory("bin"),
            File("bin/busybox", 0o755, busybox),
            Symlink("bin/sh", "busybox"),
            Directory("dev"),
            CharacterDevice("dev/console", 5, 1),  # the kernel opens it for /init
            Directory("proc"),
            Directory("sys"),
            File("init", 0o755, init),
            File("payload", 0o644, payload),
        ]
    )
    compressed = io.BytesIO()
    # Not gzip.compress(): what it writes as the operating system depends on Python's version.
    with gzip.GzipFile(filename="", mode="wb", fileobj=compressed, mtime=0) as stream:
        stream.write(archive)
    return compressed.getvalue()


def _member(
    name: str,
    inode: int,
    mode: int,
    content: bytes = b"",
    *,
    links: int = 1,
    device: tuple[int, int] = (0, 0),
) -> bytes:
    if len(content) > _LARGEST_FILE:
        raise InputError(
            f"{name}: has {len(content)} bytes, a cpio archive takes at most {_LARGEST_FILE}; "
            "make it smaller"
        )
    path = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, dev (major, minor), rdev (major, minor),
    # namesize, check
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields)
    return _padded(header + path) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
