"""Copies large files into an image: fast, in little memory, and never one that changes meanwhile.

A checksum is made of what is read while another thread lets the system copy: both at once take no
longer than the slower of them, and a file system that shares data between files copies nothing.
Meanwhile the disk writes what has been copied, so that fsync(2) finds most of it done.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from pybuild.errors import InputError
from pybuild.loadtable import Checksum
from pybuild.progress import Meter

_CHUNK: Final = 1 << 20  # bytes read at a time
_STEP: Final = 4 << 20  # bytes that the system copies at a time: an interrupt waits no longer
# What copy_file_range(2) says of files that it cannot copy: of two file systems, or of an odd one.
_CANNOT_COPY: Final = (
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.ETXTBSY,
)


class Piece(Protocol):
    """Bytes that become a part of an image.

    Attributes:
        size: how many.
    """

    size: int

    def add_to(self, checksum: Checksum) -> None:
        """Adds them to a checksum.

        Raises:
            InputError: they cannot be read.
        """

    def copy(self, out: int, at: int, copying: "Copying", *, onto_zeros: bool) -> None:
        """Copies them.

        Args:
            out: the descriptor of the file to write.
            at: where in it.
            copying: may end it early, and is told how far it is.
            onto_zeros: whether that place reads as zeros, so that holes may stay holes.
        """

    def check(self) -> None:
        """Makes sure that the bytes copied are those of the checksum.

        Raises:
            InputError: they changed.
        """


class Memory:
    """Bytes in memory."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.size = len(data)
        self._data = data

    def add_to(self, checksum: Checksum) -> None:
        """See Piece."""
        checksum.update(self._data)

    def copy(self, out: int, at: int, copying: "Copying", *, onto_zeros: bool) -> None:
        """See Piece."""
        del onto_zeros
        view = memoryview(self._data)
        for start in range(0, self.size, _STEP):
            if copying.stop.is_set():
                break
            step = view[start : start + _STEP]
            write_at(out, step, at + start)
            _start_writing(out, at + start, len(step))
            copying.add(len(step))

    def check(self) -> None:
        """See Piece."""


class Source:
    """A file, which is read twice and has to be the same both times; a context manager."""

    def __init__(self, path: Path, size: int) -> None:
        """Opens it.

        Args:
            path: the file.
            size: bytes, as the plan has it.

        Raises:
            InputError: it cannot be read.
        """
        self.path = path
        self.size = size
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        self._before = self._state()

    def __enter__(self) -> "Source":
        """The file itself; it is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        os.close(self._descriptor)

    def add_to(self, checksum: Checksum) -> None:
        """See Piece."""
        buffer = bytearray(min(_CHUNK, self.size))
        view = memoryview(buffer)
        done = 0
        while done < self.size:
            try:
                count = os.preadv(self._descriptor, [view[: self.size - done]], done)
            except OSError as error:
                raise self._unreadable(error) from error
            if not count:  # it shrank, as check() will say
                break
            checksum.update(view[:count])
            done += count

    def copy(self, out: int, at: int, copying: "Copying", *, onto_zeros: bool) -> None:
        """See Piece."""
        extents = self._extents() if onto_zeros else [(0, self.size)]
        told = 0
        for start, end in extents:
            done = start
            while done < end and not copying.stop.is_set():
                count = self._copy_some(out, done, at + done, min(end - done, _STEP))
                if not count:  # it shrank, as check() will say
                    break
                _start_writing(out, at + done, count)
                done += count
                copying.add(done - told)  # with the hole before it
                told = done

    def check(self) -> None:
        """See Piece."""
        if self._state() != self._before or self._before[0] != self.size:
            raise InputError(
                f"{self.path}: expected {self.size} bytes, but it changed while it was read"
            )

    def _copy_some(self, out: int, offset: int, at: int, size: int) -> int:
        source = self._descriptor
        try:
            count = os.copy_file_range(source, out, size, offset_src=offset, offset_dst=at)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
            count = 0
        # There are file systems of which copy_file_range(2) says that all their files are empty.
        return count or os.pwrite(out, os.pread(source, min(size, _CHUNK), offset), at)

    def _extents(self) -> Iterator[tuple[int, int]]:
        """Where it has data; elsewhere it is a hole."""
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self._descriptor, end, os.SEEK_DATA)
                end = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # no file system with holes
                    yield end, self.size
                return  # no more data
            yield start, min(end, self.size)

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"{self.path}: cannot be read as an initrd: {error.strerror}")


def _start_writing(out: int, at: int, size: int) -> None:
    """Lets the system begin to write a place in a file to the disk, and does not wait for it.

    That is what Linux does when told that the memory is not needed, except that what was on the
    disk already would leave the cache; here that can be no more than a few pages. What is small is
    not worth a request of its own.
    """
    if size >= _CHUNK:
        with contextlib.suppress(OSError):  # advice: what cannot take it is no worse without
            os.posix_fadvise(out, at, size, os.POSIX_FADV_DONTNEED)


class Copying:
    """How far copying has come.

    Attributes:
        stop: set when it is to end early.
    """

    def __init__(self, size: int, meter: Meter | None) -> None:
        """`size` bytes are to be copied; `meter` is told how much of them was."""
        self.stop = threading.Event()
        self._size = size
        self._meter = meter
        self._done = 0

    def add(self, count: int) -> None:
        """So many bytes more are copied."""
        self._done += count
        if self._meter is not None:
            self._meter(self._done / self._size)


def both(here: Callable[[], None], there: Callable[[], None], copying: Copying) -> None:
    """Runs `here` in this thread and meanwhile `there`, which does the copying, in another.

    What either of them raises is raised when both have ended.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            there()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        here()
    except BaseException:  # an interrupt, too
        copying.stop.set()
        raise
    finally:
        thread.join()
    if raised:
        raise raised[0]


def write_at(out: int, data: bytes | memoryview, at: int) -> None:
    """Writes all of some bytes to a place in a file."""
    view = memoryview(data)
    while view:
        count = os.pwrite(out, view, at)
        view, at = view[count:], at + count
