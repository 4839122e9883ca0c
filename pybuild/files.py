"""Writing so that nothing half-written is left and nothing that was there is lost.

Everything is written beside its final place, flushed to the disk, and renamed over it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

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
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_directory(path: Path, marker: str) -> Iterator[Path]:
    """Yields an empty directory beside `path`, and puts it in that place when the block ends well.

    Args:
        path: the directory to make. If it exists it is replaced as a whole, but only if it is
            empty or holds a file named `marker`, so that nothing but our own output is lost.
        marker: the name of a file that every such directory has.

    Raises:
        InputError: `path` is there and is not ours.
    """
    path = path.resolve()  # a link stays, and what it points to is replaced
    if path.exists() and not _is_ours(path, marker):
        raise InputError(
            f"{path}: is there already and is no bootsplice output (it has no {marker}); "
            "give another -o or remove it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    beside.chmod(0o777 & ~_umask())
    old = Path(f"{beside}.old")
    try:
        yield beside
        _sync(beside)
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


def _is_ours(path: Path, marker: str) -> bool:
    return path.is_dir() and ((path / marker).is_file() or not any(path.iterdir()))


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
