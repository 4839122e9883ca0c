"""From a kernel, initrds, a command line and a machine to an image: the whole flow in order."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pybuild import (
    assembler,
    kernel,
    layout,
    loader,
    machine,
    mover,
    splice,
    targets,
)
from pybuild.errors import BuildError, InputError
from pybuild.flat import FlatBinary
from pybuild.kernel import Kernel
from pybuild.machine import Machine
from pybuild.plan import Plan
from pybuild.progress import Progress, silent
from pybuild.regions import Region
from pybuild.splice import Parts
from pybuild.targets import Options
from pybuild.targets.bzimage import LOAD_ADDRESS, REPLACE, Bzimage

if TYPE_CHECKING:
    from pybuild.headplan import HeadPlan


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


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that an image is written from, and what it was planned for.

    Attributes:
        plan: the plan.
        parts: the parts that it names.
        options: what is asked of the target.
        machine: the machine that it was planned for.
        busy: what of its memory is not ours while the parts are loaded.
        head: the head's plan, for an image that moves itself; `plan` is then of that image as
            another loader may load it.
    """

    plan: Plan
    parts: Parts
    options: Options
    machine: Machine
    busy: tuple[Region, ...]
    head: "HeadPlan | None" = None

    @property
    def image_only(self) -> bool:
        """Whether another loader sees to all but the protected-mode part, and no head helps it."""
        return LOAD_ADDRESS in self.options


def code(progress: Progress = silent) -> dict[str, FlatBinary]:
    """Every flat binary by the name of its source, assembled anew where that has changed."""
    tree = assembler.own(progress)
    found = {source.name: tree.load(source.name) for source in tree.sources()}
    own = (
        *(splice.BOOT_SECTOR, splice.EARLY, splice.RELOCATOR),
        *(loader.BOOT_SECTOR, loader.LOADER),
        *(splice.HEAD_32, splice.HEAD_64, splice.RELOCATOR_64),
    )
    for name in own:
        if name not in found:
            raise BuildError(f"{tree.asm / name}.asm: is missing, and images are made with it")
    return found


def build(order: Order, out: Path, progress: Progress = silent) -> Plan:
    """Builds the image and writes it to `out`.

    Args:
        order: what to build.
        out: the file or the folder.
        progress: is told each step.

    Raises:
        InputError: the kernel, an initrd, the machine or `out` is not usable, or doesn't fit.
        BuildError: the assembler's sources do not build.
    """
    target = targets.get(order.target)
    spare_inputs(order, out)
    prepared = prepare(order, progress)
    meter = progress(f"writing {out}")
    target.write(prepared.plan, prepared.parts, out, prepared.options, meter)
    return prepared.plan


def spare_inputs(order: Order, out: Path, option: str = "-o") -> None:
    """Refuses an output, named by this option, that is a file of the order's.

    Raises:
        InputError: it is.
    """
    for path in (order.kernel, *order.initrds, machine.file(order.machine)):
        with contextlib.suppress(OSError):  # what isn't there is no matter here
            if out.samefile(path):
                raise InputError(f"{out}: is what the image is built from; give another {option}")


def build_into(
    order: Order, disk: Path, partition: int | None, progress: Progress = silent
) -> tuple[Plan, tuple[str, ...]]:
    """Puts what target `disk` would write onto a disk that has other things on it.

    Args:
        order: what to build.
        disk: a raw disk image or a block device.
        partition: the partition to use; None for the gap before the first.
        progress: is told each step.

    Returns:
        The plan, and what else the user may want to know.

    Raises:
        InputError: as by `build`, and if the disk has no room or something is wrong with it.
        BuildError: the assembler's sources do not build.
    """
    from pybuild import into

    prepared = prepare(order, progress)
    meter = progress(f"writing to {disk}")
    return prepared.plan, into.put(disk, partition, prepared.plan, prepared.parts, meter)


