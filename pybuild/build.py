"""From a kernel, initrds, a command line and a machine to an image: the whole flow in order."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pybuild import assembler, kernel, layout, loader, machine, mover, paths, splice, targets
from pybuild.errors import BuildError, InputError
from pybuild.flat import FlatBinary
from pybuild.plan import Plan
from pybuild.splice import Parts


@dataclass(frozen=True, slots=True)
class Order:
    """What to build an image from.

    Attributes:
        kernel: the kernel file.
        initrds: initrd files, in this order.
        cmdline: the command line.
        machine: a machine profile's name or file.
        target: the output format's name.
        move: who is to move a kernel that cannot be loaded where it runs.
        options: what is asked of the target, by the options' names.
    """

    kernel: Path
    initrds: tuple[Path, ...] = ()
    cmdline: str = ""
    machine: str = "pc"
    target: str = targets.DEFAULT
    move: mover.Choice = "auto"
    options: Mapping[str, object] = field(default_factory=dict)


def code() -> dict[str, FlatBinary]:
    """Every flat binary by the name of its source, assembled anew where that has changed."""
    tree = assembler.Tree(paths.ROOT, paths.BUILD)
    assembler.build(tree)
    found = {source.name: tree.load(source.name) for source in tree.sources()}
    own = (splice.BOOT_SECTOR, splice.EARLY, splice.RELOCATOR, loader.BOOT_SECTOR, loader.LOADER)
    for name in own:
        if name not in found:
            raise BuildError(f"{tree.asm / name}.asm: is missing, and images are made with it")
    return found


def build(order: Order, out: Path) -> Plan:
    """Builds the image and writes it to `out`.

    Raises:
        InputError: the kernel, an initrd, the machine or `out` is not usable, or doesn't fit.
        BuildError: the assembler's sources do not build.
    """
    target = targets.get(order.target)
    options = targets.check_options(target, order.options)
    for path in (order.kernel, *order.initrds):
        with contextlib.suppress(OSError):  # what isn't there is no matter here
            if out.samefile(path):
                raise InputError(f"{out}: is what the image is built from; give another -o")
    plan, parts = prepare(order)
    target.write(plan, parts, out, options)
    return plan


def build_into(order: Order, disk: Path, partition: int | None) -> tuple[Plan, tuple[str, ...]]:
    """Puts what target `disk` would write onto a disk that has other things on it.

    Args:
        order: what to build.
        disk: a raw disk image or a block device.
        partition: the partition to use; None for the gap before the first.

    Returns:
        The plan, and what else the user may want to know.

    Raises:
        InputError: as by `build`, and if the disk has no room or something is wrong with it.
        BuildError: the assembler's sources do not build.
    """
    from pybuild import into

    plan, parts = prepare(order)
    return plan, into.put(disk, partition, plan, parts)


def prepare(order: Order) -> tuple[Plan, Parts]:
    """The plan, and the parts that it names."""
    target = targets.get(order.target)
    profile = machine.load(order.machine, boots_anywhere=not target.before_firmware)
    image = kernel.read(order.kernel)
    initrds = splice.open_initrds(order.initrds)
    binaries = code()
    request = layout.Request(
        initrd_sizes=initrds.sizes,
        cmdline=order.cmdline,
        relocator_size=len(binaries[splice.RELOCATOR].code),
        early_size=len(binaries[splice.EARLY].code),
        move=order.move,
        before_firmware=target.before_firmware,
    )
    plan = layout.place(image, profile, request)
    parts = splice.splice(image, plan, binaries, order.cmdline, initrds)
    return plan, parts
