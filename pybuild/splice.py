"""Splices bound code and header fields into a kernel: from a plan to the parts of an image."""

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import cmdline
from pybuild.errors import InputError
from pybuild.flat import FlatBinary
from pybuild.kernel import Kernel
from pybuild.layout import INITRD_ALIGNMENT
from pybuild.plan import Move, Patch, Plan
from pybuild.regions import align_up

# What a boot sector leaves to the disk that it is written to: the disk signature and the
# partition table, up to the boot signature.
DISK_OWN: Final = slice(0x1B8, 0x1FE)

# The sources whose flat binaries go into an image.
BOOT_SECTOR: Final = "real/bootsect"
EARLY: Final = "real/early"
RELOCATOR: Final = "i386/relocator"
RELOCATOR_64: Final = "x86_64/relocator"
HEAD_32: Final = "i386/head"
HEAD_64: Final = "x86_64/head"

_CHUNK: Final = 1 << 20  # bytes read at a time


@dataclass(frozen=True, slots=True)
class Initrds:
    """Initrd files, read only when they are written: together they may be larger than memory."""

    paths: tuple[Path, ...]
    sizes: tuple[int, ...]

    def placed(self) -> Iterator[tuple[int, Path, int]]:
        """Each file's offset in all of them, one behind the other, its path and its size."""
        offset = 0
        for path, size in zip(self.paths, self.sizes, strict=True):
            offset = align_up(offset, INITRD_ALIGNMENT)  # as the cpio reader needs it
            yield offset, path, size
            offset += size

    def chunks(self) -> Iterator[bytes]:
        """Their contents one behind the other, with zeros between them.

        Raises:
            InputError: a file cannot be read, or has another size than when the plan was made.
        """
        end = 0
        for offset, path, size in self.placed():
            yield bytes(offset - end)
            yield from _read(path, size)
            end = offset + size


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a target writes; the names are the plan's.

    Attributes:
        boot_sector: 512 bytes that load the register state and jump.
        setup: the real-mode part with all header fields changed.
        image_setup: the real-mode part for another loader, which puts it where the plan says: with
            the header fields changed that are about the image, not those that a loader fills in.
        kernel: the protected-mode part with the relocator behind it.
        cmdline: the command line with its NUL.
        early: the early stage; empty if the plan has none.
        initrds: the initrds.
        code: the flat binaries, for a target that binds a loader of its own.
    """

    boot_sector: bytes
    setup: bytes
    image_setup: bytes
    kernel: bytes | memoryview
    cmdline: bytes
    early: bytes
    initrds: Initrds
    code: Mapping[str, FlatBinary]

    @property
    def image(self) -> bytes:
        """The spliced kernel image, for another loader."""
        return self.image_setup + self.kernel


def open_initrds(paths: Sequence[Path]) -> Initrds:
    """Finds the initrds' sizes.

    Raises:
        InputError: one of them cannot be read.
    """
    sizes = []
    for path in paths:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe's or a device's size is 0
                raise InputError(f"{path}: cannot be read as an initrd: it is no regular file")
            path.open("rb").close()
        except OSError as error:
            raise InputError(f"{path}: cannot be read as an initrd: {error.strerror}") from error
        sizes.append(status.st_size)
    return Initrds(tuple(paths), tuple(sizes))


def splice(
    kernel: Kernel, plan: Plan, code: Mapping[str, FlatBinary], text: str, initrds: Initrds
) -> Parts:
    """Makes the parts that the plan names.

    Args:
        kernel: the kernel that the plan was made for.
        plan: the plan.
        code: the flat binaries, by the names of their sources.
        text: the command line.
        initrds: the initrds.
    """
    early = plan.load("early")
    loaded = plan.load("kernel")
    # A view: most kernels stay as they are, and copying one takes as long as writing it.
    spliced: bytes | memoryview = memoryview(kernel.data)[kernel.setup_size :]
    values = symbols(plan, code)
    for move in plan.moves:
        gap = bytes(move.relocator - move.src - len(spliced))
        spliced = b"".join((spliced, gap, code[RELOCATOR].bind(values[RELOCATOR])))
    if loaded is None or len(spliced) != loaded.size:
        raise AssertionError("the plan is of another kernel or another relocator")
    return Parts(
        boot_sector=code[BOOT_SECTOR].bind(values[BOOT_SECTOR]),
        setup=_patch(kernel, plan.patches),
        image_setup=_patch(kernel, plan.image_patches),
        kernel=spliced,
        cmdline=cmdline.encode(text) + b"\0",
        early=code[EARLY].bind(values[EARLY], base=early.address) if early else b"",
        initrds=initrds,
        code=code,
    )


def symbols(plan: Plan, code: Mapping[str, FlatBinary]) -> dict[str, Mapping[str, int]]:
    """What a plan binds each source to that it needs."""
    found = {BOOT_SECTOR: boot_sector_symbols(plan)}
    early = plan.load("early")
    for move in plan.moves:
        returns_to = early.address + code[EARLY].symbols["moved"] if early else move.code32_start
        found[RELOCATOR] = relocator_symbols(move, returns_to)
        if early:
            found[EARLY] = {"relocator": move.relocator, "setup_cs": plan.entry.cs}
    return found


def relocator_symbols(move: Move, code32_start: int) -> Mapping[str, int]:
    """What the relocator's source leaves open."""
    return {"src": move.src, "dst": move.dst, "len": move.len, "code32_start": code32_start}


def boot_sector_symbols(plan: Plan) -> Mapping[str, int]:
    """The boot sector's register state: into the early stage if there is one, else into setup."""
    early = plan.load("early")
    entry = plan.entry
    segments = {f"seg_{name}": entry.data_segments for name in ("es", "ss", "ds", "fs", "gs")}
    registers = {f"gpr_{name}": 0 for name in ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")} | {
        "gpr_esp": entry.esp
    }
    if early:
        target = {"seg_cs": early.address // 16, "ip": early.address % 16}
    else:
        target = {"seg_cs": entry.cs, "ip": entry.ip}
    return {**segments, **registers, **target}


def keep_disk_own(boot_sector: bytes, old: bytes) -> bytes:
    """A boot sector with the disk signature and the partition table of the one it replaces."""
    return put_disk_own(boot_sector, old[DISK_OWN])


def put_disk_own(boot_sector: bytes, own: bytes) -> bytes:
    """A boot sector with these bytes as the disk's own."""
    return boot_sector[: DISK_OWN.start] + own + boot_sector[DISK_OWN.stop :]


def _patch(kernel: Kernel, patches: Iterable[Patch]) -> bytes:
    """The real-mode part with header fields changed."""
    patched = bytearray(kernel.setup)
    for patch in patches:
        kernel.field(patch.field).put(patched, patch.new)
    return bytes(patched)


def _read(path: Path, size: int) -> Iterator[bytes]:
    left = size
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(min(_CHUNK, left)):
                left -= len(chunk)
                yield chunk
            more = stream.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an initrd: {error.strerror}") from error
    if left or more:
        raise InputError(f"{path}: expected {size} bytes, but it changed while it was read")
