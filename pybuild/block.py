"""The block: what a disk carries beside its boot sector, in one piece, wherever on it that lies.

    +0      512 bytes for what was in sector 0 before, so that it can be put back
    +512    the loader with its load table
    then    the register-state boot sector, the real-mode part, the command line and the early stage
    then    the kernel, the initrds

Everything begins at a sector; the kernel and the initrds begin at a multiple of 4096 bytes of the
disk, where a file system can share data between files instead of copying it.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pybuild import loader, loadtable, stream
from pybuild.bootproto import SECTOR
from pybuild.loadtable import Checksum, Entry
from pybuild.plan import Plan
from pybuild.progress import Meter
from pybuild.regions import align_up
from pybuild.splice import Initrds, Parts
from pybuild.stream import Copying, Memory, Piece, Source, write_at

_LARGE_ALIGNMENT: Final = 4096 // SECTOR  # sectors
_LARGE: Final = ("kernel", "initrd")
# The order on the disk: what is small first, so that few reads get it all.
_ON_DISK: Final = ("bootsect", "setup", "cmdline", "early", *_LARGE)
# The order in which it is read: the boot sector is entered when all else is in its place.
_IN_TABLE: Final = ("setup", "cmdline", "early", *_LARGE, "bootsect")


@dataclass(frozen=True, slots=True)
class Part:
    """Something that the loader reads.

    Attributes:
        name: the plan's name for it.
        address: physical, where it goes.
        size: bytes.
        data: the bytes, or the files that they are in.
    """

    name: str
    address: int
    size: int
    data: bytes | memoryview | Initrds


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a block.

    Attributes:
        boot_sector: 512 bytes for sector 0, with nothing in them that is the disk's own.
        checksums: of all that is in the block; they tell it from any other.
    """

    boot_sector: bytes
    checksums: tuple[int, ...]


def to_read(plan: Plan, parts: Parts) -> list[Part]:
    """What the loader has to read, in that order; nothing that is empty."""
    data: dict[str, bytes | memoryview | Initrds] = {
        "setup": parts.setup,
        "cmdline": parts.cmdline,
        "early": parts.early,
        "kernel": parts.kernel,
        "initrd": parts.initrds,
        "bootsect": parts.boot_sector,
    }
    loads = sorted(plan.loads, key=lambda load: _IN_TABLE.index(load.part))
    return [Part(at.part, at.address, at.size, data[at.part]) for at in loads if at.size]


class Block:
    """A block at a place on a disk.

    Attributes:
        lba: the place, in sectors of 512 bytes.
        end: where it ends, the first sector behind it.
    """

    def __init__(self, plan: Plan, parts: Parts, lba: int) -> None:
        """Works out where everything lies.

        Args:
            plan: the plan.
            parts: what it needs.
            lba: where the block begins.

        Raises:
            InputError: there are too many parts for the loader.
        """
        self.lba = lba
        self._plan = plan
        self._code = parts.code
        self._parts = to_read(plan, parts)
        entries = len(loader.memory(plan)) + len(self._parts)
        free = lba + 1 + loader.size(self._code, entries, loader.DISK_SHIFT) // SECTOR
        self._at: dict[str, int] = {}  # each part's LBA, in the order on the disk
        for part in sorted(self._parts, key=lambda part: _ON_DISK.index(part.name)):
            start = align_up(free, _LARGE_ALIGNMENT) if part.name in _LARGE else free
            self._at[part.name] = start
            free = start + align_up(part.size, SECTOR) // SECTOR
        self.end = free

    def write(
        self,
        out: int,
        *,
        saved: bytes = bytes(SECTOR),
        onto_zeros: bool,
        meter: Meter | None = None,
    ) -> Written:
        """Writes it; no byte outside it is touched, and nothing is flushed to the disk.

        Args:
            out: the descriptor of the disk, or of the file that is to be one.
            saved: what is in sector 0 of the disk.
            onto_zeros: whether the place reads as zeros, as a new file does.
            meter: is told how much of it is written.

        Raises:
            InputError: an initrd cannot be read, or changes meanwhile.
        """
        entries: list[Entry] = []
        copying = Copying(sum(part.size for part in self._parts), meter)
        with contextlib.ExitStack() as stack:
            pieces = {part.name: _pieces(part.data, stack) for part in self._parts}

            def make_entries() -> None:
                for part in self._parts:
                    digest = _checksum(pieces[part.name])
                    entries.append(
                        Entry(part.name, self._at[part.name], part.size, part.address, digest)
                    )

            def copy() -> None:
                done = 0
                for name, lba in self._at.items():
                    for offset, piece in pieces[name]:
                        at = lba * SECTOR + offset
                        if done and not onto_zeros:
                            write_at(out, bytes(at - done), done)
                        piece.copy(out, at, copying, onto_zeros=onto_zeros)
                        done = at + piece.size
                if not onto_zeros:
                    write_at(out, bytes(self.end * SECTOR - done), done)

            stream.both(make_entries, copy, copying)
            for _, piece in itertools.chain(*pieces.values()):
                piece.check()
        table = [*loader.memory(self._plan), *entries]
        bound = loader.bind(self._code, self._plan, table, loader.DISK_SHIFT)
        write_at(out, saved + bound, self.lba * SECTOR)
        sector = loader.boot_sector(self._code, self.lba + 1, bound, loader.DISK_SHIFT)
        checksums = (loadtable.checksum([bound]), *(entry.checksum for entry in entries))
        return Written(sector, checksums)


def _pieces(
    data: bytes | memoryview | Initrds, stack: contextlib.ExitStack
) -> list[tuple[int, Piece]]:
    """What a part is made of, each with its offset; what is between them is zero."""
    if isinstance(data, Initrds):
        return [(at, stack.enter_context(Source(path, size))) for at, path, size in data.placed()]
    return [(0, Memory(data))]


def _checksum(pieces: Sequence[tuple[int, Piece]]) -> int:
    checksum = Checksum()
    done = 0
    for offset, piece in pieces:
        checksum.update(bytes(offset - done))
        piece.add_to(checksum)
        done = offset + piece.size
    return checksum.value
