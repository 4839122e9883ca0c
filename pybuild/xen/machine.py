"""The lab's machine: QEMU's arguments, the same when it boots and when it goes on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAM: Final = "qemu-system-x86_64"
_MEMORY: Final = 6144  # MiB of the lab; what nobody writes to costs nothing
_DOM0_MEMORY: Final = 1024  # MiB of it
# MiB that a guest can have: Xen needs some for itself and for each guest.
LARGEST_GUEST: Final = 4608

# TCG emulates SVM with nested paging, but:
# - SMAP on kills dom0 at once, and MWAIT makes Xen panic.
# - Xen intercepts a guest's RDTSCP and cannot tell its length without NRIP, which TCG lacks.
# - With XSAVE, programs in dom0 now and then crash or compare strings wrong while a guest runs:
#   vector registers do not survive the way between them. With FXSAVE alone they do.
_CPU: Final = "max,-smap,-monitor,-rdtscp,-xsave"
# bootscrub: Xen would write to all memory.
_XEN: Final = (
    f"console=com1 com1=115200,8n1 dom0_mem={_DOM0_MEMORY}M dom0_max_vcpus=1 "
    "loglvl=warning guest_loglvl=warning noreboot bootscrub=false"
)
_DOM0: Final = "console=hvc0 panic=-1 mitigations=off quiet"

CONTROL: Final = "control"  # the ports that dom0 has to us, by name
SERIAL: Final = "serial"
CONTROLLER: Final = "scsi"  # the controller that disks are plugged into


@dataclass(frozen=True, slots=True)
class Place:
    """Where the lab's files are.

    Attributes:
        folder: the lab's, where QEMU is run: names in its arguments are meant from there, as a
            comma in a path would be taken for the end of an -initrd.
        template: the name of a template in it.
    """

    folder: Path
    template: str


def arguments(template: str, *, restore: bool) -> list[str]:
    """QEMU's arguments but for the ports.

    Args:
        template: the folder, from the lab's, with RAM and initramfs.
        restore: whether the RAM is that of a lab that has started, to be left as it is.
    """
    share = "off" if restore else "on"
    return [
        *("-machine", "pc,memory-backend=ram", "-accel", "tcg,thread=multi", "-cpu", _CPU),
        *("-m", f"{_MEMORY}M", "-smp", "1", "-nic", "none", "-vga", "none"),
        *(
            "-object",
            f"memory-backend-file,id=ram,size={_MEMORY}M,mem-path={template}/ram,share={share},"
            "reserve=off",
        ),
        *("-kernel", "root/boot/xen", "-append", _XEN),
        *("-initrd", f"root/boot/vmlinuz {_DOM0},{template}/initramfs.cpio"),
        *("-device", f"virtio-scsi-pci,id={CONTROLLER}"),
        *("-device", "virtio-serial-pci"),
    ]


def port(name: str, descriptor: int) -> list[str]:
    """QEMU's arguments for one of dom0's ports, whose other end is a file descriptor."""
    return [
        *("-chardev", f"socket,id={name},fd={descriptor}"),
        *("-device", f"virtserialport,chardev={name},name={name}"),
    ]
