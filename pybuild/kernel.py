"""Reading a kernel image: what it is and what its setup header says, without guessing.

Sources: boot.rst, "Details of Header Fields" and "Loading The Rest of The Kernel".
"""

import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from pybuild import bootproto, words
from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.lookslike import looks_like
from pybuild.regions import Region

# Linux's own boot sector, up to 2.4, begins by loading these two segments; it is the only mark
# that a kernel older than HdrS has. Offsets of the immediates of its first two MOVs to %ax.
_BOOTSEG: Final = (1, 0x07C0)
_INITSEG: Final = (6, 0x9000)

_SHORT_JUMP: Final = 0xEB  # the opcode that the low byte of the header's jump field holds

# How far syssize may be past the end of the file before the file counts as cut off: builders
# round it up, to a paragraph or to a sector.
_SYSSIZE_SLACK: Final = SECTOR


@dataclass(frozen=True)
class Kernel:
    """A kernel file that follows the Linux/x86 boot protocol.

    Attributes:
        name: the file's name, for messages.
        data: the whole file.
        version: its boot protocol version, or bootproto.OLD_PROTOCOL.
        header_end: offset of the first byte behind its setup header.
    """

    name: str
    data: bytes = field(repr=False)
    version: int
    header_end: int

    def has(self, name: str) -> bool:
        """Whether this kernel's header has the field."""
        try:
            return bootproto.field(name, self.version).exists(self.version, self.header_end)
        except KeyError:
            return False

    def field(self, name: str) -> bootproto.Field:
        """The field in the form that this kernel has it; raises KeyError if it has none."""
        if not self.has(name):
            raise KeyError(name)
        return bootproto.field(name, self.version)

    def __getitem__(self, name: str) -> int:
        return self.field(name).get(self.data)

    def get(self, name: str, default: int = 0) -> int:
        """The field's value, or the default for a header without it."""
        return self[name] if self.has(name) else default

    @cached_property
    def fields(self) -> tuple[bootproto.Field, ...]:
        """Every field that this kernel's header has, by offset."""
        return tuple(f for f in bootproto.FIELDS if f.exists(self.version, self.header_end))

    @property
    def setup_size(self) -> int:
        """Bytes of the real-mode part: the boot sector and setup_sects sectors (0 means 4)."""
        return setup_size(self.data)

    @property
    def setup(self) -> bytes:
        """The real-mode part."""
        return self.data[: self.setup_size]

    @property
    def protected(self) -> bytes:
        """The protected-mode part: all the rest, since syssize cannot be trusted."""
        return self.data[self.setup_size :]

    @property
    def protected_size(self) -> int:
        """Bytes of the protected-mode part."""
        return len(self.data) - self.setup_size

    @property
    def is_high(self) -> bool:
        """Whether it is a bzImage, whose protected-mode part runs at 0x100000."""
        return bool(self.get("loadflags") & bootproto.LOADED_HIGH)

    @property
    def is_relocatable(self) -> bool:
        """Whether the protected-mode part runs at any aligned address (2.05, bzImage)."""
        return self.is_high and self.get("relocatable_kernel") != 0

    @property
    def load_address(self) -> int:
        """The physical address that the protocol gives the protected-mode part."""
        return bootproto.BZIMAGE_LOAD_ADDRESS if self.is_high else bootproto.ZIMAGE_LOAD_ADDRESS

    @property
    def contents(self) -> Region:
        """The protected-mode part at the address that the protocol gives it."""
        return Region("kernel", self.load_address, self.load_address + self.protected_size)

    @property
    def has_efi_stub(self) -> bool:
        """Whether the file is an EFI program too: MZ, and a PE header where 0x3c says."""
        if self.data[:2] != b"MZ":
            return False
        return self.data[self.pe_offset : self.pe_offset + 4] == b"PE\0\0"

    @property
    def pe_offset(self) -> int:
        """Where an EFI program's PE header is."""
        offset: int = struct.unpack_from("<I", self.data, 0x3C)[0]
        return offset

    @property
    def entries(self) -> tuple[str, ...]:
        """The ways in that this kernel offers, by the boot protocol's names."""
        found = ["16-bit"]
        if self.is_high:
            found.append("32-bit")
        if self.get("xloadflags") & bootproto.XLF_KERNEL_64:
            found.append("64-bit")
        if self.has_efi_stub:
            found.append("EFI stub")
        return tuple(found)

    @property
    def version_string(self) -> str | None:
        """The text that kernel_version points to; None if it points outside the setup part."""
        pointer = self.get("kernel_version")
        start = pointer + SECTOR
        if pointer == 0 or start >= self.setup_size:
            return None
        return words.shown(self.data[start : self.setup_size]) or None

    @property
    def syssize_bytes(self) -> int | None:
        """What syssize says of the protected-mode part in bytes; None where it says nothing.

        A bzImage before 2.04 has only 16 bits of it, which wrap at 1 MiB.
        """
        if self.is_high and self.version < 0x204:
            return None
        return self["syssize"] * bootproto.PARAGRAPH or None


