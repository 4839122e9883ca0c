"""The Linux/x86 boot protocol's setup header: one table of every field.

Source: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header", "Details of Header
Fields") for protocol 2.00 to 2.15, and its "old" (pre-2.00) and 2.00/2.01 command line rules.
Parser, `bootsplice inspect` and every header change read this table; `asm/include/bootproto.inc`
is proved equal to it by a test.

Offsets are bytes from the start of the kernel file, which is also the start of the real-mode
part and of boot_params. Versions are as the header stores them: major << 8 | minor.
"""

from dataclasses import dataclass
from typing import Final, Literal

Access = Literal["read", "write", "modify", "leave"]

# Values that the protocol gives names to.
BOOT_FLAG: Final = 0xAA55  # what boot_flag must be
HEADER_MAGIC: Final = 0x53726448  # "HdrS"
OLD_PROTOCOL: Final = 0x000  # no HdrS at all
CMD_LINE_MAGIC: Final = 0xA33F  # the pre-2.02 command line convention
DEFAULT_SETUP_SECTS: Final = 4  # what setup_sects = 0 means
SECTOR: Final = 512  # bytes; the unit of setup_sects
PARAGRAPH: Final = 16  # bytes; the unit of syssize
LOADED_HIGH: Final = 0x01  # loadflags bit 0: the protected-mode part runs at 0x100000
CAN_USE_HEAP: Final = 0x80  # loadflags bit 7: heap_end_ptr is valid
XLF_KERNEL_64: Final = 0x01  # xloadflags bit 0: 64-bit entry at +0x200
XLF_CAN_BE_LOADED_ABOVE_4G: Final = 0x02  # bit 1: kernel, boot_params, command line, initrd
TYPE_OF_LOADER_UNDEFINED: Final = 0xFF  # bootsplice has no assigned loader id
DEFAULT_INITRD_ADDR_MAX: Final = 0x37FFFFFF  # for protocols before 2.03
DEFAULT_CMDLINE_SIZE: Final = 255  # characters without the NUL, for protocols before 2.06
ZIMAGE_LOAD_ADDRESS: Final = 0x10000  # of the protected-mode part, loadflags bit 0 clear
BZIMAGE_LOAD_ADDRESS: Final = 0x100000  # the same, bit 0 set
REAL_MODE_ADDRESS: Final = 0x90000  # where everything before 2.02 wants its real-mode part
SETUP_ENTRY_PARAGRAPHS: Final = 0x20  # setup code is entered at real-mode segment + 0x20, ip 0
HEADER_JUMP_END: Final = 0x202  # the header ends at this + the displacement byte at 0x201


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the setup header.

    Attributes:
        name: its name in boot.rst.
        offset: bytes from the start of the file.
        size: bytes, little-endian.
        since: the first protocol version that has it; OLD_PROTOCOL for all.
        until: the last version that has it in this form, or None.
        access: what a boot loader does with it (boot.rst: read, write, modify).
        meaning: one line for a person.
    """

    name: str
    offset: int
    size: int
    since: int
    access: Access
    meaning: str
    until: int | None = None

    @property
    def end(self) -> int:
        """The offset of the first byte behind the field."""
        return self.offset + self.size

    @property
    def maximum(self) -> int:
        """The largest value that the field can hold."""
        return (1 << (8 * self.size)) - 1

    def exists(self, version: int, header_end: int) -> bool:
        """Whether a header of this version that ends at header_end has this field.

        Both matter: iPXE says 2.07 and has machine code where 2.10 keeps pref_address, and a
        header that ends early by its own jump has code there whatever its version says.
        """
        if version < self.since or (self.until is not None and version > self.until):
            return False
        return self.since == OLD_PROTOCOL or self.end <= header_end

    def get(self, data: bytes | bytearray | memoryview) -> int:
        """Reads the field from the start of a kernel file."""
        return int.from_bytes(data[self.offset : self.end], "little")

    def put(self, data: bytearray, value: int) -> None:
        """Writes the field; raises OverflowError when the value doesn't fit."""
        data[self.offset : self.end] = value.to_bytes(self.size, "little")


