"""The PE headers of a kernel that is an EFI program too, kept right when a head is put into it.

A head goes between the real-mode part, which has the PE headers, and the protected-mode part, which
they describe: file offsets and addresses (RVAs, counted from where the firmware loads the program)
behind that seam move up. The section in which the protected-mode part begins takes the head in, so
that the firmware loads it, too.

What is appended to the file belongs to no section, as a signature does, and isn't loaded. The last
section could not be stretched over it: in memory the kernel's .bss follows what that section has in
the file, and an EFI stub such as Linux 6.12's takes it for zeros.

Sources: Microsoft's PE Format; edk2's BasePeCoff.c; Linux's arch/x86/boot/header.S (sections,
.compat), arch/x86/boot/tools/build.c of 6.6 and older (SizeOfImage) and x86-stub.c.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pybuild import peheaders
from pybuild.kernel import Kernel
from pybuild.peheaders import Headers, HeadersError, Section, get

if TYPE_CHECKING:
    import lief

_DEBUG_ENTRY: Final = 28  # bytes; its RVA and its file offset:
_DEBUG_RVA, _DEBUG_AT = 20, 24
# Linux's header.S and edk2's CompatImageLoaderDxe: records of type, size; type 0 is the end.
_COMPAT: Final = b".compat\0"
_COMPAT_ENTRY: Final = 1  # of this type and 8 bytes: a machine, and its entry point's RVA
_COMPAT_RVA: Final = 4

_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")  # in what LIEF says


def signature(kernel: Kernel) -> range | None:
    """The file offsets of a kernel's certificates (Authenticode); None if it isn't signed.

    Raises:
        HeadersError: the PE headers are damaged.
    """
    if not kernel.has_efi_stub:
        return None
    try:
        address, size = Headers(kernel.data).directories().get(peheaders.CERTIFICATES, (0, 0))
    except struct.error as error:
        raise HeadersError("they end too early") from error
    return range(address, address + size) if size else None


def move(image: bytearray, kernel: Kernel, *, by: int, init_size: int) -> None:
    """Edits the PE headers of an image that was made of a kernel by putting a head into it.

    The signature is struck out and CheckSum is 0, "none", as it was before a file was signed: no
    firmware looks at it, and Linux's own CRC-32, which stands for it, is over the headers, too. So
    that CRC-32 is to be made after this.

    Args:
        image: `kernel.setup`, the head, the protected-mode part without a signature, and anything;
            only PE headers and what they refer to are changed.
        kernel: the original, with an EFI stub.
        by: bytes of the head.
        init_size: the image's, at least the kernel's and `by`. Linux up to 6.6 decompresses itself
            into so much of where the firmware has loaded it.

    Raises:
        HeadersError: these headers have something that it can't keep right, or LIEF finds fault
            with what came out; the image may have been changed.
    """
    try:
        _move(image, kernel, by, init_size)
    except (struct.error, IndexError) as error:
        raise HeadersError("they end too early, or refer to what isn't there") from error
    _judge(image, kernel.data, _Seam.of(Headers(kernel.data), kernel.setup_size, by))


@dataclass(frozen=True, slots=True)
class _Seam:
    """Where the head goes in.

    Attributes:
        home: the section that takes it in.
        at: its file offset.
        rva: where that is loaded.
        by: its size.
    """

    home: Section
    at: int
    rva: int
    by: int

    @classmethod
    def of(cls, headers: Headers, at: int, by: int) -> "_Seam":
        homes = [s for s in headers.sections if s.at <= at < s.at + s.loaded]
        if len(homes) != 1:
            raise HeadersError(f"they load what is at {at:#x} {len(homes)} times, expected once")
        return cls(homes[0], at, homes[0].rva + at - homes[0].at, by)

    def rva_of(self, rva: int) -> int:
        """Where something is loaded that was loaded at an RVA."""
        return rva + self.by if rva >= self.rva else rva

    def offset_of(self, offset: int) -> int:
        """Where in the image something is that was at an offset of the kernel's file."""
        return offset + self.by if offset >= self.at else offset


