"""Enters a kernel's protected-mode part directly, as a loader does that runs no setup code.

kernels/entry/entry.asm is the boot sector; QEMU puts into RAM what it does not read: the
protected-mode part, a boot_params page made of the kernel's header, command line and initrd.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from booting import boot, report

from pybuild import bootproto, material, paths
from pybuild.bootproto import SECTOR
from pybuild.kernel import Kernel
from pybuild.material import Workshop

# What stock SeaBIOS leaves alone, see pybuild/machines/pc.toml.
RUN: Final = 0x100000
PARAMS: Final = 0x90000
CMDLINE: Final = 0x98FF8  # 16 characters reach into a second page
INITRD: Final = 0x4000000
ENTRY_64: Final = 0x200  # from the protected-mode part's start
PAGE: Final = 0x1000

# Of boot_params, in front of the setup header.
EXT_RAMDISK_IMAGE, EXT_RAMDISK_SIZE, EXT_CMD_LINE_PTR = 0xC0, 0xC4, 0xC8
_HEADER: Final = 0x1F1
_SECTORS: Final = 16 * 63  # a disk that SeaBIOS boots at any controller, see target ram


@dataclass(frozen=True)
class Guest:
    """A kernel and what a loader has for it.

    Attributes:
        kernel: the kernel.
        cmdline: the command line, without its NUL.
        initrd: the initrd.
        run: where the protected-mode part is.
        params: where boot_params is.
        dwords: what boot_params has before the header, by offset.
        blobs: what else is in memory, by address.
    """

    kernel: Kernel
    cmdline: bytes
    initrd: bytes
    run: int = RUN
    params: int = PARAMS
    dwords: Mapping[int, int] = field(default_factory=dict)
    blobs: Mapping[int, bytes] = field(default_factory=dict)

    def boot_params(self) -> bytes:
        """The page: the kernel's own header, filled in; all else is zero."""
        page = bytearray(PAGE)
        page[_HEADER : self.kernel.header_end] = self.kernel.data[_HEADER : self.kernel.header_end]
        filled = {
            "type_of_loader": bootproto.TYPE_OF_LOADER_UNDEFINED,
            "cmd_line_ptr": CMDLINE,
            "ramdisk_image": INITRD,
            "ramdisk_size": len(self.initrd),
        }
        for name, value in filled.items():
            self.kernel.field(name).put(page, value)
        for offset, value in self.dwords.items():
            page[offset : offset + 4] = value.to_bytes(4, "little")
        return bytes(page)

    def needed(self) -> dict[str, tuple[int, int]]:
        """The ranges that the 64-bit boot protocol promises to be mapped: first address, end."""
        return {
            "run": (self.run, self.run + self.kernel["init_size"]),
            "boot_params": (self.params, self.params + PAGE),
            "cmdline": (CMDLINE, CMDLINE + len(self.cmdline) + 1),
        }

    def enter(self, out: Path, expect: str, *qemu: str, **defines: int) -> dict[str, str]:
        """Boots with these defines for entry.asm beside ENTRY and RSI; what the kernel reports."""
        disk, loaded = self.disk(out, **defines)
        return report(boot(disk, expect, *qemu, *loaded))

    def disk(self, out: Path, **defines: int) -> tuple[Path, list[str]]:
        """A disk with entry.asm, and QEMU's arguments that load all that it doesn't."""
        offset = ENTRY_64 if defines["BITS"] == 64 else 0
        defines |= {"ENTRY": self.run + offset, "RSI": self.params}
        disk = out / "entry.img"
        disk.write_bytes(sector(defines, out).ljust(_SECTORS * SECTOR, b"\0"))
        blobs = {
            self.run: self.kernel.protected,
            self.params: self.boot_params(),
            CMDLINE: self.cmdline + b"\0",
            INITRD: self.initrd,
            **self.blobs,
        }
        loaded: list[str] = []
        for address, contents in blobs.items():
            file = out / f"{address:#x}.bin"
            file.write_bytes(contents)
            name = str(file).replace(",", ",,")
            loaded += ("-device", f"loader,file={name},addr={address:#x},force-raw=on")
        return disk, loaded


def maps(ranges: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """The defines that make entry.asm map these."""
    defines: dict[str, int] = {}
    for number, (start, end) in enumerate(ranges.values()):
        defines |= {f"MAP{number}": start, f"MAP{number}_END": end}
    return defines


def sector(defines: Mapping[str, int], build: Path) -> bytes:
    """The boot sector, assembled below `build`."""
    shop = Workshop(paths.ROOT, build, paths.cache_directory(), print)
    wanted = {"source": "entry/entry.asm", "defines": dict(defines)}
    assembled = material.make(wanted, paths.KERNELS, "entry", shop).read_bytes()
    assert len(assembled) == SECTOR
    return assembled
