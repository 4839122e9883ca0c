"""The page docs/boot-protocol.md, made of the field table; `invoke docs` writes it.

What a field is comes from `bootproto.FIELDS`, the named values from the source of that module, the
guest's code that uses a field from the sources in asm/. What bootsplice does with a field stands
here, a line each; a test holds `changed` to the plans that are made.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pybuild import bootproto
from pybuild.bootproto import Field, version_name

Changer = Literal["loader", "move", "head"]


@dataclass(frozen=True, slots=True)
class Use:
    """What bootsplice does with a field.

    Attributes:
        does: a phrase or more.
        changed: what may have another value in it than the kernel's file: the header as `loader`
            leaves it, a kernel to `move` or load elsewhere, an image with a `head`.
    """

    does: str
    changed: tuple[Changer, ...] = ()


_LEFT: Final = Use("left as it is")

USES: Final[Mapping[str, Use]] = {
    "cmd_line_magic": Use("set, before 2.02: that is how those kernels find it", ("loader",)),
    "cmd_line_offset": Use("where the command line is, before 2.02", ("loader",)),
    "setup_sects": Use("read: where the protected-mode part begins in the file"),
    "root_flags": _LEFT,
    "syssize": Use(
        "read: a file that has less was cut off; else the file's length is the truth. "
        "Changed where the image is longer than the kernel (moved by a hook from 2.04 on)",
        ("move", "head"),
    ),
    "swap_dev": _LEFT,
    "ram_size": _LEFT,
    "vid_mode": Use("`vga=` of the command line", ("loader", "head")),
    "root_dev": _LEFT,
    "boot_flag": Use("read: what has another value is no kernel"),
    "jump": Use("read: where the header ends; no field behind that is touched"),
    "header": Use("read: without it, a kernel from before there was a header, or none"),
    "version": Use("read: which fields there are. 2.10 where a head needs `init_size`", ("head",)),
    "realmode_swtch": _LEFT,
    "start_sys_seg": _LEFT,
    "kernel_version": Use("read, shown; MEMDISK's and lnxboot's setup code are known by it"),
    "type_of_loader": Use("0xff", ("loader",)),
    "loadflags": Use(
        "bit 0 read: zImage or bzImage. CAN_USE_HEAP set where there is `heap_end_ptr`",
        ("loader",),
    ),
    "setup_move_size": Use("up to the command line's end, in 2.00 and 2.01", ("loader",)),
    "code32_start": Use(
        "where the setup code goes: the relocator, or a relocatable kernel's place. The relocators "
        "put back what was in it",
        ("move", "head"),
    ),
    "ramdisk_image": Use("where the initrds are; a head puts its built-in one there", ("loader",)),
    "ramdisk_size": Use("of all initrds, or 0; a head leaves the loader's, if any", ("loader",)),
    "bootsect_kludge": _LEFT,
    "heap_end_ptr": Use("512 bytes below the command line's offset", ("loader",)),
    "ext_loader_ver": _LEFT,
    "ext_loader_type": _LEFT,
    "cmd_line_ptr": Use("where the command line is; a head joins two into one", ("loader",)),
    "initrd_addr_max": Use("read: no initrd lies above it", ()),
    "kernel_alignment": Use(
        "read: where a relocatable kernel may go. Lowered where only a smaller one fits; a page in "
        "front of a kernel that was not relocatable",
        ("move", "head"),
    ),
    "relocatable_kernel": Use("read: whether it must be moved. 1 with a head", ("head",)),
    "min_alignment": Use("read: how far `kernel_alignment` may be lowered", ("head",)),
    "xloadflags": Use(
        "bit 0 read: a 64-bit CPU is needed, and a 64-bit head. Bit 1 set by a head that moves a "
        "64-bit kernel",
        ("head",),
    ),
    "cmdline_size": Use(
        "read: a longer one is refused. With a head, what is left of it", ("head",)
    ),
    "hardware_subarch": _LEFT,
    "hardware_subarch_data": _LEFT,
    "payload_offset": Use(
        "read: a file without all of it was cut off. Larger by a head", ("head",)
    ),
    "payload_length": Use("read: the same"),
    "setup_data": _LEFT,
    "pref_address": Use("read: where the kernel unpacks itself. Never 0 with a head", ("head",)),
    "init_size": Use(
        "read: memory that must be there and free; the loader looks before it loads. With a head, "
        "what the whole image needs",
        ("head",),
    ),
    "handover_offset": Use("larger by a head", ("head",)),
    "kernel_info_offset": Use("larger by a head", ("head",)),
}

_TITLE: Final = """\
# The boot protocol, as bootsplice sees it