def _move(image: bytearray, kernel: Kernel, by: int, init_size: int) -> None:
    headers = Headers(kernel.data)
    seam = _Seam.of(headers, kernel.setup_size, by)
    directories = headers.directories()
    _check(headers, seam, directories)
    for section in headers.sections:
        _move_section(image, section, seam)
        if section.name == _COMPAT:
            _move_compat(image, kernel.data, section, seam)
    if peheaders.BASE_RELOCATIONS in directories:
        _move_base_relocations(
            image, headers, kernel.data, directories[peheaders.BASE_RELOCATIONS], seam
        )
    if peheaders.DEBUG in directories:
        _move_debug(image, headers, kernel.data, directories[peheaders.DEBUG], seam)
    for index, (rva, _) in directories.items():
        _put(image, headers.directory(index), seam.rva_of(rva))
    if peheaders.CERTIFICATES in directories:
        struct.pack_into("<II", image, headers.directory(peheaders.CERTIFICATES), 0, 0)
    holds = peheaders.CODE_SIZE if seam.home.flags & peheaders.IS_CODE else peheaders.DATA_SIZE
    _put(image, headers.offset(holds), headers[holds] + by)
    _put(image, headers.offset(peheaders.ENTRY_POINT), seam.rva_of(headers[peheaders.ENTRY_POINT]))
    for base in (peheaders.CODE_BASE, peheaders.DATA_BASE)[: 1 + headers.has_data_base]:
        if headers[base] > seam.rva:  # the section that takes the head in begins where it did
            _put(image, headers.offset(base), headers[base] + by)
    size = _image_size(headers, by, kernel.get("init_size"), init_size)
    _put(image, headers.offset(peheaders.IMAGE_SIZE), size)
    _put(image, headers.offset(peheaders.CHECKSUM), 0)


def _check(headers: Headers, seam: _Seam, directories: dict[int, tuple[int, int]]) -> None:
    """Refuses what cannot be kept right."""
    for alignment in (headers[peheaders.SECTION_ALIGNMENT], headers[peheaders.FILE_ALIGNMENT]):
        if alignment and seam.by % alignment:
            raise HeadersError(f"they align to {alignment:#x}, and {seam.by:#x} is no multiple")
    headers_end = max(headers.end, headers[peheaders.HEADERS_SIZE])
    if headers_end > min(seam.at, seam.rva):
        raise HeadersError(f"they end at {headers_end:#x}, behind the real-mode part")
    others = set(directories) - {
        peheaders.CERTIFICATES,
        peheaders.BASE_RELOCATIONS,
        peheaders.DEBUG,
    }
    if others:
        raise HeadersError(f"they have data directory {min(others)}, whose form is not known")
    for section in headers.sections:
        if section.refers:
            raise HeadersError(f"{section} has relocations or line numbers of its own")
        if section is seam.home:
            continue
        if (
            section.rva < seam.rva < section.end
            or section.at < seam.at < section.at + section.stored
        ):
            raise HeadersError(f"{section} is on both sides of the real-mode part's end")
        if section.stored and (section.rva < seam.rva) != (section.at < seam.at):
            raise HeadersError(f"{section} is loaded in another order than the file's")


def _move_section(image: bytearray, section: Section, seam: _Seam) -> None:
    size, rva, stored, at = section.size, section.rva, section.stored, section.at
    if section is seam.home:
        size, stored = size + seam.by if size else 0, stored + seam.by
    else:
        rva = seam.rva_of(rva)
        at = seam.offset_of(at)
    for field, value in enumerate((size, rva, stored, at)):
        _put(image, section.line + 8 + 4 * field, value)


