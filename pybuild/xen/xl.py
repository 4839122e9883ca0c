"""What `xl create` is told: a Xen HVM guest's configuration, as text in the syntax of xl.cfg(5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pybuild import drives
from pybuild.drives import Drive, Image
from pybuild.errors import InputError
from pybuild.targets import ram

# MiB for the display adapter, which xl takes out of `memory`: what is left is the guest's RAM. The
# least that qemu-xen's standard VGA can have.
_VIDEO_MEMORY: Final = 16
_MIB: Final = 1 << 20

# What an image is attached as: a drive by xl's names, and which one SeaBIOS is to boot from.
_HARD_DISK: Final = ("vdev=hda", "c")
_CD: Final = ("vdev=hdc,devtype=cdrom", "d")
_AHCI: Final = "ahci"  # xl's hdtype
_DRIVES: Final[dict[Drive, tuple[str, str]]] = {"ide": _HARD_DISK, "ahci": _HARD_DISK, "cdrom": _CD}
_FORMATS: Final = ("raw", "qcow2")  # of those that drives.read tells apart

End: TypeAlias = Literal["destroy", "preserve"]


@dataclass(frozen=True, slots=True)
class Domain:
    """A guest to be.

    Attributes:
        memory: MiB of RAM, the display adapter's not among it.
        vcpus: its processors.
        disk: what xl's `disk` has of its only one; None for none.
        boot: what SeaBIOS boots from: c or d; None if a kernel is given.
        hdtype: the controller that hda has: ide or ahci.
        device_model: further arguments for the device model, which is a QEMU.
        kernel: the path of a kernel that the device model's option ROM boots, with `ramdisk` and
            `extra`, its command line.
    """

    memory: int = drives.DEFAULT_MEMORY
    vcpus: int = 1
    disk: str | None = None
    boot: str | None = None
    hdtype: str = "ide"
    device_model: tuple[str, ...] = ()
    kernel: str | None = None
    ramdisk: str | None = None
    extra: str = ""


def of_image(
    image: Path,
    where: str,
    drive: Drive | None = None,
    memory: int | None = None,
    vcpus: int | None = None,
    extra: Sequence[str] = (),
) -> Domain:
    """The guest that boots a file or a folder of target `ram`.

    Args:
        image: a file that a PC boots from, or a folder that target `ram` wrote.
        where: its path in dom0.
        drive: how a file is attached; None for `cdrom` if it is a CD, else `ide`.
        memory: MiB; None for what a folder was built for, or 512.
        vcpus: its processors; None for 1.
        extra: more arguments for the device model.

    Raises:
        InputError: there is no such image, Xen's device model cannot have it so, or a folder was
            built for more memory.
    """
    if drives.is_folder(image, drive):
        domain = _of_folder(image, where)
    else:
        domain = _of_file(drives.read(image), where, drive)
    if memory is not None and memory < domain.memory and domain.device_model:
        raise InputError(
            f"{image}: was built for {domain.memory} MiB of RAM, --memory is {memory}; give as "
            "much, or build it for a machine with less"
        )
    return replace(
        domain,
        memory=memory or domain.memory,
        vcpus=vcpus or 1,
        device_model=(*domain.device_model, *extra),
    )


def of_kernel(
    kernel: str, ramdisk: str | None, extra: str, memory: int | None, vcpus: int | None
) -> Domain:
    """The guest whose device model boots a kernel image itself, as QEMU's -kernel does.

    Args:
        kernel: its path in dom0.
        ramdisk: the path of an initrd, or None.
        extra: the command line.
        memory: MiB; None for 512.
        vcpus: its processors; None for 1.
    """
    memory = memory or drives.DEFAULT_MEMORY
    return Domain(memory, vcpus or 1, kernel=kernel, ramdisk=ramdisk, extra=extra)


def text(domain: Domain, *, name: str, serial: str = "pty", on_end: End = "destroy") -> str:
    """The configuration.

    Args:
        domain: the guest.
        name: what xl calls it.
        serial: where COM1 goes: a character device in the device model's words.
        on_end: what becomes of it when it powers off, resets or crashes.
    """
    # name, what it is set to, why
    settings: list[tuple[str, object, str]] = [
        ("name", name, ""),
        ("type", "hvm", ""),
        ("memory", domain.memory + _VIDEO_MEMORY, f"MiB; {_VIDEO_MEMORY} are the display's"),
        ("vcpus", domain.vcpus, ""),
        ("device_model_version", "qemu-xen", ""),
    ]
    direct = {"kernel": domain.kernel, "ramdisk": domain.ramdisk, "extra": domain.extra}
    settings += [(key, value, "") for key, value in direct.items() if value]
    if domain.disk is not None:
        settings.append(("disk", [domain.disk], "qdisk: dom0 needs no block scripts for it"))
    if domain.boot is not None:
        settings.append(("boot", domain.boot, ""))
    if domain.hdtype != "ide":
        settings.append(("hdtype", domain.hdtype, ""))
    if domain.device_model:
        settings.append(("device_model_args_hvm", domain.device_model, "blobs for guest RAM"))
    settings += [
        ("serial", serial, ""),
        ("vga", "stdvga", ""),
        ("videoram", _VIDEO_MEMORY, ""),
        ("vnc", 0, ""),
        ("usb", 0, ""),
        ("xen_platform_pci", 0, "the disk stays an IDE disk, also when the kernel knows Xen"),
        *((f"on_{event}", on_end, "") for event in ("poweroff", "reboot", "crash")),
    ]
    return "".join(
        f"{key} = {_value(value)}{'  # ' + why if why else ''}\n" for key, value, why in settings
    )


def _disk(vdev: str, form: str, target: str) -> str:
    # `target` is the rest of the text, so that a path may hold commas. Xen's IDE disks can only be
    # writable, its CDs only not.
    access = "ro" if "cdrom" in vdev else "rw"
    return f"{vdev},format={form},access={access},backendtype=qdisk,target={target}"


def _loader(path: str, address: int) -> str:
    return f"loader,file={drives.option_value(path)},addr={address:#x},force-raw=on"


def _value(value: object) -> str:
    match value:
        case int():
            return str(value)
        case str():
            return _quoted(value)
        case list() | tuple():
            return "[\n" + "".join(f"    {_quoted(str(each))},\n" for each in value) + "]"
    raise AssertionError(f"no value of xl.cfg: {value!r}")


def _quoted(value: str) -> str:
    # xl takes a backslash for the start of an escape (libxlu_cfg.c), which xl.cfg(5) doesn't say.
    if "\n" in value:
        raise InputError(f"{value!r}: has a line break in it; xl's configuration cannot say this")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _of_file(image: Image, where: str, drive: Drive | None) -> Domain:
    drive = drive or image.usual_drive
    if drive not in _DRIVES:
        raise InputError(
            f"{image.path}: --drive {drive}: not on Xen; expected one of {', '.join(_DRIVES)}"
        )
    if image.format not in _FORMATS:
        raise InputError(
            f"{image.path}: is {image.format}, which xl does not take; expected "
            f"{' or '.join(_FORMATS)}: build it again with another suffix, or convert it"
        )
    vdev, boot = _DRIVES[drive]
    return Domain(
        disk=_disk(vdev, image.format, where),
        boot=boot,
        hdtype=_AHCI if drive == "ahci" else "ide",
    )


def _of_folder(folder: Path, where: str) -> Domain:
    written = ram.read(folder)
    return Domain(
        memory=-(-written.ram // _MIB),
        disk=_disk(_HARD_DISK[0], "raw", f"{where}/{ram.BOOT_DISK}"),
        boot=_HARD_DISK[1],
        device_model=tuple(
            part
            for load in written.loads
            for part in ("-device", _loader(f"{where}/{load.part}{ram.SUFFIX}", load.address))
        ),
    )
