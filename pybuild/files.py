"""Writing so that nothing half-written is left and nothing that was there is lost.

Everything is written beside its final place, flushed to the disk, and renamed over it. What only
a directory needs is imported there: a build of a file begins sooner without it.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pybuild import flock
from pybuild.errors import InputError


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file whole or not at all; an older file of that name is replaced at the end."""
    with replace_file(path) as stream:
        for chunk in chunks:
            stream.write(chunk)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Yields an empty file, which takes `path`'s place when the block ends well.

    Until then it has no name, where the file system can do that: a process that is killed leaves
    nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".bootsplice.{os.urandom(8).hex()}")
    try:
        descriptor, is_nameless = _open_new(beside)
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(descriptor)
            if is_nameless:
                _give_name(descriptor, beside)
        beside.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.filename is None:  # a write that fails doesn't say where
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def output_file(path: Path, option: str = "-o") -> Iterator[BinaryIO]:
    """The same for a file that the user named, by this option.

    Raises:
        InputError: `path` is there and is no file, or nothing can be made there.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = path.resolve()  # a link stays, and what it points to is replaced
            _refuse_what_is_no_file(path, option)
            stream = stack.enter_context(replace_file(path))
        except (OSError, RuntimeError) as error:  # RuntimeError: as in replace_directory()
            why = error.strerror if isinstance(error, OSError) else "a link to itself"
            raise InputError(f"{path}: cannot be written: {why}; give another {option}") from error
        yield stream


@contextlib.contextmanager
def replace_directory(path: Path, marker: str, own: Sequence[str]) -> Iterator[Path]:
    """Yields an empty directory beside `path`, and puts it in that place when the block ends well.

    Args:
        path: the directory to make. If it exists it is replaced as a whole, but only if it holds
            nothing but our own output, so that nothing else is lost.
        marker: the name of a file that is in every such directory.
        own: the names of all that output, as globs.

    Raises:
        InputError: `path` is there and is not ours, or nothing can be made there.
    """
    import shutil
    import tempfile

    try:
        path = path.resolve()  # a link stays, and what it points to is replaced
    except (OSError, RuntimeError) as error:  # RuntimeError: before Python 3.13, links in a ring
        raise InputError(f"{path}: cannot be written: a link to itself") from error
    if path == Path.cwd():
        raise InputError(f"{path}: is the current directory; give -o a folder to make in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with flock.held_directory(path.parent):
            _refuse_what_is_not_ours(path, marker, own)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; give another -o") from error
    beside.chmod(0o777 & ~_umask())
    try:
        yield beside
        _sync(beside)
        with flock.held_directory(path.parent):
            _refuse_what_is_not_ours(path, marker, own)
            if path.exists():
                _exchange(beside, path)
            else:
                beside.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _open_new(path: Path) -> tuple[int, bool]:
    """A file to become `path`: its descriptor, and whether it has no name yet."""
    try:
        return os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), True
    except OSError as error:
        # A file system without it, or a kernel: open(2) says with which errors.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    return os.open(path, flags, 0o666), False


def _give_name(descriptor: int, path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # With a directory's descriptor os.link() calls linkat(2), which follows this link.
        os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=directory)
    finally:
        os.close(directory)


def _refuse_what_is_no_file(path: Path, option: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise InputError(
            f"{path}: is a directory, and the image is to be a file; give another -o, or "
            "--target ram for a directory"
        )
    if stat.S_ISBLK(mode):
        raise InputError(
            f"{path}: is a device, not a file; --into puts a kernel on it beside what is there"
        )
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is there already and is no regular file; give another {option}")


def _refuse_what_is_not_ours(path: Path, marker: str, own: Sequence[str]) -> None:
    import fnmatch

    if not path.exists():
        return
    what = "is no directory"
    if path.is_dir():
        entries = sorted(path.iterdir())
        foreign = [
            entry.name
            for entry in entries
            if not entry.is_file() or not any(fnmatch.fnmatch(entry.name, glob) for glob in own)
        ]
        if not foreign and (not entries or path / marker in entries):
            return
        found = foreign[0] if foreign else entries[0].name
        what = f"holds {found}, which bootsplice did not write"
    raise InputError(f"{path}: is there already and {what}; give another -o or remove it")


def _exchange(one: Path, other: Path) -> None:
    """Lets two names in a directory change places: at once, where the system can do that."""
    import ctypes

    at_fdcwd, rename_exchange = -100, 2  # of renameat2(2)
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(at_fdcwd, bytes(one), at_fdcwd, bytes(other), rename_exchange) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(number, os.strerror(number), str(other))
    aside = one.with_name(f"{one.name}.old")
    other.rename(aside)
    try:
        one.rename(other)
    except BaseException:  # an interrupt, too
        aside.rename(other)
        raise
    aside.rename(one)


def _sync(directory: Path) -> None:
    """Makes what was renamed in a directory last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
