"""Kernel images that are small and right, for tests to bend: made of bytes, or by NASM."""

from collections.abc import Mapping
from pathlib import Path

from pybuild import bootproto, material, paths
from pybuild.bootproto import DEFAULT_SETUP_SECTS, HEADER_JUMP_END, OLD_PROTOCOL, SECTOR
from pybuild.material import Workshop

VERSIONS = (OLD_PROTOCOL, *range(0x200, 0x210))
NEWEST = VERSIONS[-1]
FILE_START = bytes.fromhex("b8c007 8ed8 b80090 8ec0")  # Linux's own boot sector, up to 2.4
PE_OFFSET = 0x80

# Probe kernels' defines by name: each form of header and of kernel that there is.
PROBES: Mapping[str, Mapping[str, int]] = {
    "old": {"PROTOCOL": 0},
    "zimage": {"PROTOCOL": 0x203, "LOADED_HIGH": 0},
    "2.00": {"PROTOCOL": 0x200},
    "2.02": {"PROTOCOL": 0x202, "SETUP_SECTS": 0},
    "2.10": {"PROTOCOL": 0x20A},
    "relocatable": {"PROTOCOL": 0x20F, "RELOCATABLE": 1},
}


def filler(size: int, seed: int) -> bytes:
    """Bytes that are never 0 and differ from their neighbours: no field reads as empty by luck."""
    period = bytes((offset * 167 + seed * 29) & 0xFF | 1 for offset in range(256))
    return (period * (size // len(period) + 1))[:size]


def header_end(version: int) -> int:
    """Where the header of a version ends that has every field and nothing else."""
    return max(f.end for f in bootproto.FIELDS if f.exists(version, 0x400))


def image(
    version: int = NEWEST,
    *,
    setup_sects: int = 1,
    end: int | None = None,
    protected: int = 0x321,
    text: str | bytes | None = None,
    efi_stub: bool = False,
    **fields: int,
) -> bytes:
    """The bytes of a kernel file.

    Args:
        version: its protocol; OLD_PROTOCOL for none.
        setup_sects: as the header stores it.
        end: where its header ends, by the jump; behind the version's last field if not given.
        protected: bytes of the protected-mode part.
        text: what `kernel_version` points to, in the last 64 bytes of the setup part, unless the
            field is given. Without it the field is 0.
        efi_stub: whether it is an EFI program, too.
        fields: values of header fields. loadflags says bzImage, code32_start and pref_address
            are the load address, syssize is right, the other fields are 0. A field that the
            header does not have is not written: in its place is the filler, code as it were.
    """
    end = header_end(version) if end is None else end
    setup_size = (1 + (setup_sects or DEFAULT_SETUP_SECTS)) * SECTOR
    data = bytearray(filler(setup_size, 1))
    data[: len(FILE_START)] = FILE_START
    high = version >= 0x200 and fields.get("loadflags", 1) & bootproto.LOADED_HIGH
    home = bootproto.BZIMAGE_LOAD_ADDRESS if high else bootproto.ZIMAGE_LOAD_ADDRESS
    values = {
        "setup_sects": setup_sects,
        "boot_flag": bootproto.BOOT_FLAG,
        "jump": 0xEB | (end - HEADER_JUMP_END & 0xFF) << 8,
        "header": bootproto.HEADER_MAGIC,
        "version": version,
        "loadflags": bootproto.LOADED_HIGH,
        "code32_start": home,
        "kernel_alignment": 0x1000,
        "pref_address": home,
        "init_size": protected + 0x1000,
        "cmdline_size": 255,
        "initrd_addr_max": bootproto.DEFAULT_INITRD_ADDR_MAX,
        "syssize": -(-protected // bootproto.PARAGRAPH) & (0xFFFF if version < 0x204 else ~0),
        "kernel_version": 0 if text is None else setup_size - SECTOR - 64,
        **fields,
    }
    for field in bootproto.FIELDS:
        if field.exists(version, end):
            field.put(data, values.pop(field.name, 0))
    unknown = set(fields) & set(values)
    if unknown:
        raise ValueError(f"protocol {version:#x} with a header to {end:#x} has no {unknown}")
    if text is not None:
        encoded = text.encode() + b"\0" if isinstance(text, str) else text
        data[setup_size - 64 : setup_size - 64 + len(encoded)] = encoded
    if efi_stub:
        data[:2] = b"MZ"
        data[0x3C:0x40] = PE_OFFSET.to_bytes(4, "little")
        data[PE_OFFSET : PE_OFFSET + 4] = b"PE\0\0"
    return bytes(data) + filler(protected, 2)


def probe(name: str, build: Path, **defines: int) -> Path:
    """The file of a probe kernel, which reports how it was booted, assembled below `build`."""
    all_defines = {"PM_SIZE": 0x1001, **PROBES[name], **defines}
    wanted = {"source": "probe/probe.asm", "defines": all_defines}
    shop = Workshop(paths.ROOT, build, paths.cache_directory(), print)
    return material.make(wanted, paths.KERNELS, f"probe-{name}", shop)
