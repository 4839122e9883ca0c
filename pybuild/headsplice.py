"""Splices a head into a kernel: from a kernel and a HeadPlan to a kernel image that moves itself.

The result is a kernel like any other, but relocatable, and larger.
"""

import dataclasses
import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pybuild import bootproto, cmdline, efistub, headplan, protected
from pybuild.errors import BuildError
from pybuild.flat import FlatBinary, Relocation
from pybuild.headplan import CRC_SIZE, ENTRY_64, HeadPlan, Request
from pybuild.kernel import Kernel
from pybuild.peheaders import HeadersError
from pybuild.protected import CODE_ALIGNMENT
from pybuild.regions import align_up
from pybuild.splice import HEAD_32, HEAD_64, RELOCATOR, RELOCATOR_64

# What only the head knows of what a relocator reads, in the order of `values` in
# asm/include/head.inc, which also says how the two tables look.
VALUES: Final = ("src", "dst", "code32_start", "entry", "tables")
_FIXUP_VALUE_SHIFT: Final = 24
_SAVED_OFFSET: Final = 0xFFFF
_SAVED_BYTE_SHIFT: Final = 16
_ENTRY: Final = struct.Struct("<I")  # of either table
# Bytes that the header may have from setup_sects on, each with an entry in the table of what was
# changed (boot.rst: it never gets larger).
_SAVED_ROOM: Final = 144 * _ENTRY.size
# What a loader writes for this boot and the kernel must find, or the relocator puts back.
_NOT_SAVED: Final = ("code32_start", "vid_mode")
_LOW: Final = "code32_start"  # of these the one that always has 32 bits
_CERTIFICATE_ALIGNMENT: Final = 8  # PE Format, "Attribute Certificate Table"
_CRC_HOLDS: Final = 0xFFFFFFFF  # zlib's CRC-32 of an image with its CRC behind it


@dataclass(frozen=True, slots=True)
class _Piece:
    """A relocator as it is in the head: what it is, and what the head adds to it."""

    code: bytes
    fixups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Offsets of what is in the head, in the order in which it is there."""

    head64: int
    relocator32: int
    relocator64: int
    fixups32: int
    fixups64: int
    saved: int
    end: int


def raised(kernel: Kernel) -> Kernel:
    """The kernel, its protocol version raised to 2.10 if that is lower and its header has room.

    New fields are 0, but for boot.rst's cmdline_size of older ones, and for what it needs to unpack
    itself, which such a kernel doesn't say.
    """
    needed = bootproto.field("init_size", headplan.NEWEST_NEEDED)
    if not 0x205 <= kernel.version < headplan.NEWEST_NEEDED or kernel.header_end < needed.end:
        return kernel
    data = bytearray(kernel.data)
    running = protected.runtime(kernel, kernel.load_address, kernel["kernel_alignment"])
    new = {
        "cmdline_size": bootproto.DEFAULT_CMDLINE_SIZE,
        "init_size": protected.unpacking(kernel, running).size,
    }
    for field in bootproto.FIELDS:
        if field.since > kernel.version and field.exists(headplan.NEWEST_NEEDED, kernel.header_end):
            field.put(data, new.get(field.name, 0))
    kernel.field("version").put(data, headplan.NEWEST_NEEDED)
    return dataclasses.replace(kernel, data=bytes(data), version=headplan.NEWEST_NEEDED)


def code_size(code: Mapping[str, FlatBinary]) -> int:
    """Bytes of the heads, the relocators and their tables at the start of an image."""
    return _layout(code).end


def relocator_size(code: Mapping[str, FlatBinary]) -> int:
    """Bytes of the largest relocator that a head has."""
    return max(len(code[name].code) for name in (RELOCATOR, RELOCATOR_64))


def bare(kernel: Kernel) -> tuple[Kernel, str | None]:
    """The kernel without a signature behind it, which a head would break, and a note of that."""
    try:
        found = efistub.signature(kernel)
    except HeadersError:  # said once more, and for good, when they are to be moved
        return kernel, None
    if found is None or align_up(found.stop, _CERTIFICATE_ALIGNMENT) < len(kernel.data):
        return kernel, None
    return (
        dataclasses.replace(kernel, data=kernel.data[: found.start]),
        f"its signature ({len(found)} bytes) does not cover a head and is left out: sign the image",
    )


def code_places(code: Mapping[str, FlatBinary]) -> dict[str, int]:
    """Where the code of each source is in the head: offsets."""
    at = _layout(code)
    return {
        HEAD_32: 0,
        HEAD_64: at.head64,
        RELOCATOR: at.relocator32,
        RELOCATOR_64: at.relocator64,
    }


def saved_bytes(table: bytes, count: int) -> Iterator[tuple[int, int]]:
    """What the kernel's own header has where the image's has something else: offset and byte.

    Args:
        table: what begins with the entries that the head has for this.
        count: how many it has.
    """
    whole = min(count, len(table) // _ENTRY.size) * _ENTRY.size
    for (entry,) in _ENTRY.iter_unpack(table[:whole]):
        yield entry & _SAVED_OFFSET, entry >> _SAVED_BYTE_SHIFT & 0xFF


def crc(data: bytes | memoryview) -> int:
    """The CRC-32 that goes behind an image's other bytes (boot.rst, 2.08)."""
    return zlib.crc32(data) ^ _CRC_HOLDS


