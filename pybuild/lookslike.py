"""What a file that is no kernel looks like, so that its refusal can say what to give instead."""

from typing import Final

# (offset, magic bytes, what it is and what to do about it)
_MAGICS: Final = (
    (0x0, b"\x7fELF", "an ELF file (a vmlinux? give the bzImage made from it)"),
    (0x0, b"\x1f\x8b", "gzip-compressed data (an initrd? or gunzip it first)"),
    (0x0, b"\xfd7zXZ\x00", "xz-compressed data (an initrd? or unxz it first)"),
    (0x0, b"\x28\xb5\x2f\xfd", "zstd-compressed data (an initrd? or unzstd it first)"),
    (0x0, b"BZh", "bzip2-compressed data (bunzip2 it first)"),
    (0x0, b"\x02\x21\x4c\x18", "LZ4-compressed data (unlz4 it first)"),
    (0x0, b"0707", "a cpio archive (an initrd? give it with --initrd)"),
    (0x0, b"!<arch>\n", "an ar archive or a Debian package (unpack it first)"),
    (0x0, b"\xed\xab\xee\xdb", "an RPM package (unpack it first)"),
    (0x0, b"\x27\x05\x19\x56", "a U-Boot uImage (give the kernel inside)"),
    (0x0, b"ANDROID!", "an Android boot image (give the kernel inside)"),
    (0x0, b"QFI\xfb", "a qcow2 disk image"),
    (0x38, b"ARM\x64", "an arm64 Image, not an x86 kernel"),
    (0x38, b"RISCV", "a RISC-V Image, not an x86 kernel"),
    (0x8001, b"CD001", "an ISO 9660 image (give the kernel inside)"),
    (0x36, b"FAT", "a FAT boot sector"),
    (0x52, b"FAT32", "a FAT32 boot sector"),
    (0x3, b"NTFS", "an NTFS boot sector"),
    (0x0, b"MZ", "a DOS or EFI program without a Linux setup header"),
    (0x0, b"#!", "a script"),
)


def looks_like(data: bytes) -> str:
    """A noun phrase for a file's contents, by its magic numbers; "unknown data" at worst."""
    if not any(data):
        return "nothing but zero bytes" if data else "an empty file"
    for offset, magic, description in _MAGICS:
        if data.startswith(magic, offset):
            return description
    if data[0x1FE:0x200] == b"\x55\xaa":
        return "a boot sector or disk image"
    if all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in data[:512]):
        return "a text file"
    return "unknown data"