FIELDS: Final = (
    Field("cmd_line_magic", 0x020, 2, 0x000, "write", "0xA33F: a command line is given", 0x201),
    Field("cmd_line_offset", 0x022, 2, 0x000, "write", "command line, from the real part", 0x201),
    Field("setup_sects", 0x1F1, 1, 0x000, "read", "sectors of setup code; 0 means 4"),
    Field("root_flags", 0x1F2, 2, 0x000, "modify", "nonzero: mount the root read-only"),
    Field("syssize", 0x1F4, 2, 0x000, "read", "protected-mode size, paragraphs, 16 bits", 0x203),
    Field("swap_dev", 0x1F6, 2, 0x000, "leave", "obsolete swap device", 0x203),
    Field("syssize", 0x1F4, 4, 0x204, "read", "protected-mode size, paragraphs"),
    Field("ram_size", 0x1F8, 2, 0x000, "leave", "obsolete ramdisk word"),
    Field("vid_mode", 0x1FA, 2, 0x000, "modify", "video mode; 0xffff is normal"),
    Field("root_dev", 0x1FC, 2, 0x000, "modify", "default root device number"),
    Field("boot_flag", 0x1FE, 2, 0x000, "read", "0xAA55"),
    Field("jump", 0x200, 2, 0x200, "read", "short jump over the header"),
    Field("header", 0x202, 4, 0x200, "read", "HdrS"),
    Field("version", 0x206, 2, 0x200, "read", "boot protocol version"),
    Field("realmode_swtch", 0x208, 4, 0x200, "modify", "16-bit hook before the mode switch"),
    Field("start_sys_seg", 0x20C, 2, 0x200, "read", "obsolete load-low segment"),
    Field("kernel_version", 0x20E, 2, 0x200, "read", "version string, from 0x200"),
    Field("type_of_loader", 0x210, 1, 0x200, "write", "boot loader id; 0xff is undefined"),
    Field("loadflags", 0x211, 1, 0x200, "modify", "bit 0 LOADED_HIGH, 5 QUIET, 7 CAN_USE_HEAP"),
    Field("setup_move_size", 0x212, 2, 0x200, "modify", "bytes that move to 0x90000", 0x201),
    Field("code32_start", 0x214, 4, 0x200, "modify", "32-bit entry, or the hook before it"),
    Field("ramdisk_image", 0x218, 4, 0x200, "write", "initrd's physical address"),
    Field("ramdisk_size", 0x21C, 4, 0x200, "write", "initrd's size, bytes"),
    Field("bootsect_kludge", 0x220, 4, 0x200, "leave", "the old boot sector's own"),
    Field("heap_end_ptr", 0x224, 2, 0x201, "write", "end of heap and stack, from 0x200"),
    Field("ext_loader_ver", 0x226, 1, 0x202, "write", "high bits of the loader's version"),
    Field("ext_loader_type", 0x227, 1, 0x202, "write", "loader id - 0x10 when the id is extended"),
    Field("cmd_line_ptr", 0x228, 4, 0x202, "write", "command line's physical address"),
    Field("initrd_addr_max", 0x22C, 4, 0x203, "read", "highest address of an initrd byte"),
    Field("kernel_alignment", 0x230, 4, 0x205, "modify", "alignment when relocatable, bytes"),
    Field("relocatable_kernel", 0x234, 1, 0x205, "read", "nonzero: runs at any aligned address"),
    Field("min_alignment", 0x235, 1, 0x20A, "read", "smallest alignment, power of two"),
    Field("xloadflags", 0x236, 2, 0x20C, "read", "bit 0 64-bit entry, 1 above 4G, 2 and 3 EFI"),
    Field("cmdline_size", 0x238, 4, 0x206, "read", "longest command line without the NUL"),
    Field("hardware_subarch", 0x23C, 4, 0x207, "write", "0 is a PC"),
    Field("hardware_subarch_data", 0x240, 8, 0x207, "write", "the subarchitecture's own"),
    Field("payload_offset", 0x248, 4, 0x208, "read", "compressed kernel, from the protected part"),
    Field("payload_length", 0x24C, 4, 0x208, "read", "compressed kernel's size, bytes"),
    Field("setup_data", 0x250, 8, 0x209, "write", "linked list of struct setup_data"),
    Field("pref_address", 0x258, 8, 0x20A, "read", "preferred load address"),
    Field("init_size", 0x260, 4, 0x20A, "read", "memory needed from the runtime start, bytes"),
    Field("handover_offset", 0x264, 4, 0x20B, "read", "EFI handover entry"),
    Field("kernel_info_offset", 0x268, 4, 0x20F, "read", "kernel_info, from the protected part"),
)
_FORMS: Final = {each.name: [f for f in FIELDS if f.name == each.name] for each in FIELDS}


def field(name: str, version: int) -> Field:
    """The field of this name in the form that a protocol version has it.

    Raises:
        KeyError: the version has no field of this name.
    """
    for candidate in _FORMS[name]:
        latest = candidate.until if candidate.until is not None else version
        if candidate.since <= version <= latest:
            return candidate
    raise KeyError(name)


def version_name(version: int) -> str:
    """A protocol version as people write it: 0x20f is 2.15, no HdrS is "old"."""
    return "old" if version < 0x200 else f"{version >> 8}.{version & 0xFF:02d}"