def crc_holds(kernel: Kernel) -> bool:
    """Whether the kernel has a CRC-32 at its end (boot.rst, 2.08), and it is right."""
    end = kernel.setup_size + (kernel.syssize_bytes or 0)
    return zlib.crc32(memoryview(kernel.data)[:end]) == _CRC_HOLDS


def splice(
    kernel: Kernel,
    source: Kernel,
    plan: HeadPlan,
    code: Mapping[str, FlatBinary],
    request: Request,
    initrds: Iterable[bytes],
) -> tuple[Kernel, tuple[str, ...]]:
    """Makes the image.

    Args:
        kernel: the kernel as it is in its file.
        source: that, bare() and raised().
        plan: the plan that was made of `source`.
        code: the flat binaries, by the names of their sources.
        request: what the plan was made of.
        initrds: the built-in initrd.

    Returns:
        The image as a kernel of the same name, and what the user may want to know.

    Raises:
        BuildError: a source reads what a head does not give it.
    """
    setup = bytearray(source.setup)
    for patch in plan.patches:
        source.field(patch.field).put(setup, patch.new)
    head = _head(plan, code, request, _saved(kernel, setup))
    image = bytearray().join([setup, head, memoryview(source.data)[source.setup_size :]])
    if plan.initrd_size:
        image += bytes(source.setup_size + plan.initrd - len(image))
        for chunk in initrds:
            image += chunk
    notes = _move_efi_stub(image, kernel, plan, request)
    room = source.setup_size + plan.size - len(image)
    image += bytes(room)
    if request.has_crc:
        image[-CRC_SIZE:] = crc(memoryview(image)[:-CRC_SIZE]).to_bytes(CRC_SIZE, "little")
    return dataclasses.replace(source, data=bytes(image)), notes


def _saved(kernel: Kernel, setup: bytes | bytearray) -> list[int]:
    """What the kernel's own header has where the image's has something else."""
    known = {f.name: range(f.offset, f.end) for f in kernel.fields if f.name in _NOT_SAVED}
    start = bootproto.field("setup_sects", kernel.version).offset
    return [
        offset | kernel.data[offset] << _SAVED_BYTE_SHIFT
        for offset in range(start, kernel.header_end)
        if setup[offset] != kernel.data[offset] and all(offset not in r for r in known.values())
    ]


