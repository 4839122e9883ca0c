"""Writing so that nothing half-written is left and nothing that was there is lost.

Everything is written beside its final place, flushed to the disk, and renamed over it.
"""

import contextlib
import ctypes
import errno
import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pybuild import flock
from pybuild.errors import InputError


def write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file whole or not at all; an older file of that name is replaced at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.filename is None:  # a write that fails doesn't say where
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


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


def _refuse_what_is_not_ours(path: Path, marker: str, own: Sequence[str]) -> None:
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
