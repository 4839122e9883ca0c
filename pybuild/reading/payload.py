"""What a boot sector of ours leads to: the loader, its load table, and every part in that.

A part is read piece by piece and never held in memory: an initrd may be larger than that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pybuild import kernel as kernels
from pybuild import loader, loadtable, lowmemory, splice, words
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.loadtable import BOOT_ID, BOOT_ID_AT, Checksum, Entry
from pybuild.rawdisk import Disk
from pybuild.reading import code, marks
from pybuild.reading.code import Binaries
from pybuild.reading.found import Change, Code, Part, Sum

_CHUNK: Final = 2048  # sectors read at a time
_KEPT: Final = 1 << 20  # bytes of a part that are looked into; a real-mode part has far fewer
# Code that is in an image only together.
TOGETHER: Final = (loader.BOOT_SECTOR, loader.LOADER)
_SHIFTS: Final = (loader.DISK_SHIFT, loader.CD_SHIFT)


@dataclass(frozen=True, slots=True)
class Payload:
    """What was found.

    Attributes:
        parts: the loader, then all that is in its table, in that order.
        kernel: as Image has it.
        changes: of its header that a loader makes, or a relocator tells of.
        cmdline: the command line with its NUL; None if there is none to be read.
    """

    parts: tuple[Part, ...]
    kernel: Kernel | None = None
    changes: tuple[Change, ...] = ()
    cmdline: bytes | None = None

    @property
    def text(self) -> str | None:
        """The command line, as it may be shown."""
        return None if self.cmdline is None else words.shown(self.cmdline)


def loader_place(sector: bytes) -> tuple[int, int, int, int]:
    """Where a boot sector of ours says that the loader is: offset, size, sum, and sector shift."""
    _, lba, wanted, sectors, shift = BOOT_ID.unpack_from(sector, BOOT_ID_AT)
    return lba << shift, sectors << shift, wanted, shift


def sector_part(binaries: Binaries, name: str, offset: int, sector: bytes) -> Part:
    """A boot sector of ours that reads a loader."""
    shift = loader_place(sector)[3]
    damage = () if shift in _SHIFTS else (f"sector_shift is {shift}, expected 9 or 11",)
    found = code.boot_sector(binaries, sector)
    at = lowmemory.BOOT_SECTOR.address
    return Part(name, offset, SECTOR, at, code=(found,), damage=damage)


def read(disk: Disk, binaries: Binaries, sector: bytes) -> Payload:
    """All that a boot sector of ours leads to."""
    offset, size, wanted, shift = loader_place(sector)
    address = lowmemory.LOADER.start
    most = loader.SCRATCH - address
    if shift not in _SHIFTS or not 0 < size <= most:
        why = f"{size} bytes by the boot sector, expected up to {most}"
        return Payload((Part("loader", None, 0, address, damage=(why,)),))
    if _is_cut(disk, offset, size):
        why = _cut(disk, offset, size)
        return Payload((Part("loader", offset, size, address, damage=(why,)),))
    bound = span(disk, offset, size)
    entries = loadtable.find(bound)
    part = Part(
        *("loader", offset, size, address),
        sum=Sum("sum", wanted, loadtable.loader_sum(bound)),
        code=(code.read(binaries, loader.LOADER, bound, address),),
        damage=() if entries else ("no load table behind its code",),
    )
    found = _Reader(disk, binaries)
    parts = [part, *map(found.part, entries or ())]
    return Payload(tuple(parts), found.kernel, tuple(found.changes()), found.cmdline)


class _Reader:
    """Reads the parts of a load table, the real-mode part before the kernel."""

    def __init__(self, disk: Disk, binaries: Binaries) -> None:
        self.kernel: Kernel | None = None
        self.cmdline: bytes | None = None
        self._disk = disk
        self._binaries = binaries
        self._early: Code | None = None
        self._relocator: Code | None = None

    def part(self, entry: Entry) -> Part:
        """A part, held to its checksum."""
        if not entry.lba:
            return Part(entry.name, None, entry.size, entry.address)
        offset = entry.lba * SECTOR
        if _is_cut(self._disk, offset, entry.size):
            return Part(
                *(entry.name, offset, entry.size, entry.address),
                sum=Sum("XXH32", entry.checksum, None),
                damage=(_cut(self._disk, offset, entry.size),),
            )
        checksum = Checksum()
        for chunk in _chunks(self._disk, offset, entry.size):
            checksum.update(chunk)
        return Part(
            *(entry.name, offset, entry.size, entry.address),
            sum=Sum("XXH32", entry.checksum, checksum.value),
            code=self._code(entry, offset),
        )

    def changes(self) -> Iterator[Change]:
        """What is known to have changed in the kernel's header."""
        if self.kernel is None:
            return
        own = (self._relocator.symbols or {}).get("code32_start") if self._relocator else None
        for field in self.kernel.fields:
            value = self.kernel[field.name]
            if field.access == "write" and value:
                yield Change(field.name, None, value)
            elif field.name == "code32_start" and marks.is_hooked(self.kernel):
                yield Change(field.name, None if self._early else own, value)

    def _code(self, entry: Entry, offset: int) -> tuple[Code, ...]:
        """The guest code in a part; keeps what else the part tells."""
        data = span(self._disk, offset, min(entry.size, _KEPT))
        match entry.name:
            case "setup":
                self.kernel = real_mode_part(self._disk.name, data)
            case "cmdline":
                self.cmdline = data
            case "bootsect":
                return (code.read(self._binaries, splice.BOOT_SECTOR, data),)
            case "early":
                self._early = code.read(self._binaries, splice.EARLY, data, entry.address)
                return (self._early,)
            case "kernel":
                tail = min(entry.size, len(self._binaries[splice.RELOCATOR].code))
                data = span(self._disk, offset + entry.size - tail, tail)
                hooked = self.kernel is not None and marks.is_hooked(self.kernel)
                expected = hooked or self._early is not None
                found = code.relocator(self._binaries, data, expected=expected)
                self._relocator = found[0] if found else None
                return found
        return ()


def real_mode_part(name: str, setup: bytes) -> Kernel | None:
    """The kernel whose real-mode part this is; None if it is too damaged to tell."""
    try:
        return kernels.parse_setup(name, setup)
    except InputError:
        return None


def span(disk: Disk, offset: int, size: int) -> bytes:
    """Bytes of a disk, which are all there."""
    first, skipped = divmod(offset, SECTOR)
    sectors = -(-(skipped + size) // SECTOR)
    return disk.read(first, sectors)[skipped : skipped + size]


def _chunks(disk: Disk, offset: int, size: int) -> Iterator[bytes]:
    step = _CHUNK * SECTOR
    for at in range(0, size, step):
        yield span(disk, offset + at, min(step, size - at))


def _is_cut(disk: Disk, offset: int, size: int) -> bool:
    return offset + size > disk.sectors * SECTOR


def _cut(disk: Disk, offset: int, size: int) -> str:
    return f"it would end at {offset + size:#x}, and the image at {disk.sectors * SECTOR:#x}"
