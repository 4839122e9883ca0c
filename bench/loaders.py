"""What brings a kernel and an initrd into memory, and how each makes its image."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bench import fatdisk, tools
from bench.tools import Need

CMDLINE: Final = "console=ttyS0"
_GRUB: Final = Path("/usr/lib/grub/i386-pc")
_SYSLINUX: Final = Path("/usr/lib/syslinux")
ISOLINUX_BINARY: Final = Path("/usr/lib/ISOLINUX/isolinux.bin")
_MTOOLS: Final = Need("mformat", "mtools")

Medium = Literal["disk", "cd", "none"]


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be booted; `initrd` is None where there is none."""

    kernel: Path
    initrd: Path | None
    cmdline: str = CMDLINE

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.kernel,) if self.initrd is None else (self.kernel, self.initrd)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True, slots=True)
class Loader:
    """One row of the tables.

    Attributes:
        name: of the row.
        medium: what QEMU gets its image as; "none" is QEMU's own -kernel.
        build: makes the image; given the payload, a directory for its own files, the image.
        needs: without these it is left out.
        is_peer: somebody else's loader.
    """

    name: str
    medium: Medium
    build: Callable[[Payload, Path, Path], None]
    needs: tuple[Need, ...] = ()
    is_peer: bool = False

    @property
    def suffix(self) -> str:
        """Of its image's name."""
        return ".iso" if self.medium == "cd" else ".img"

    def missing(self) -> list[str]:
        """The Debian packages that it lacks."""
        return sorted({need.package for need in self.needs if not need.is_there()})


def bootsplice(target: str) -> Callable[[Payload, Path, Path], None]:
    """The command that a user runs, as a process of its own."""

    def build(payload: Payload, _: Path, out: Path) -> None:
        program = Path(sys.executable).with_name("bootsplice")
        initrd = [] if payload.initrd is None else [f"--initrd={payload.initrd}"]
        options = [f"--cmdline={payload.cmdline}", f"--target={target}"]
        tools.run(program, "build", payload.kernel, *initrd, *options, "-o", out)

    return build


def _nothing(_: Payload, __: Path, ___: Path) -> None:
    """For QEMU's own -kernel."""


def _syslinux(payload: Payload, work: Path, out: Path) -> None:
    config = work / "syslinux.cfg"
    config.write_text(_syslinux_config(payload))
    boot = (_SYSLINUX / "mbr" / "mbr.bin").read_bytes()
    fatdisk.make(out, boot, payload.files, extra=[config])
    tools.run("syslinux", "--install", "--offset", str(fatdisk.START), out)


def _isolinux(payload: Payload, work: Path, out: Path, *program: str) -> None:
    config = work / "isolinux.cfg"
    config.write_text(_syslinux_config(payload))
    ldlinux = _SYSLINUX / "modules" / "bios" / "ldlinux.c32"
    # The loader itself is patched by -boot-info-table, so it must be a copy.
    binary = work / "isolinux.bin"
    binary.write_bytes(ISOLINUX_BINARY.read_bytes())
    files = [*payload.files, binary, ldlinux, config]
    tools.run(
        *program,
        *("-quiet", "-o", out, "-graft-points"),
        *("-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"),
        *("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"),
        *(f"{'' if path in payload.files else 'isolinux/'}{path.name}={path}" for path in files),
    )


def isolinux_by_xorriso(payload: Payload, work: Path, out: Path) -> None:
    _isolinux(payload, work, out, "xorriso", "-as", "mkisofs")


def isolinux_by_genisoimage(payload: Payload, work: Path, out: Path) -> None:
    _isolinux(payload, work, out, "genisoimage")


def _syslinux_config(payload: Payload) -> str:
    initrd = "" if payload.initrd is None else f"INITRD /{payload.initrd.name}\n"
    return (
        "DEFAULT linux\nPROMPT 0\nLABEL linux\n"
        f"LINUX /{payload.kernel.name}\n{initrd}APPEND {payload.cmdline}\n"
    )


def _grub(suffix: str) -> Callable[[Payload, Path, Path], None]:
    """GRUB with its commands `linux` and `initrd`, or with the suffix 16 those of old."""

    def build(payload: Payload, work: Path, out: Path) -> None:
        place = "(hd0,msdos1)"
        initrd = ""
        if payload.initrd is not None:
            initrd = f"initrd{suffix} {place}/{payload.initrd.name}\n"
        config, core = work / "grub.cfg", work / "core.img"
        kernel = f"{place}/{payload.kernel.name} {payload.cmdline}"
        config.write_text(f"linux{suffix} {kernel}\n{initrd}boot\n")
        tools.run(
            *("grub-mkimage", "-O", "i386-pc", "-p", f"{place}/", "-c", config, "-o", core),
            *("biosdisk", "part_msdos", "fat", f"linux{suffix}"),
        )
        # boot.img looks for core.img in the sector behind it, and core.img for the rest of itself
        # behind that, unless grub-bios-setup tells them otherwise.
        boot = (_GRUB / "boot.img").read_bytes()
        fatdisk.make(out, boot, payload.files, gap=core.read_bytes())

    return build


_GRUB_NEEDS: Final = (
    Need("grub-mkimage", "grub-common"),
    Need(str(_GRUB / "boot.img"), "grub-pc-bin"),
    _MTOOLS,
)
_SYSLINUX_NEEDS: Final = (
    Need("syslinux", "syslinux"),
    Need(str(_SYSLINUX / "mbr" / "mbr.bin"), "syslinux-common"),
    _MTOOLS,
)
ISOLINUX_NEEDS: Final = (
    Need(str(ISOLINUX_BINARY), "isolinux"),
    Need(str(_SYSLINUX / "modules" / "bios" / "ldlinux.c32"), "syslinux-common"),
)
XORRISO: Final = Need("xorriso", "xorriso")
GENISOIMAGE: Final = Need("genisoimage", "genisoimage")

STOCK: Final = Loader("stock `-kernel`, no disk", "none", _nothing)
DISK: Final = Loader("bootsplice disk", "disk", bootsplice("disk"))
ISO: Final = Loader("bootsplice iso (CD)", "cd", bootsplice("iso"))
SYSLINUX: Final = Loader("SYSLINUX", "disk", _syslinux, _SYSLINUX_NEEDS, is_peer=True)
GRUB: Final = Loader("GRUB, `linux`", "disk", _grub(""), _GRUB_NEEDS, is_peer=True)
GRUB16: Final = Loader("GRUB, `linux16`", "disk", _grub("16"), _GRUB_NEEDS, is_peer=True)
ISOLINUX: Final = Loader(
    "ISOLINUX (CD)", "cd", isolinux_by_xorriso, (*ISOLINUX_NEEDS, XORRISO), is_peer=True
)
ALL: Final = (STOCK, DISK, ISO, SYSLINUX, GRUB, GRUB16, ISOLINUX)
