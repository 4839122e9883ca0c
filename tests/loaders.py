"""Other people's loaders, each of which brings any kernel file into memory in QEMU and enters it.

A `Loader` boots a kernel, with or without an initrd, up to a text on the serial port or the screen.
That a loader refuses a kernel is seen in the same way: expect what it says then, on the serial
port (GRUB, kexec) or the screen (ISOLINUX, iPXE). Those in `kexec.py` run from a Linux.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from archive import real_kernel
from booting import TIMEOUT
from missing import missing
from qemuguest import boot

from bench import fatdisk, tools
from bench import loaders as bench
from bench.loaders import Payload
from bench.tools import Need
from pybuild.watch import BootResult

Entry = Literal["16-bit", "32-bit", "64-bit"]

_QBOOT: Final = Path("/usr/share/qemu/qboot.rom")
_GRUB: Final = (
    Need("grub-mkimage", "grub-common"),
    Need("/usr/lib/grub/i386-pc/cdboot.img", "grub-pc-bin"),
    bench.XORRISO,
)
# What talks, and what a script needs that reads a CD. Not `normal`: its menu takes a second.
_GRUB_MODULES: Final = ("biosdisk", "iso9660", "serial", "terminal", "mmap", "reboot")


@dataclass(frozen=True, slots=True)
class Loader:
    """One that brings a kernel into memory.

    Attributes:
        name: what tests are named by.
        entry: where it enters the kernel.
        prepare: makes what QEMU needs; given the payload, whose files are in a folder that is
            for this boot alone. Returns QEMU's arguments, but for the memory.
        needs: without these there is no such loader here.
        memory: MiB of RAM that it takes at least.
        loses_initrd: the kernel does not hear of an initrd.
    """

    name: str
    entry: Entry
    prepare: Callable[[Payload], list[str]]
    needs: tuple[Need, ...] = ()
    memory: int = 64
    loses_initrd: bool = False

    def __str__(self) -> str:
        return self.name

    def boot(
        self,
        kernel: Path,
        *,
        expect: str,
        room: Path,
        initrd: Path | None = None,
        cmdline: str = "",
        memory: int = 0,
        qemu: tuple[str, ...] = (),
        timeout: float = TIMEOUT,
    ) -> BootResult:
        """Boots a kernel up to the expected text; a failure shows log and screen.

        Args:
            kernel: its file.
            expect: a regular expression, as for `watch.run`.
            room: a folder; what is made for this boot goes into a new one in it.
            initrd: the initrd's file.
            cmdline: the command line. GRUB and ISOLINUX put BOOT_IMAGE=... before it, ISOLINUX
                its initrd= behind it.
            memory: MiB of RAM; as much as the loader takes if that is more.
            qemu: more arguments for it.
            timeout: seconds.
        """
        for need in self.needs:
            if not need.is_there():
                missing(f"{need.what} is not there; apt-get install {need.package}")
        work = room / f"{self.name}-{sum(1 for _ in room.iterdir())}"
        work.mkdir()
        payload = Payload(
            Path(shutil.copy(kernel, work / "kernel")),
            Path(shutil.copy(initrd, work / "initrd")) if initrd else None,
            cmdline,
        )
        arguments = ["-nic", "none", "-m", f"{max(memory, self.memory)}M", *self.prepare(payload)]
        result = boot(
            [*arguments, *qemu],
            directory=work,
            expect=re.compile(expect),
            timeout=timeout,
            stream=lambda _: None,
        )
        assert result.matched, (
            f"{self.name}: {expect!r} was not seen in {result.seconds:.1f} s "
            f"({result.shutdown_reason or 'the guest did not end'}); {result.messages}\n"
            f"--- serial port\n{result.serial.rstrip()}\n--- screen\n{result.screen}\n---"
        )
        return result


def _from_qemu(*machine: str) -> Callable[[Payload], list[str]]:
    """QEMU's own -kernel: the firmware has the setup code in fw_cfg and enters it."""

    def prepare(payload: Payload) -> list[str]:
        initrd = ["-initrd", str(payload.initrd)] if payload.initrd else []
        return [*machine, "-kernel", str(payload.kernel), *initrd, "-append", payload.cmdline]

    return prepare


