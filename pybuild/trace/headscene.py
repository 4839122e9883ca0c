"""A head in a kernel image that the real flow makes, loaded where it cannot stay.

The kernel is noise behind a header, and never runs. What the head and the relocator are bound to
comes from the plan for it, so only what a kernel or its user decides can be set.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pybuild import bootproto, contract, kernel
from pybuild.assembler import Tree
from pybuild.bootproto import BZIMAGE_LOAD_ADDRESS, SECTOR
from pybuild.emulate import headboot, headimage
from pybuild.emulate.console import Console
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.headboot import RAM, Boot
from pybuild.emulate.memory import PAGE, TOP
from pybuild.emulate.run import Outcome
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.splice import HEAD_32, HEAD_64
from pybuild.trace.scene import Scene, check_open

NAMES: Final = (HEAD_32, HEAD_64)
_ADDRESS: Final = 0x102000  # where the image is loaded: the initrd is where the kernel is to run
_CMDLINE: Final = (0x98000, b"console=ttyS0")  # the loader's
_E820: Final = (
    (0, 0x9FC00, RAM),
    (0x9FC00, 0x400, 2),
    (BZIMAGE_LOAD_ADDRESS, TOP - 2 * BZIMAGE_LOAD_ADDRESS, RAM),
)
_USUAL: Final = {
    "len": 0x1237,
    "follows": 0,
    "init_size": 0x8000,
    "replace": 0,
    "cmdline_length": 0x13,
    "initrd_size": 0x765,
}
_MOST: Final = 1 << 26  # bytes of a kernel, of what it needs and of an initrd
_VERSION: Final = 0x20F
_HEADER_END: Final = 0x26C  # of that version
_SHORT_JUMP: Final = 0xEB  # the low byte of the header's jump (boot.rst)
_SETUP_SECTS: Final = 1


def scene(tree: Tree, name: str, given: Mapping[str, int]) -> Scene:
    """The run of a head.

    Args:
        tree: with its flat binary and those of what goes with it, up to date.
        name: one of NAMES.
        given: symbols and registers, by name.

    Raises:
        InputError: a value is worked out from others, or something does not fit.
    """
    terms = contract.read(tree.asm / f"{name}.asm")
    check_open(name, terms, given, [read.symbol for read in terms.reads if read.symbol in _USUAL])
    values = {**_USUAL, **{key: value for key, value in given.items() if key in _USUAL}}
    for key in ("len", "init_size", "initrd_size"):
        if values[key] > _MOST:
            raise InputError(f"--set {key}: found {values[key]:#x}, expected {_MOST:#x} at most")
    noise = random.Random(0)
    made = headimage.make(
        _kernel(values, noise),
        headimage.code_of(tree),
        text=("quiet " * values["cmdline_length"])[: values["cmdline_length"]],
        replace=bool(values["replace"]),
        initrd=noise.randbytes(values["initrd_size"]),
        move="hook",
    )
    registers = {key: value for key, value in given.items() if key in terms.registers}
    boot = Boot(
        64 if name == HEAD_64 else 32,
        made,
        _ADDRESS,
        cmdline=_CMDLINE,
        e820=_E820,
        registers=registers,
    )
    boot = replace(boot, boot_params=registers.get(boot.pointer, boot.boot_params))
    _check_pointer(boot)
    sources = ((contract.read(tree.asm / f"{n}.asm"), tree.load(n)) for n in boot.sources)
    kind = "one that runs anywhere" if made.plan.follows else f"one for {made.plan.dst:#x}"
    title = f"an image loaded at {_ADDRESS:#x}; the kernel is {kind}"
    built_in = {"a command line": made.text, "an initrd": made.initrd}
    if any(built_in.values()):
        title += f"; built in: {', '.join(what for what, data in built_in.items() if data)}"
    return Scene(
        title,
        boot.start(boot.placed(*sources), Console()),
        lambda outcome: _hold(boot, outcome),
        "the kernel, its boot_params, command line and initrd as they must be",
    )


def _hold(boot: Boot, outcome: Outcome) -> None:
    if outcome.stopped:
        raise ContractError(f"{boot.sources[0]} {outcome.stopped}, and stops")
    headboot.hold(boot, outcome)


def _kernel(values: Mapping[str, int], noise: random.Random) -> Kernel:
    """A kernel with both entries."""
    setup_size = (1 + _SETUP_SECTS) * SECTOR
    data = bytearray(noise.randbytes(setup_size + values["len"]))
    fields = {
        "setup_sects": _SETUP_SECTS,
        "syssize": -(-values["len"] // bootproto.PARAGRAPH),
        "boot_flag": bootproto.BOOT_FLAG,
        "jump": _SHORT_JUMP | _HEADER_END - bootproto.HEADER_JUMP_END << 8,
        "header": bootproto.HEADER_MAGIC,
        "version": _VERSION,
        "loadflags": bootproto.LOADED_HIGH,
        "code32_start": BZIMAGE_LOAD_ADDRESS,
        "initrd_addr_max": bootproto.DEFAULT_INITRD_ADDR_MAX,
        "kernel_alignment": PAGE,
        "relocatable_kernel": values["follows"],
        "xloadflags": bootproto.XLF_KERNEL_64,
        "cmdline_size": 0x7FF,
        "pref_address": BZIMAGE_LOAD_ADDRESS,
        "init_size": values["init_size"],
    }
    for field in bootproto.FIELDS:
        if field.exists(_VERSION, _HEADER_END):
            field.put(data, fields.get(field.name, 0))
    return kernel.parse("kernel", bytes(data))


def _check_pointer(boot: Boot) -> None:
    """Raises InputError unless there is room for boot_params where they are to be."""
    low, high = boot.boot_params, boot.boot_params + PAGE
    at = boot.places
    taken = [
        boot.loaded,
        (min(boot.window[0], boot.destination), at.kernel.end),
        (at.work.start, at.work.end),
        (boot.gdt, boot.gdt + headboot.GDT),
        *boot.loaders[1:],
    ]
    for start, end in taken:
        if (low < end and start < high) or high > TOP:
            raise InputError(
                f"--set {boot.pointer}: boot_params at {low:#x} do not fit, expected "
                f"{PAGE:#x} bytes below 4 GiB and clear of {start:#x}..{end:#x}"
            )
