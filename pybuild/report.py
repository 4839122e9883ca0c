"""What a kernel is, for a person and for a program."""

from typing import Final

from pybuild import bootproto, mover
from pybuild.bootproto import version_name
from pybuild.kernel import Kernel

# The newest protocol version whose fields are known.
_NEWEST: Final = 0x20F


def kind(kernel: Kernel) -> str:
    """A zImage or bzImage, or the format from before there was a name for it."""
    if kernel.is_high:
        return "bzImage"
    return "zImage" if kernel.version >= 0x200 else "old zImage without a setup header"


def describe(kernel: Kernel) -> dict[str, object]:
    """Everything that `inspect --json` prints; sizes are bytes, addresses physical."""
    return {
        "file": kernel.name,
        "size": len(kernel.data),
        **identity(kernel),
        "setup_size": kernel.setup_size,
        "protected_size": kernel.protected_size,
        "load_address": kernel.load_address,
        "header_end": kernel.header_end,
        "hook": mover.why_not_a_hook(kernel) is None,
        "fields": fields(kernel),
        "warnings": warnings(kernel),
    }


def identity(kernel: Kernel) -> dict[str, object]:
    """Of this, what a kernel's real-mode part alone says."""
    return {
        "kind": kind(kernel),
        "version": kernel.version_string,
        "protocol": version_name(kernel.version),
        "relocatable": kernel.is_relocatable,
        "entries": list(kernel.entries),
        "efi_stub": kernel.has_efi_stub,
    }


def fields(kernel: Kernel) -> dict[str, dict[str, object]]:
    """Every field of the setup header, by its name."""
    return {
        field.name: {
            "offset": field.offset,
            "size": field.size,
            "value": field.get(kernel.data),
            "access": field.access,
            "meaning": field.meaning,
        }
        for field in kernel.fields
    }


def warnings(kernel: Kernel) -> list[str]:
    """What in the header is odd, or not to be relied on."""
    found = []
    if kernel.version > _NEWEST:
        found.append(
            f"protocol {version_name(kernel.version)} is newer than 2.15; "
            "fields that it added are not shown"
        )
    missing = [
        field.name
        for field in bootproto.FIELDS
        if not field.exists(kernel.version, kernel.header_end)
        and field.exists(kernel.version, field.end)
    ]
    if missing:
        found.append(
            f"the header ends at {kernel.header_end:#x}, before fields that protocol "
            f"{version_name(kernel.version)} has: {', '.join(missing)}"
        )
    said, have = kernel.syssize_bytes, kernel.protected_size
    if said is None and kernel.version >= 0x204:
        found.append("syssize is 0; the file's length is taken")
    elif said is not None and not 0 <= said - have < bootproto.PARAGRAPH:
        more = f"{have - said} more than" if have > said else f"{said - have} fewer than"
        found.append(
            f"the protected-mode part has {have} bytes, {more} syssize says "
            "(a signature or a ramdisk behind the kernel?)"
        )
    if kernel.is_high and not kernel.contents.contains(kernel["code32_start"]):
        found.append(
            f"code32_start {kernel['code32_start']:#x} lies outside the protected-mode part: "
            "a hook would not run"
        )
    if kernel.has("kernel_version") and kernel["kernel_version"] and not kernel.version_string:
        found.append(f"kernel_version {kernel['kernel_version']:#x} points to no text")
    if kernel.is_relocatable and not kernel["kernel_alignment"]:
        found.append("relocatable, but kernel_alignment is 0; a page is taken")
    if kernel.has("init_size") and kernel["init_size"] < have:
        found.append(f"init_size {kernel['init_size']:#x} is less than the kernel's own {have:#x}")
    return found


def summary(kernel: Kernel) -> dict[str, str]:
    """What a kernel is, in words; its real-mode part alone says this much."""
    where = (
        f"relocatable, aligned to {kernel['kernel_alignment']:#x}"
        if kernel.is_relocatable
        else f"NOT relocatable, runs at {kernel.load_address:#x}"
    )
    return {
        "version": kernel.version_string or "(none)",
        "kind": f"{kind(kernel)}, boot protocol {version_name(kernel.version)}",
        "kernel is": where,
        "entries": ", ".join(kernel.entries),
    }


def text(kernel: Kernel) -> str:
    """What `inspect` shows: a summary, the fields, the warnings."""
    why_not = mover.why_not_a_hook(kernel)
    about = {
        "file": f"{kernel.name}, {len(kernel.data)} bytes",
        **summary(kernel),
        "parts": f"setup {kernel.setup_size} bytes, protected-mode {kernel.protected_size} bytes",
        "if moved": f"by the early stage: {why_not}" if why_not else "by a code32_start hook",
    }
    lines = [f"{name:<10} {value}" for name, value in about.items()]
    lines += ["", f"{'offset':<7} {'field':<22} {'value':<18} {'access':<7} meaning"]
    for field in kernel.fields:
        value = f"{field.get(kernel.data):#0{2 + 2 * field.size}x}"
        lines.append(
            f"{field.offset:#05x}   {field.name:<22} {value:<18} {field.access:<7} {field.meaning}"
        )
    lines += [f"warning: {warning}" for warning in warnings(kernel)]
    return "\n".join(lines)