def _grub(suffix: str, *before: str) -> Callable[[Payload], list[str]]:
    """A CD whose GRUB runs one script, with `linux` or `linux16`, and `before` these commands.

    It is a core image with all that the script needs: what grub-mkrescue puts beside it, 5 MB,
    would only be read for the menu.
    """

    def prepare(payload: Payload) -> list[str]:
        work = payload.kernel.parent
        script, core, iso = work / "grub.cfg", work / "core.img", work / "grub.iso"
        lines = ["serial", "terminal_output serial", *before]
        lines.append(f"linux{suffix} ($root)/kernel {payload.cmdline}")
        if payload.initrd:
            lines.append(f"initrd{suffix} ($root)/initrd")
        lines += ["boot", "reboot"]  # what one refuses the next one misses: it ends at the reboot
        script.write_text("\n".join(lines) + "\n")
        modules = [*_GRUB_MODULES, f"linux{suffix}"]
        options = ("-O", "i386-pc-eltorito", "-p", "/", "-c", script, "-o", core)
        tools.run("grub-mkimage", *options, *modules)
        files = [core, payload.kernel, *([payload.initrd] if payload.initrd else [])]
        tools.run(
            *("xorriso", "-as", "mkisofs", "-quiet", "-o", iso, "-graft-points"),
            *("-b", core.name, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"),
            *(f"/{path.name}={path}" for path in files),
        )
        return ["-cdrom", str(iso)]

    return prepare


def _grub_rescue(suffix: str) -> Callable[[Payload], list[str]]:
    """The CD that grub-mkrescue makes, with a grub.cfg of one entry."""

    def prepare(payload: Payload) -> list[str]:
        root = payload.kernel.parent / "root"
        grub = root / "boot" / "grub"
        grub.mkdir(parents=True)
        lines = ["serial", "terminal_output serial"]
        for path in payload.files:
            shutil.copy(path, root)
        lines.append(f"linux{suffix} /kernel {payload.cmdline}")
        if payload.initrd:
            lines.append(f"initrd{suffix} /initrd")
        (grub / "grub.cfg").write_text("\n".join([*lines, "boot", ""]))
        iso = root.with_name("rescue.iso")
        tools.run("grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", iso, root)
        return ["-cdrom", str(iso)]

    return prepare


def _isolinux(payload: Payload) -> list[str]:
    work = payload.kernel.parent
    iso = work / "isolinux.iso"
    bench.isolinux_by_xorriso(payload, work, iso)
    return ["-cdrom", str(iso)]


def _ipxe(payload: Payload) -> list[str]:
    """iPXE from -kernel, its script from -initrd, the payload by TFTP from QEMU."""
    work = payload.kernel.parent
    script = work / "script.ipxe"
    server = "tftp://10.0.2.2"
    lines = ["#!ipxe", "set net0/ip 10.0.2.15", "set net0/netmask 255.255.255.0", "ifopen net0"]
    lines.append(f"kernel {server}/kernel {payload.cmdline} || reboot")
    if payload.initrd:
        lines.append(f"initrd {server}/initrd || reboot")
    lines.append("boot || reboot")
    script.write_text("\n".join(lines) + "\n")
    network = f"user,id=net,restrict=on,tftp={str(work).replace(',', ',,')}"
    return [
        *("-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-kernel", str(real_kernel("ipxe", "*/ipxe.lkrn")), "-initrd", str(script)),
    ]


def _u_boot(payload: Payload) -> list[str]:
    """U-Boot as the firmware, with a disk that has its extlinux.conf."""
    work = payload.kernel.parent
    disk, config = work / "disk.img", work / "extlinux.conf"
    lines = ["DEFAULT linux", "TIMEOUT 1", "LABEL linux", "KERNEL /kernel"]
    if payload.initrd:
        lines.append("INITRD /initrd")
    lines.append(f"APPEND {payload.cmdline}")
    config.write_text("\n".join(lines) + "\n")
    fatdisk.make(disk, b"", payload.files)
    partition = f"{disk}@@{fatdisk.START}"
    tools.run("mmd", "-i", partition, "::extlinux")
    tools.run("mcopy", "-i", partition, config, "::extlinux")
    firmware = real_kernel("u-boot-qemu", "usr/lib/u-boot/qemu-x86/u-boot.rom")
    return ["-bios", str(firmware), "-drive", "file=disk.img,format=raw,if=ide"]


STOCK: Final = Loader("qemu", "16-bit", _from_qemu("-M", "pc"))
QBOOT: Final = Loader(
    "qboot",
    "16-bit",
    _from_qemu("-M", "microvm", "-bios", str(_QBOOT)),
    (Need(str(_QBOOT), "qemu-system-data"),),
)
GRUB: Final = Loader("grub", "32-bit", _grub(""), _GRUB)
GRUB16: Final = Loader("grub-linux16", "16-bit", _grub("16"), _GRUB)
RESCUE: Final = Loader("grub-mkrescue", "32-bit", _grub_rescue(""), _GRUB)
RESCUE16: Final = Loader("grub-mkrescue-linux16", "16-bit", _grub_rescue("16"), _GRUB)
# To GRUB, and to the kernel, there is no RAM from 1 MiB to 16 MiB: a relocatable kernel goes to
# 0x1000000. Any other goes to 0x100000 all the same, without a word.
GRUB_CUT: Final = Loader("grub-cutmem", "32-bit", _grub("", "cutmem 1M 16M"), _GRUB)
ISOLINUX: Final = Loader("isolinux", "16-bit", _isolinux, (*bench.ISOLINUX_NEEDS, bench.XORRISO))
# With 64 MiB it does not see its script.
IPXE: Final = Loader("ipxe", "16-bit", _ipxe, memory=96)
# It gives the kernel the initrd's address, which is 64 MiB, and 0 as its size. What it has done to
# the screen by then, memtest86+ cannot write on.
U_BOOT: Final = Loader(
    "u-boot", "32-bit", _u_boot, (Need("mformat", "mtools"),), memory=128, loses_initrd=True
)

ALL: Final = (STOCK, QBOOT, GRUB, GRUB16, GRUB_CUT, ISOLINUX, IPXE, U_BOOT)