def _head(
    plan: HeadPlan, code: Mapping[str, FlatBinary], request: Request, saved: list[int]
) -> bytes:
    """All that is in front of the kernel."""
    text = cmdline.encode(request.cmdline)
    at = _layout(code)
    pieces = {name: _piece(code[name], plan) for name in (RELOCATOR, RELOCATOR_64)}
    short, long = pieces[RELOCATOR], pieces[RELOCATOR_64]
    common = {
        "image_size": plan.image_size,
        "len": plan.len,
        "follows": int(plan.follows),
        "dst": plan.dst,
        "run": plan.run,
        "init_size": plan.init_size,
        "entry32": plan.entry32,
        "work_size": plan.work_size,
        "work_cmdline": plan.work_cmdline,
        "cmdline_length": len(text),
        "cmdline_room": plan.cmdline_room,
        "replace": int(request.replace),
        "initrd_size": plan.initrd_size,
        "initrd_addr_max": plan.initrd_addr_max,
        "saved_count": len(saved),
    }
    offsets = {
        "kernel": plan.head_size,
        "initrd": plan.initrd,
        "cmdline": at.end,
        "saved": at.saved,
    }
    head = bytearray(plan.head_size)

    def put(offset: int, data: bytes) -> None:
        head[offset : offset + len(data)] = data

    put(0, code[HEAD_32].bind(
        {
            **common,
            **offsets,
            "start": 0,
            "relocator": at.relocator32,
            "relocator_size": len(short.code),
            "fixups": at.fixups32,
            "fixup_count": len(short.fixups),
            "head64": at.head64,
        },
        base=0,
    ))  # fmt: skip
    put(at.head64, code[HEAD_64].bind(
        {
            **common,
            **{name: offset - at.head64 for name, offset in offsets.items()},
            "start": at.head64,
            "relocator": at.relocator64 - at.head64,
            "relocator_size": len(long.code),
            "fixups": at.fixups64 - at.head64,
            "fixup_count": len(long.fixups),
            "entry64": ENTRY_64,
            "work_tables": plan.work_tables,
            "above_4g": int(plan.above_4g),
        },
    ))  # fmt: skip
    put(at.relocator32, short.code)
    put(at.relocator64, long.code)
    put(at.fixups32, b"".join(map(_ENTRY.pack, short.fixups)))
    put(at.fixups64, b"".join(map(_ENTRY.pack, long.fixups)))
    put(at.saved, b"".join(map(_ENTRY.pack, saved)))
    put(at.end, text)
    return bytes(head)


def _layout(code: Mapping[str, FlatBinary]) -> _Layout:
    """What is where in the head: depends on the code only."""
    sizes = [
        *(len(code[name].code) for name in (HEAD_32, HEAD_64, RELOCATOR, RELOCATOR_64)),
        *(_ENTRY.size * len(_open(code[name])) for name in (RELOCATOR, RELOCATOR_64)),
        _SAVED_ROOM,
    ]
    ends = itertools.accumulate(sizes, lambda at, size: align_up(at, CODE_ALIGNMENT) + size)
    return _Layout(*(align_up(end, CODE_ALIGNMENT) for end in ends))


def _open(relocator: FlatBinary) -> list[Relocation]:
    """The fields that only the head can fill in."""
    return [r for r in relocator.relocations if r.symbol in VALUES]


def _piece(relocator: FlatBinary, plan: HeadPlan) -> _Piece:
    """A relocator bound to all that is known before the image is loaded."""
    known = {"len": plan.len, "init_size": plan.init_size, "tables_size": plan.tables_size}
    symbols = {name: known.get(name, 0) for name in relocator.undefined}
    for name in symbols.keys() - known.keys() - set(VALUES):
        raise BuildError(
            f"{relocator.name}: reads '{name}', which a head does not know; "
            f"it has {', '.join([*known, *VALUES])}"
        )
    for r in _open(relocator):
        if r.kind.pc_relative or (r.kind.size < _word(relocator) and r.symbol != _LOW):
            raise BuildError(
                f"{relocator.name}: offset {r.offset:#x}: '{r.symbol}' is known only when the "
                f"image runs, and {r.type} cannot hold every address"
            )
    fixups = [r.offset | VALUES.index(r.symbol) << _FIXUP_VALUE_SHIFT for r in _open(relocator)]
    return _Piece(relocator.bind(symbols), tuple(fixups))


def _word(relocator: FlatBinary) -> int:
    """Bytes of an address in this code."""
    return 8 if relocator.name == RELOCATOR_64 else 4


def _move_efi_stub(
    image: bytearray, kernel: Kernel, plan: HeadPlan, request: Request
) -> tuple[str, ...]:
    """Keeps the PE headers right, or takes them out; says what the EFI entry is worth now."""
    if not kernel.has_efi_stub:
        return ()
    try:
        efistub.move(image, kernel, by=plan.head_size, init_size=plan.memory)
    except HeadersError as error:
        # A firmware then refuses the image, instead of running it with wrong addresses.
        pe_offset = kernel.pe_offset
        image[pe_offset : pe_offset + 4] = bytes(4)
        return (f"the EFI stub entry is given up: its PE headers: {error}",)
    if request.cmdline or plan.initrd_size:
        return (
            "the EFI stub entry passes the head by: a firmware has to give the command line and "
            "the initrd itself",
        )
    return ()
