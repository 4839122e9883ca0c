"""Where everything goes in a kernel image that carries its relocator in a head of its own.

    head     asm/i386/head.asm, asm/x86_64/head.asm, the relocators, the command line, a stack
    kernel   the kernel's own protected-mode part
    initrd   the built-in one, if there is one

take the place of the protected-mode part. Loaders are told that all this is one relocatable kernel
that needs more memory: in it the head finds room for a *work area* (asm/include/head.inc) and for
the initrd, wherever the image was loaded. So offsets count from the head's first byte, and only
`dst` and `run` are addresses.

Sources: boot.rst, the fields relocatable_kernel, kernel_alignment, min_alignment, pref_address,
init_size, payload_offset, handover_offset and kernel_info_offset.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import bootproto, cmdline, header, headplaces, longmode, mover, protected
from pybuild.bootproto import PARAGRAPH, version_name
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.plan import Patch
from pybuild.protected import CODE_ALIGNMENT, PAGE
from pybuild.regions import Region, align_up

HEAD_RELOCATOR: Final = 0x40  # WORK_RELOCATOR in asm/include/head.inc
ENTRY_64: Final = 0x200  # from the protected-mode part's first byte (boot.rst, 64-bit protocol)
STACK_SIZE: Final = 0x200  # bytes; the head's deepest call chain takes a third of it
CMDLINE_ROOM: Final = 0x10000  # bytes; the most that a command line may take in the work area
NEWEST_NEEDED: Final = 0x20A  # the protocol version that has init_size, the newest field needed
CRC_SIZE: Final = 4
_MIN_ALIGNMENT: Final = 12  # of an image whose kernel is not relocatable: a page, as min_alignment
_SLACK: Final = 3 * PAGE  # what the head may lose by rounding up addresses
_LIMIT: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Request:
    """What goes into an image beside the kernel.

    Attributes:
        cmdline: the built-in command line; "" for none.
        replace: whether it is there in place of the loader's, not before it.
        initrd_size: bytes of the built-in initrd; 0 for none.
        code_size: bytes of the heads, the relocators and the tables for both.
        relocator_size: bytes of the largest relocator.
        has_crc: whether a CRC-32 goes at the image's end (boot.rst, 2.08).
        move: `hook` if the setup code is known to jump through code32_start.
    """

    cmdline: str
    replace: bool
    initrd_size: int
    code_size: int
    relocator_size: int
    has_crc: bool
    move: mover.Choice


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """See the module; offsets and sizes are bytes.

    Attributes:
        kernel: the kernel's file name.
        head_size: of the head, a multiple of a page; the kernel lies behind it.
        code_size: of what is at the head's start; the command line lies behind that.
        len: of the kernel's protected-mode part.
        follows: whether the kernel runs wherever the image is loaded.
        dst: where it must run, if it doesn't.
        run: the lowest address where it runs, if it follows: its pref_address.
        pref_address: where loaders had best put the image.
        alignment: of where it runs, if it follows; a loader may lower it.
        init_size: what it needs from there, or from dst.
        entry32: from where it runs to its 32-bit entry.
        initrd: the built-in initrd.
        initrd_size: of it; 0 if there is none.
        initrd_addr_max: the highest address that its last byte may have.
        above_4g: whether the kernel finds boot_params, command line and initrd above 4 GiB.
        work_cmdline: the command line in the work area.
        cmdline_room: of all of it, with its NUL.
        work_tables: the page tables in the work area.
        tables_size: of them.
        size: of all of the image behind its real-mode part, a multiple of a paragraph.
        memory: what the image needs, from where it is loaded: its init_size.
        long_mode: whether there is a 64-bit head.
        patches: header fields, by offset.
    """

    kernel: str
    head_size: int
    code_size: int
    len: int
    follows: bool
    dst: int
    run: int
    pref_address: int
    alignment: int
    init_size: int
    entry32: int
    initrd: int
    initrd_size: int
    initrd_addr_max: int
    above_4g: bool
    work_cmdline: int
    cmdline_room: int
    work_tables: int
    tables_size: int
    size: int
    memory: int
    long_mode: bool
    patches: tuple[Patch, ...]

    @property
    def work_size(self) -> int:
        """Bytes of the work area."""
        return self.work_tables + self.tables_size

    @property
    def image_size(self) -> int:
        """Bytes of the image up to the initrd's end."""
        return self.initrd + self.initrd_size

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided."""
        goes = "runs where the image is loaded" if self.follows else f"is moved to {self.dst:#x}"
        return (
            f"head of {self.head_size} bytes; the kernel behind it, {self.len} bytes, {goes}",
            f"the image is relocatable and needs {self.memory:#x} bytes of memory (init_size)",
        )


@dataclass(frozen=True, slots=True)
class Places:
    """What the head finds out, for an image that is loaded at some address.

    Attributes:
        kernel: all that the kernel uses, from where it is moved to the end of where it runs. Before
            it has moved itself on from there, Linux has its stack behind its protected-mode part.
        work: the work area.
        initrd: the built-in initrd; None if it isn't used.
    """

    kernel: Region
    work: Region
    initrd: Region | None


def place(kernel: Kernel, request: Request) -> HeadPlan:
    """Makes the plan.

    Args:
        kernel: the kernel, raised() if need be.
        request: what goes with it.

    Raises:
        InputError: it is a kernel that a head cannot help, or something doesn't fit.
    """
    _check_kernel(kernel, request.move)
    text = _encode(kernel, request)
    size = kernel.protected_size
    home = kernel.load_address
    follows = kernel.is_relocatable
    running = protected.runtime(kernel, home, kernel["kernel_alignment"])
    if follows:
        init_size = align_up(max(kernel["init_size"], size), PAGE)
    else:
        init_size = align_up(max(running.end, home + size) - home, PAGE)
    long_mode = bool(kernel.get("xloadflags") & bootproto.XLF_KERNEL_64)
    cmdline_room = min(kernel.get("cmdline_size") or bootproto.DEFAULT_CMDLINE_SIZE, CMDLINE_ROOM)
    work_cmdline = align_up(HEAD_RELOCATOR + request.relocator_size, CODE_ALIGNMENT)
    head_size = align_up(request.code_size + len(text) + STACK_SIZE, PAGE)
    initrd = align_up(head_size + size, PAGE)
    start = kernel["code32_start"]
    plan = HeadPlan(
        kernel=Path(kernel.name).name,
        head_size=head_size,
        code_size=request.code_size,
        len=size,
        follows=follows,
        dst=0 if follows else home,
        run=kernel.get("pref_address") if follows else home,
        pref_address=kernel["pref_address"] or home,
        alignment=max(kernel["kernel_alignment"], 1) if follows else 1,
        init_size=init_size,
        entry32=start - home if kernel.contents.contains(start) else 0,
        initrd=initrd if request.initrd_size else head_size + size,
        initrd_size=request.initrd_size,
        initrd_addr_max=kernel["initrd_addr_max"],
        above_4g=bool(kernel.get("xloadflags") & bootproto.XLF_CAN_BE_LOADED_ABOVE_4G),
        work_cmdline=work_cmdline,
        cmdline_room=cmdline_room + 1,
        work_tables=align_up(work_cmdline + cmdline_room + 1, PAGE),
        tables_size=longmode.tables_size(size, init_size) if long_mode else 0,
        size=0,
        memory=0,
        long_mode=long_mode,
        patches=(),
    )
    size = align_up(plan.image_size + (CRC_SIZE if request.has_crc else 0), PARAGRAPH)
    plan = dataclasses.replace(plan, size=size, memory=_memory(plan, kernel))
    plan = dataclasses.replace(plan, patches=_patches(kernel, plan, request))
    if plan.run + plan.memory > _LIMIT or kernel.load_address + plan.memory > _LIMIT:
        raise InputError(
            f"{kernel.name}: with its head the image needs {plan.memory:#x} bytes of memory "
            f"(init_size) from {plan.run:#x}, expected all of it below 4 GiB"
        )
    return plan


def places(
    plan: HeadPlan, address: int, *, initrd: bool = True, alignment: int | None = None
) -> Places:
    """Where the head of an image that is loaded at `address` puts everything.

    The same as asm/include/head.inc does, which the tests hold it to.

    Args:
        plan: the image's.
        address: where its protected-mode part is loaded.
        initrd: whether the built-in initrd is used: the loader brings none.
        alignment: the header's kernel_alignment, if the loader lowered it.
    """
    kernel, work = headplaces.kernel_and_work(
        address,
        follows=plan.follows,
        dst=plan.dst,
        run=plan.run,
        alignment=alignment or plan.alignment,
        init_size=plan.init_size,
        image_size=plan.image_size,
        work_size=plan.work_size,
    )
    if not (initrd and plan.initrd_size):
        return Places(kernel, work, None)
    low = address + plan.initrd
    return Places(kernel, work, headplaces.behind("initrd", low, plan.initrd_size, [kernel, work]))


def _memory(plan: HeadPlan, kernel: Kernel) -> int:
    """The image's init_size: all that the head may use from where the image is loaded.

    That is at `home` or above, so the kernel, where it must be, begins at the image's start or
    below it: only once can it be in the way of the work area, and of the initrd. A kernel that
    follows runs higher up only if the image is loaded below its pref_address, or at `home` or
    pref_address when they don't have its alignment; any other address has.
    """
    used = plan.init_size
    if plan.follows:
        homes = (kernel.load_address, max(plan.run, kernel.load_address))
        used += max(max(align_up(at, plan.alignment), plan.run) - at for at in homes)
    image, initrd = align_up(plan.image_size, PAGE), align_up(plan.initrd_size, PAGE)
    return max(image, used) + align_up(plan.work_size, PAGE) + initrd + _SLACK


def _patches(kernel: Kernel, plan: HeadPlan, request: Request) -> tuple[Patch, ...]:
    """The fields that tell loaders of the image instead of the kernel."""
    new: header.New = {
        "syssize": (plan.size // PARAGRAPH, "head, kernel and what is built in"),
        "code32_start": (kernel.load_address, "the head; loaders add what they move the image by"),
        "init_size": (plan.memory, "all that the head may write, so that loaders keep it free"),
        "pref_address": (plan.pref_address, "the best place: memory is needed there anyway"),
    }
    for name in ("payload_offset", "handover_offset", "kernel_info_offset"):
        if kernel.get(name):
            new[name] = kernel[name] + plan.head_size, "the head is in front of it"
    if not plan.follows:
        new["relocatable_kernel"] = 1, "the head runs anywhere, and moves the kernel"
        new["kernel_alignment"] = 1 << _MIN_ALIGNMENT, "the head asks for no more than a page"
        new["min_alignment"] = _MIN_ALIGNMENT, "a page, as a power of two"
        if plan.long_mode:
            flags = kernel["xloadflags"] | bootproto.XLF_CAN_BE_LOADED_ABOVE_4G
            new["xloadflags"] = flags, "bit 1: the head runs above 4 GiB, too"
    if request.cmdline and not request.replace:
        blank_and_nul = 2
        room = plan.cmdline_room - len(cmdline.encode(request.cmdline)) - blank_and_nul
        new["cmdline_size"] = max(room, 0), "what is built in leaves so much to the loader's"
    mode = cmdline.vid_mode(request.cmdline)
    if mode is not None:
        new["vid_mode"] = mode, header.VID_MODE
    return header.changed(kernel, new)


def _check_kernel(kernel: Kernel, move: mover.Choice) -> None:
    if not kernel.is_high:
        raise InputError(
            f"{kernel.name}: a zImage (loadflags bit 0 clear) cannot carry a head: its own setup "
            "code moves it; build a disk or an ISO instead"
        )
    if not kernel.has("init_size"):
        raise InputError(
            f"{kernel.name}: protocol {version_name(kernel.version)}, and its header ends at "
            f"{kernel.header_end:#x}: no room for pref_address and init_size (2.10, up to 0x264), "
            "which tell loaders to keep memory free for a head; possible is the plain form, a "
            "relocator behind the kernel for one load address: --load-addr"
        )
    why_not = mover.why_not_a_hook(kernel)
    if move == "early":
        raise InputError(
            f"{kernel.name}: move early: nothing runs before the setup code of a bzimage; "
            "build a disk or an ISO instead"
        )
    if why_not and move != "hook":
        raise InputError(
            f"{kernel.name}: its setup code would pass the head by: {why_not}; build a disk or an "
            "ISO instead (or give --move hook, if it is known to use code32_start)"
        )
    pref_address = kernel["pref_address"]
    if pref_address + kernel["init_size"] > _LIMIT or 0 < pref_address < kernel.load_address:
        raise InputError(
            f"{kernel.name}: pref_address is {pref_address:#x}, expected "
            f"{kernel.load_address:#x} or above, with init_size below 4 GiB"
        )
    if kernel["kernel_alignment"].bit_count() > 1:
        raise InputError(
            f"{kernel.name}: kernel_alignment is {kernel['kernel_alignment']:#x}, "
            "expected a power of two"
        )


def _encode(kernel: Kernel, request: Request) -> bytes:
    text = cmdline.encode(request.cmdline)
    limit = min(kernel.get("cmdline_size") or bootproto.DEFAULT_CMDLINE_SIZE, CMDLINE_ROOM - 1)
    if len(text) > limit:
        raise InputError(
            f"command line: {len(text)} characters, but {kernel.name} takes at most {limit} "
            "(cmdline_size)"
        )
    return text
