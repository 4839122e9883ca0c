"""Which header fields a plan changes (boot.rst, "Details of Header Fields")."""

from collections.abc import Mapping, Sequence, Set

from pybuild import bootproto, cmdline
from pybuild.kernel import Kernel
from pybuild.plan import Load, Move, Patch
from pybuild.regions import align_up


def patches(
    kernel: Kernel, text: str, loads: Sequence[Load], move: Move | None, alignment: int
) -> tuple[Patch, ...]:
    """The fields whose value changes, by offset.

    Args:
        kernel: whose header it is; a field that it does not have is never written.
        text: the command line.
        loads: where the parts go.
        move: the protected-mode part's move, if it has one.
        alignment: what the protected-mode part is aligned to, if it is relocatable.
    """
    at = {load.part: load for load in loads}
    real_address = at["setup"].address
    cmdline_load = at["cmdline"]
    cmdline_offset = cmdline_load.address - real_address
    new: dict[str, int] = {}
    if kernel.version < 0x202:
        new["cmd_line_magic"] = bootproto.CMD_LINE_MAGIC
        new["cmd_line_offset"] = cmdline_offset
    if kernel.version in (0x200, 0x201):
        new["setup_move_size"] = cmdline_offset + cmdline_load.size
    new["cmd_line_ptr"] = cmdline_load.address
    new["type_of_loader"] = bootproto.TYPE_OF_LOADER_UNDEFINED
    if kernel.has("heap_end_ptr"):
        new["heap_end_ptr"] = cmdline_offset - bootproto.SECTOR
        new["loadflags"] = kernel["loadflags"] | bootproto.CAN_USE_HEAP
    initrd = at.get("initrd")
    new["ramdisk_image"], new["ramdisk_size"] = (initrd.address, initrd.size) if initrd else (0, 0)
    mode = cmdline.vid_mode(text)
    if mode is not None:
        new["vid_mode"] = mode
    of_kernel = _kernel_patches(kernel, at["kernel"], move, alignment)
    new.update(of_kernel)
    return changed(kernel, new, of_loader=new.keys() - of_kernel.keys())


def changed(
    kernel: Kernel, new: Mapping[str, int], *, of_loader: Set[str] = frozenset()
) -> tuple[Patch, ...]:
    """The fields that the kernel's header has and whose value changes, by offset."""
    return tuple(
        Patch(name, field.offset, field.size, kernel[name], new[name], name in of_loader)
        for name, field in sorted(
            ((name, kernel.field(name)) for name in new if kernel.has(name)),
            key=lambda pair: pair[1].offset,
        )
        if kernel[name] != new[name]
    )


def _kernel_patches(
    kernel: Kernel, load: Load, move: Move | None, alignment: int
) -> dict[str, int]:
    """The fields that say where the protected-mode part is, and how large."""
    new: dict[str, int] = {}
    if move:
        if move.by == "hook":
            new["code32_start"] = move.relocator
            if kernel.version >= 0x204:
                new["syssize"] = align_up(load.size, bootproto.PARAGRAPH) // bootproto.PARAGRAPH
    elif load.address != kernel.load_address:
        start = kernel["code32_start"]
        inside = kernel.contents.contains(start)
        new["code32_start"] = load.address + (start - kernel.load_address if inside else 0)
        if alignment < kernel["kernel_alignment"]:
            new["kernel_alignment"] = alignment
    return new
