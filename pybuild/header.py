"""Which header fields a plan changes (boot.rst, "Details of Header Fields")."""

from collections.abc import Sequence, Set
from typing import Final, TypeAlias

from pybuild import bootproto, cmdline
from pybuild.kernel import Kernel
from pybuild.plan import Load, Move, Patch
from pybuild.regions import align_up

New: TypeAlias = dict[str, tuple[int, str]]  # values by the fields' names, each with why

VID_MODE: Final = "vga= on the command line"


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
    new: New = {}
    if kernel.version < 0x202:
        new["cmd_line_magic"] = bootproto.CMD_LINE_MAGIC, "before 2.02: there is a command line"
        new["cmd_line_offset"] = cmdline_offset, "where it is, from the real-mode part"
    if kernel.version in (0x200, 0x201):
        size = cmdline_offset + cmdline_load.size
        new["setup_move_size"] = size, "what must stay together, up to the command line's end"
    new["cmd_line_ptr"] = cmdline_load.address, "where the kernel finds its command line"
    unassigned = "a loader without an id of its own; 0 would mean no loader at all"
    new["type_of_loader"] = bootproto.TYPE_OF_LOADER_UNDEFINED, unassigned
    if kernel.has("heap_end_ptr"):
        heap_end = "the setup code's heap may reach up to the command line"
        new["heap_end_ptr"] = cmdline_offset - bootproto.SECTOR, heap_end
        loadflags = kernel["loadflags"] | bootproto.CAN_USE_HEAP
        new["loadflags"] = loadflags, "CAN_USE_HEAP: heap_end_ptr is to be believed"
    initrd = at.get("initrd")
    new["ramdisk_image"] = initrd.address if initrd else 0, "where the kernel finds its initrd"
    new["ramdisk_size"] = initrd.size if initrd else 0, "the initrd's bytes; 0 for none"
    mode = cmdline.vid_mode(text)
    if mode is not None:
        new["vid_mode"] = mode, VID_MODE
    of_kernel = _kernel_patches(kernel, at["kernel"], move, alignment)
    new.update(of_kernel)
    return changed(kernel, new, of_loader=new.keys() - of_kernel.keys())


def changed(kernel: Kernel, new: New, *, of_loader: Set[str] = frozenset()) -> tuple[Patch, ...]:
    """The fields that the kernel's header has and whose value changes, by offset."""
    fields = sorted(
        (kernel.field(name) for name in new if kernel.has(name)), key=lambda field: field.offset
    )
    return tuple(
        Patch(f.name, f.offset, f.size, kernel[f.name], value, f.name in of_loader, why)
        for f in fields
        for value, why in (new[f.name],)
        if kernel[f.name] != value
    )


def _kernel_patches(kernel: Kernel, load: Load, move: Move | None, alignment: int) -> New:
    """The fields that say where the protected-mode part is, and how large."""
    new: New = {}
    if move:
        if move.by == "hook":
            hook = "the setup code jumps here: to the relocator, which then puts the old value back"
            new["code32_start"] = move.relocator, hook
            if kernel.version >= 0x204:
                paragraphs = align_up(load.size, bootproto.PARAGRAPH) // bootproto.PARAGRAPH
                new["syssize"] = paragraphs, "the relocator belongs to the protected-mode part"
    elif load.address != kernel.load_address:
        start = kernel["code32_start"]
        inside = kernel.contents.contains(start)
        entry = load.address + (start - kernel.load_address if inside else 0)
        new["code32_start"] = entry, "the setup code jumps here: the kernel is loaded elsewhere"
        if alignment < kernel["kernel_alignment"]:
            new["kernel_alignment"] = alignment, "what the load address is aligned to"
    return new
