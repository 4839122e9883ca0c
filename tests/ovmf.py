"""Boots a kernel as an EFI program, under Debian's OVMF, with the real `bootsplice boot`.

OVMF takes what QEMU's -kernel, -initrd and -append give it for files. It starts the kernel by
LoadImage and StartImage, with ` initrd=initrd` behind the command line if there is an initrd
(edk2's X86QemuLoadImageLib). Where LoadImage fails it enters the kernel by the EFI handover
protocol instead, without that text; so that no test takes the one for the other, the copy that is
booted has only one of the two.
"""

import shutil
import struct
from pathlib import Path
from typing import Final, Literal, TypeAlias

import booting
from missing import missing

from pybuild import apt, bootproto, debian, paths
from pybuild.targets.ram import ARGUMENTS

Entry: TypeAlias = Literal["pe", "handover"]

INITRD_OPTION: Final = " initrd=initrd"
_PACKAGE: Final = "ovmf"
_CODE: Final = "usr/share/OVMF/OVMF_CODE_4M.fd"
_VARIABLES: Final = "usr/share/OVMF/OVMF_VARS_4M.fd"  # no keys: Secure Boot is off
_HANDOVER: Final = bootproto.field("handover_offset", 0x20B)


def boot(
    kernel: bytes,
    expect: str,
    room: Path,
    *qemu: str,
    cmdline: str = "",
    initrd: Path | None = None,
    entry: Entry = "pe",
) -> str:
    """Boots to the expected text on the serial port and returns the log.

    Args:
        kernel: the file's bytes.
        expect: a regular expression.
        room: a folder for this guest.
        qemu: more arguments for QEMU.
        cmdline: the kernel's command line.
        initrd: the file of one.
        entry: by which of its entries the kernel is entered; the copy has no other for EFI.
    """
    room = room / "ovmf"
    room.mkdir()
    for member, name in ((_CODE, "code.fd"), (_VARIABLES, "variables.fd")):
        shutil.copyfile(_firmware(member), room / name)
    (room / "kernel").write_bytes(_with_only(entry, kernel))
    (room / ARGUMENTS).write_text(
        "-m 256M -drive if=pflash,format=raw,readonly=on,file=code.fd "
        "-drive if=pflash,format=raw,file=variables.fd -kernel kernel\n"
    )
    arguments = ["-append", cmdline, *(["-initrd", str(initrd)] if initrd else [])]
    return booting.boot(room, expect, *arguments, *qemu)


def _firmware(member: str) -> Path:
    try:
        return debian.fetch(_PACKAGE, member, paths.cache_directory(), progress=print)
    except apt.Unavailable as error:
        missing(str(error))


def _with_only(entry: Entry, kernel: bytes) -> bytes:
    data = bytearray(kernel)
    if entry == "pe":
        _HANDOVER.put(data, 0)  # to edk2's LoadLinuxLib: has no handover entry
    else:
        (pe_offset,) = struct.unpack_from("<I", data, 0x3C)
        data[pe_offset : pe_offset + 4] = b"no\0\0"
    return bytes(data)