This page is generated, by `invoke docs`, from the table that the parser, `bootsplice inspect` and
every header change read: `pybuild/bootproto.py`. The assembler's copy of it,
`asm/include/bootproto.inc`, is proved equal by a test, and another proves that this page is what
the table says.

The protocol itself is in the kernel's documentation: `Documentation/arch/x86/boot.rst`.
"""

_FIELDS: Final = """\
## The setup header

Offsets are bytes from the start of the kernel file, which are also those from the start of the
real-mode part and of boot_params. All values are little-endian. A field exists from a version of
the protocol on, and never behind the header's end (the byte at 0x201 says how far 0x202 is from
it): what lies there is code. "old" is a kernel without HdrS. *read*, *write* and *modify* say what
a boot loader does with a field, by boot.rst; *leave*: nothing.
"""

_DOES: Final = """\
## What bootsplice does with each

*loader*: changed in the real-mode part that targets disk, iso and ram put into memory, as every
loader does it (`pybuild/header.py`). *move*: changed where a kernel is loaded elsewhere than at
its own address (`pybuild/header.py`). *head*: changed in an image that moves itself
(`pybuild/headplan.py`); the kernel finds its own values there again when it is entered. The last
column has the guest's code that uses the field, below `asm/`.
"""

_VALUES: Final = """\
## Values with a name

In `pybuild/bootproto.py`; those that the guest's code uses are in `asm/include/bootproto.inc`,
too.
"""

_NAMED: Final = re.compile(r"^([A-Z][A-Z0-9_]+): Final = (\S+)  # (.+)$", re.MULTILINE)
_USED: Final = re.compile(r"\bboot_params\.(\w+)")
_COMMENT: Final = re.compile(r";.*")


def of_sources(root: Path) -> str:
    """The page that belongs to a checkout."""
    asm = root / "asm"
    assembly = {
        str(path.relative_to(asm)): path.read_text()
        for path in asm.rglob("*")
        if path.suffix in (".asm", ".inc")
    }
    return page((root / "pybuild/bootproto.py").read_text(), assembly)


def page(bootproto_source: str, assembly: Mapping[str, str]) -> str:
    """The page.

    Args:
        bootproto_source: the text of bootproto.py.
        assembly: the text of each source and include file, by its path from asm/.
    """
    using: dict[str, list[str]] = {}
    for path, text in sorted(assembly.items()):
        for name in sorted(set(_USED.findall(_COMMENT.sub("", text)))):
            using.setdefault(name, []).append(f"`{path}`")
    uses = (
        (f"`{name}`", use.does, ", ".join(use.changed), ", ".join(using.get(name, [])))
        for name, use in USES.items()
    )
    named = ((f"`{name}`", *rest) for name, *rest in _NAMED.findall(bootproto_source))
    return (
        f"{_TITLE}\n{_FIELDS}\n"
        + _table("offset bytes field protocol access meaning", map(_field_row, bootproto.FIELDS))
        + f"\n{_DOES}\n"
        + _table("field what changed guest", uses)
        + f"\n{_VALUES}\n"
        + _table("name value meaning", named)
    )


def _field_row(field: Field) -> tuple[str, ...]:
    versions = "all" if field.since == bootproto.OLD_PROTOCOL else version_name(field.since)
    if field.until is not None:
        versions = f"{'old' if versions == 'all' else versions} to {version_name(field.until)}"
    elif versions != "all":
        versions += " on"
    size = str(field.size)
    return (f"{field.offset:#05x}", size, f"`{field.name}`", versions, field.access, field.meaning)


def _table(head: str, rows: Iterable[Iterable[str]]) -> str:
    names = head.split()
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"|{''.join(f' {cell}'.rstrip() + ' |' for cell in line)}\n" for line in lines)