def _move_compat(image: bytearray, data: bytes, section: Section, seam: _Seam) -> None:
    at = section.at
    while kind := data[at : section.at + section.loaded][:1]:
        if kind == b"\0":
            return
        if kind[0] != _COMPAT_ENTRY or data[at + 1] < 8:
            raise HeadersError(f"{section} has a record of type {kind[0]}, which is not known")
        _move_rva(image, data, at + _COMPAT_RVA, seam)
        at += data[at + 1]
    raise HeadersError(f"{section} has no end")


def _move_base_relocations(
    image: bytearray, headers: Headers, data: bytes, table: tuple[int, int], seam: _Seam
) -> None:
    """The only ones there are in a kernel are of the type that says nothing, as padding."""
    at = headers.offset_of(*table)
    end = at + table[1]
    while at < end:
        size = get(data, at + 4)
        if size < 8 or at + size > end:
            raise HeadersError("their table of base relocations is damaged")
        if any(entry >> 12 for entry in struct.unpack_from(f"<{(size - 8) // 2}H", data, at + 8)):
            raise HeadersError("they have base relocations")
        _move_rva(image, data, at, seam)
        at += size


def _move_debug(
    image: bytearray, headers: Headers, data: bytes, table: tuple[int, int], seam: _Seam
) -> None:
    start = headers.offset_of(*table)
    if table[1] % _DEBUG_ENTRY:
        raise HeadersError("their debug directory is damaged")
    for at in range(start, start + table[1], _DEBUG_ENTRY):
        _move_rva(image, data, at + _DEBUG_RVA, seam)
        _put(image, seam.offset_of(at + _DEBUG_AT), seam.offset_of(get(data, at + _DEBUG_AT)))


def _image_size(headers: Headers, by: int, old: int, new: int) -> int:
    """SizeOfImage: an image that had room for init_size has as much more as before."""
    size = headers[peheaders.IMAGE_SIZE] + by
    spare = headers[peheaders.IMAGE_SIZE] - old
    if old and spare >= 0:
        alignment = max(headers[peheaders.SECTION_ALIGNMENT], 1)
        size = max(size, -(-(new + spare) // alignment) * alignment)
    return size


def _judge(image: bytearray, original: bytes, seam: _Seam) -> None:
    """Has LIEF load both, which must not say worse of the image than of the original."""
    import lief  # half a second

    lief.logging.disable()
    end = max(section.at + section.stored for section in Headers(image).sections)
    old, new = lief.PE.parse(original), lief.PE.parse(bytes(image[:end]))
    if not (isinstance(old, lief.PE.Binary) and isinstance(new, lief.PE.Binary)):
        raise HeadersError("LIEF doesn't read them")
    before, after = (_ADDRESS.sub("", lief.PE.check_layout(each)[1]) for each in (old, new))
    if before != after:
        raise HeadersError(f"LIEF finds fault with the moved ones: {after}")
    for rva in _probes(old):
        there = seam.rva_of(rva)
        offset = seam.offset_of(old.rva_to_offset(rva))
        if (new.rva_to_offset(there), _name(new, there)) != (offset, _name(old, rva)):
            raise HeadersError(f"LIEF does not find what was loaded at {rva:#x} at {there:#x}")


def _probes(program: "lief.PE.Binary") -> Iterator[int]:
    """RVAs to look at: the entry point, each section's first byte and its last one in the file."""
    yield program.optional_header.addressof_entrypoint
    for section in program.sections:
        if section.size:
            first = section.virtual_address
            yield from (first, first + min(section.size, section.virtual_size or section.size) - 1)


def _name(program: "lief.PE.Binary", rva: int) -> str | bytes | None:
    """The name of the section that has an RVA."""
    section = program.section_from_rva(rva)
    return section.name if section else None


def _move_rva(image: bytearray, data: bytes, at: int, seam: _Seam) -> None:
    """Moves an RVA that is at an offset of the kernel's file."""
    _put(image, seam.offset_of(at), seam.rva_of(get(data, at)))


def _put(image: bytearray, at: int, value: int) -> None:
    if value > 0xFFFFFFFF:
        raise HeadersError(f"they would have to say {value:#x}, which is too large")
    struct.pack_into("<I", image, at, value)
