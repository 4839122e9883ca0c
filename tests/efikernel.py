"""Kernels that are EFI programs: real ones, fakes of every layout, and what is made of them by
putting a head in.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import fakekernel
from missing import missing

from pybuild import apt, bootproto, debian, efistub, kernel, paths
from pybuild.kernel import Kernel

PACKAGES: Final = {
    "debian": ("linux-image-cloud-amd64", "boot/vmlinuz-*"),
    "memtest86+x64": ("memtest86+", "boot/memtest86+x64.efi"),
    "memtest86+ia32": ("memtest86+", "boot/memtest86+ia32.efi"),
}
HEAD_FILLER: Final = b"\xcc"
SLACK: Final = 0x200000  # what Linux up to 6.6 has in SizeOfImage for aligning itself
_SETUP_SECTS: Final = 23
_SETUP: Final = (1 + _SETUP_SECTS) * 512
_PROTECTED: Final = 0x5000
_INIT_SIZE: Final = 0x40000
READ, CODE = 0x40000040, 0x60000020


def real(name: str) -> Kernel:
    """A kernel of Debian's; a skip, or in CI a failure, if it can't be had."""
    try:
        path = debian.fetch(*PACKAGES[name], paths.cache_directory(), progress=print)
    except apt.Unavailable as error:
        missing(str(error))
    return kernel.read(path)


def with_head(original: Kernel, by: int, tail: bytes = b"") -> bytes:
    """The image: a head of filler put in, a tail appended, all headers as they should then be."""
    signed = efistub.signature(original)
    end = signed.start if signed else len(original.data)
    protected = original.data[original.setup_size : end]
    image = bytearray(original.setup + HEAD_FILLER * by + protected + tail)
    changes = {
        "syssize": -(-(by + len(protected) + len(tail)) // bootproto.PARAGRAPH),
        "init_size": original["init_size"] + by + len(tail),
    }
    for name in ("payload_offset", "handover_offset", "kernel_info_offset"):
        changes[name] = by + original.get(name) if original.get(name) else 0
    for name, value in changes.items():
        if original.has(name):
            original.field(name).put(image, value)
    efistub.move(image, original, by=by, init_size=changes["init_size"])
    return bytes(image)


@dataclass(frozen=True)
class Line:
    """A section; `size` and `stored` are bytes in memory and in the file."""

    name: bytes
    rva: int
    size: int
    at: int
    stored: int
    flags: int = READ
    relocations: int = 0


@dataclass(frozen=True)
class Layout:
    """The PE headers of a fake kernel, whose protected-mode part begins at 0x3000."""

    sections: Sequence[Line]
    pe: int = 0x40
    plus: bool = True
    alignments: tuple[int, int] = (0x1000, 0x200)
    headers_size: int = 0x1000
    entry: int = _SETUP + 0x123
    image_size: int = _SETUP + _PROTECTED + 0x2000
    symbols: int = 0
    directories: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    contents: Mapping[int, bytes] = field(default_factory=dict)


def fake(layout: Layout) -> Kernel:
    """A kernel with these PE headers; `contents` are bytes at offsets of its file."""
    data = bytearray(
        fakekernel.image(
            setup_sects=_SETUP_SECTS,
            protected=_PROTECTED,
            efi_stub=True,
            init_size=_INIT_SIZE,
            handover_offset=0x190,
            payload_offset=0x333,
        )
    )
    put(data, 0x3C, layout.pe)
    count = max([6, *(index + 1 for index in layout.directories)])
    header = bytearray(
        struct.pack("<HBBIIIII", 0x20B if layout.plus else 0x10B, 2, 20, 0, 0, 0, 0, 0)
    )
    header += bytes(8)  # ImageBase; with PE32 after the data base
    header += struct.pack("<II6HI", *layout.alignments, *[0] * 6, 0)
    header += struct.pack("<IIIHH", layout.image_size, layout.headers_size, 0, 10, 0x100)
    header += bytes(32 if layout.plus else 16) + struct.pack("<II", 0, count)
    header += b"".join(
        struct.pack("<II", *layout.directories.get(index, (0, 0))) for index in range(count)
    )
    put(header, 4, _PROTECTED)
    put(header, 16, layout.entry)
    put(header, 20, next(s.rva for s in layout.sections if s.flags == CODE))
    if not layout.plus:
        put(header, 24, layout.sections[-1].rva)
    machine = 0x8664 if layout.plus else 0x14C
    coff = struct.pack(
        "<4sHHIIIHH", b"PE\0\0", machine, len(layout.sections), 0, layout.symbols, 1, len(header), 2
    )
    table = b"".join(
        struct.pack(
            "<8sIIIIIIHHI", s.name, s.size, s.rva, s.stored, s.at, s.relocations, 0, 0, 0, s.flags
        )
        for s in layout.sections
    )
    whole = coff + header + table
    if layout.pe + len(whole) > bootproto.field("setup_sects", 0).offset:
        raise ValueError("these headers reach into the setup header")
    data[layout.pe : layout.pe + len(whole)] = whole
    for offset, content in layout.contents.items():
        data[offset : offset + len(content)] = content
    return kernel.parse("fake", bytes(data))


def put(data: bytearray, at: int, value: int) -> None:
    struct.pack_into("<I", data, at, value)


def compat(entry: int) -> bytes:
    """What .compat holds: the entry for firmware of 32 bits."""
    return struct.pack("<BBHI", 1, 8, 0x14C, entry) + b"\0"


def relocations(page: int, *entries: int) -> bytes:
    """A block of base relocations."""
    return struct.pack(f"<II{len(entries)}H", page, 8 + 2 * len(entries), *entries)


_COMPAT_AT: Final = 0x2000
_TEXT: Final = Line(b".text", _SETUP, 0x4000, _SETUP, 0x4000, CODE)
# Linux 6.7 and later: sections on pages, .bss behind what .data has in the file.
NEW: Final = Layout(
    [
        Line(b".setup", 0x1000, 0x1000, 0x1000, 0x1000),
        Line(b".compat", _COMPAT_AT, 0x1000, _COMPAT_AT, 0x1000),
        _TEXT,
        Line(b".data", _SETUP + 0x4000, 0x3000, _SETUP + 0x4000, 0x1000),
    ],
    contents={_COMPAT_AT: compat(_SETUP + 0x777)},
)
# Up to 6.6: small sections at the end of the setup code; SizeOfImage has room for init_size.
OLD: Final = Layout(
    [
        Line(b".setup", 0x200, _SETUP - 0x240, 0x200, _SETUP - 0x240),
        Line(b".reloc", _SETUP - 0x40, 0x20, _SETUP - 0x40, 0x20),
        Line(b".compat", _SETUP - 0x20, 0x20, _SETUP - 0x20, 0x20),
        Line(b".text", _SETUP, _INIT_SIZE + SLACK - _SETUP, _SETUP, _PROTECTED, CODE),
    ],
    pe=0x80,
    alignments=(0x20, 0x20),
    headers_size=0x200,
    image_size=_INIT_SIZE + SLACK,
    contents={
        _SETUP - 0x40: relocations(_SETUP - 0x40 + 10, 0),
        _SETUP - 0x20: compat(_SETUP + 0x777),
    },
)
# 32 bits, loaded to elsewhere than the file's offsets, and directories whose entries say where.
PE32: Final = Layout(
    [
        replace(_TEXT, rva=0x1000),
        Line(b".reloc", 0x5000, 0x1000, _SETUP + 0x4000, 0x1000),
        Line(b".bss", 0x6000, 0x1000, 0, 0),
    ],
    plus=False,
    entry=0x1123,
    image_size=0x7000,
    directories={5: (0x5000, 12), 6: (0x1100, 28)},
    contents={
        _SETUP + 0x4000: relocations(0x1000, 0, 0),
        _SETUP + 0x100: struct.pack("<IIHHIIII", 0, 0, 0, 0, 2, 16, 0x1200, _SETUP + 0x200),
    },
)
FAKES: Final = {"new": NEW, "old": OLD, "pe32": PE32}
