"""Writing so that nothing half-written is left and nothing that was there is lost.

Everything is written beside its final place, flushed to the disk, and renamed over it.
"""

import contextlib
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
    except OSError as error:
        if error.filename is None:  # a write that fails doesn't say where
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_directory(path: Path, own: Sequence[str]) -> Iterator[Path]:
    """Yields an empty directory beside `path`, and puts it in that place when the block ends well.

    Args:
        path: the directory to make. If it exists it is replaced as a whole, but only if it holds
            nothing but our own output, so that nothing else is lost.
        own: the names of that output, as globs.

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
            _refuse_what_is_not_ours(path, own)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; give another -o") from error
    beside.chmod(0o777 & ~_umask())
    old = Path(f"{beside}.old")
    try:
        yield beside
        _sync(beside)
        with flock.held_directory(path.parent):
            _refuse_what_is_not_ours(path, own)
            if path.exists():
                path.rename(old)
            try:
                beside.rename(path)
            except BaseException:  # an interrupt, too: or `finally` removes the old one
                if old.exists():
                    old.rename(path)
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _refuse_what_is_not_ours(path: Path, own: Sequence[str]) -> None:
    if not path.exists():
        return
    what = "is no directory"
    if path.is_dir():
        foreign = [
            entry.name
            for entry in sorted(path.iterdir())
            if not entry.is_file() or not any(fnmatch.fnmatch(entry.name, glob) for glob in own)
        ]
        if not foreign:
            return
        what = f"holds {foreign[0]}, which bootsplice did not write"
    raise InputError(f"{path}: is there already and {what}; give another -o or remove it")


def _sync(directory: Path) -> None:
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