def setup_size(data: bytes) -> int:
    """Bytes of the real-mode part of a kernel file: setup_sects 0 means 4."""
    sectors = bootproto.field("setup_sects", bootproto.OLD_PROTOCOL).get(data)
    return (1 + (sectors or bootproto.DEFAULT_SETUP_SECTS)) * SECTOR


def read(path: Path) -> Kernel:
    """Reads a kernel file.

    Raises:
        InputError: it cannot be read or is no kernel; one line that says what it looks like.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a directory, not a kernel; give the bzImage inside")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no regular file; copy the kernel out of it first")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(str(path), data)


def parse(name: str, data: bytes) -> Kernel:
    """Recognises a kernel in the bytes of a file.

    Raises:
        InputError: it is no kernel, or it has been cut off.
    """
    kernel = parse_setup(name, data)
    _check_protected_part(kernel, refuse_prefix=f"{name}: cut off")
    return kernel


def parse_setup(name: str, data: bytes) -> Kernel:
    """Recognises a kernel of which perhaps no more is there than the real-mode part.

    Raises:
        InputError: it is no kernel, or not all of that part.
    """

    def refuse(why: str) -> InputError:
        return InputError(f"{name}: no Linux/x86 kernel: {why}")

    size = len(data)
    if size < bootproto.field("boot_flag", bootproto.OLD_PROTOCOL).end:
        raise refuse(f"{looks_like(data)}, {size} bytes, too short for a setup header")
    boot_flag = bootproto.field("boot_flag", bootproto.OLD_PROTOCOL).get(data)
    if boot_flag != bootproto.BOOT_FLAG:
        raise refuse(
            f"boot_flag at 0x1fe is {boot_flag:#06x}, expected {bootproto.BOOT_FLAG:#06x}; "
            f"it looks like {looks_like(data)}"
        )
    magic = bootproto.field("header", 0x200)
    if size < magic.end or magic.get(data) != bootproto.HEADER_MAGIC:
        if not _has_linux_boot_sector(data):
            raise refuse(
                "no HdrS at 0x202, and not Linux's old boot sector either; "
                f"it looks like {looks_like(data)}"
            )
        version, header_end = bootproto.OLD_PROTOCOL, bootproto.field("boot_flag", 0).end
    else:
        version_field = bootproto.field("version", 0x200)
        if size < version_field.end:
            raise refuse(f"{size} bytes: cut off inside the setup header")
        version = version_field.get(data)
        if version < 0x200:
            raise refuse(f"HdrS with version {version:#06x}, expected 0x0200 or newer")
        opcode, displacement = data[0x200], data[0x201]
        if opcode != _SHORT_JUMP:
            raise refuse(
                f"jump at 0x200 begins with {opcode:#04x}, expected a short jump "
                f"({_SHORT_JUMP:#04x}) over the header"
            )
        header_end = bootproto.HEADER_JUMP_END + displacement
        needed = bootproto.field("code32_start", version)
        if header_end < needed.end:
            raise refuse(
                f"the header ends at {header_end:#x}, before {needed.name}, which every version "
                "from 2.00 on has (the byte at 0x201 says where it ends)"
            )
    if size < setup_size(data):
        raise refuse(
            f"cut off: {size} bytes, but setup_sects says that the real-mode part alone "
            f"has {setup_size(data)}"
        )
    return Kernel(name, data, version, header_end)


def _has_linux_boot_sector(data: bytes) -> bool:
    return all(
        int.from_bytes(data[offset : offset + 2], "little") == segment
        for offset, segment in (_BOOTSEG, _INITSEG)
    )


def _check_protected_part(kernel: Kernel, refuse_prefix: str) -> None:
    have = kernel.protected_size
    if have == 0:
        raise InputError(f"{refuse_prefix}: nothing behind the real-mode part")
    said = kernel.syssize_bytes
    if said is not None and said > have + _SYSSIZE_SLACK:
        raise InputError(
            f"{refuse_prefix}: the protected-mode part has {have} bytes, "
            f"expected {said} by syssize; get the file again"
        )
    payload_end = kernel.get("payload_offset") + kernel.get("payload_length")
    if payload_end > have:
        raise InputError(
            f"{refuse_prefix}: the protected-mode part has {have} bytes, expected at least "
            f"{payload_end} by payload_offset and payload_length; get the file again"
        )