def prepare(order: Order, progress: Progress = silent) -> Prepared:
    """Plans and splices; nothing is written.

    Args:
        order: what to build.
        progress: is told each step.

    Raises:
        InputError: the kernel, an initrd or the machine is not usable, or doesn't fit.
        BuildError: the assembler's sources do not build.
    """
    target = targets.get(order.target)
    options = targets.check_options(target, order.options)
    to_image = isinstance(target, Bzimage)
    progress(f"reading {machine.file(order.machine)}")
    anywhere = not (target.before_firmware or to_image)
    profile = machine.load(order.machine, boots_anywhere=anywhere)
    progress(f"reading {order.kernel}")
    image = kernel.read(order.kernel)
    progress("looking whether the assembler's sources have changed")
    binaries = code(progress)
    progress("planning and splicing")
    if to_image:
        return _prepare_image(order, options, profile, image, binaries)
    initrds = splice.open_initrds(order.initrds)
    request = _request(
        order, binaries, initrds.sizes, order.cmdline, before_firmware=target.before_firmware
    )
    plan = layout.place(image, profile, request)
    parts = splice.splice(image, plan, binaries, order.cmdline, initrds)
    return Prepared(plan, parts, options, profile, request.busy(profile))


def _prepare_image(
    order: Order,
    options: Options,
    profile: Machine,
    image: Kernel,
    binaries: Mapping[str, FlatBinary],
) -> Prepared:
    """The same for a kernel image for other loaders.

    With a head it is a relocatable kernel like any other, and the plan is that kernel's.
    """
    notes: tuple[str, ...] = ()
    head = None
    load_address = options.get(LOAD_ADDRESS)
    if load_address is None:
        image, head, notes = with_head(image, order, bool(options.get(REPLACE)), binaries)
        load_address = image.load_address
    elif order.initrds or order.cmdline:
        raise InputError(
            f"option {LOAD_ADDRESS}: the plain form has nothing that could hand over an initrd or "
            "a command line; leave them to the loader"
        )
    nothing = splice.open_initrds(())
    request = _request(order, binaries, before_firmware=False)
    request = dataclasses.replace(request, load_address=int(load_address))
    plan = layout.place(image, profile, request)
    if plan.load("early"):
        raise InputError(
            f"{image.name}: cannot be moved by a hook ({plan.moves[0].reason}), and nothing runs "
            "before the setup code of a bzimage; build a disk or an ISO instead"
        )
    parts = splice.splice(image, plan, binaries, "", nothing)
    if head:  # where it is loaded is its loader's business
        plan = dataclasses.replace(plan, notes=notes)
    return Prepared(plan, parts, options, profile, request.busy(profile), head)


def _request(
    order: Order,
    binaries: Mapping[str, FlatBinary],
    initrd_sizes: tuple[int, ...] = (),
    cmdline: str = "",
    *,
    before_firmware: bool,
) -> layout.Request:
    return layout.Request(
        initrd_sizes=initrd_sizes,
        cmdline=cmdline,
        relocator_size=len(binaries[splice.RELOCATOR].code),
        early_size=len(binaries[splice.EARLY].code),
        move=order.move,
        before_firmware=before_firmware,
    )


def with_head(
    image: Kernel, order: Order, replace_cmdline: bool, binaries: Mapping[str, FlatBinary]
) -> "tuple[Kernel, HeadPlan, tuple[str, ...]]":
    """A kernel with a head of ours, its plan, and what was decided."""
    from pybuild import headplan, headsplice

    initrds = splice.open_initrds(order.initrds)
    request = headplan.Request(
        cmdline=order.cmdline,
        replace=replace_cmdline,
        initrd_size=layout.initrd_size(initrds.sizes),
        code_size=headsplice.code_size(binaries),
        relocator_size=headsplice.relocator_size(binaries),
        has_crc=headsplice.crc_holds(image),
        move=order.move,
    )
    bare, note = headsplice.bare(image)
    source = headsplice.raised(bare)
    plan = headplan.place(source, request)
    headed, notes = headsplice.splice(image, source, plan, binaries, request, initrds.chunks())
    return headed, plan, (*plan.notes, *([note] if note else []), *notes)
