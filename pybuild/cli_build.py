"""The command line for building: `bootsplice build` and `restore`."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, get_args

import click

from pybuild import mover, say, targets
from pybuild.cli_complete import complete_machine, complete_target

if TYPE_CHECKING:
    from pybuild.build import Order

_FILE: Final = click.Path(path_type=Path)
_NOT_ASKED: Final = (None, False)  # what an option is that isn't there
EXAMPLE: Final = """\b
bootsplice build bzImage --initrd initrd.img --cmdline 'console=ttyS0' -o disk.img
bootsplice boot disk.img
"""

_Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def takes_order(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the arguments that an order is made of.

    It is called with `order`, which makes one: for the target that was asked for, or else for the
    one that it is given.
    """

    @functools.wraps(command)
    def called(
        kernel: Path,
        initrds: tuple[Path, ...],
        cmdline: str,
        machine: str,
        move: mover.Choice,
        target: str | None,
        **others: object,
    ) -> None:
        from pybuild.build import Order

        # click makes volume_id of --volume-id.
        given = {name: others.pop(name.replace("-", "_")) for name in targets.options()}
        options = {name: value for name, value in given.items() if value not in _NOT_ASKED}

        def order(default: str) -> Order:
            return Order(kernel, initrds, cmdline, machine, target or default, move, options)

        command(order, **others)

    decorated: Callable[..., None] = called
    for add in reversed((*_ORDER, *_options_of_targets())):
        decorated = add(decorated)
    return decorated


def _options_of_targets() -> Iterator[_Decorator]:
    """An option for each that a target has."""
    for name, (option, having) in targets.options().items():
        text = f"{option.help} ({', '.join(having)})"
        metavar = None if option.kind is bool else "BYTES" if option.kind is int else "TEXT"
        yield click.option(f"--{name}", is_flag=metavar is None, metavar=metavar, help=text)


_ORDER: Final[tuple[_Decorator, ...]] = (
    click.argument("kernel", type=_FILE),
    click.option(
        "--initrd", "initrds", type=_FILE, multiple=True, help="An initrd; may be given repeatedly."
    ),
    click.option("--cmdline", default="", help="The kernel's command line."),
    click.option(
        "--machine",
        default="pc",
        show_default=True,
        shell_complete=complete_machine,
        help="A profile (pc, xen-hvm) or the path of a TOML file.",
    ),
    click.option(
        "--move",
        type=click.Choice(get_args(mover.Choice)),
        default="auto",
        show_default=True,
        help="Who moves a kernel that cannot be loaded where it runs: its own setup code, through "
        "code32_start (hook), or a stage of ours before that (early).",
    ),
    click.option(
        "--target",
        shell_complete=complete_target,
        help=f"What to build: {', '.join(targets.names())}. If it is not given, what the output's "
        f"suffix stands for, or else {targets.DEFAULT}.",
    ),
)


@click.command(epilog=EXAMPLE, short_help="Build a bootable image from a kernel.")
@click.option(
    "-o",
    "--output",
    "out",
    type=_FILE,
    help="The file to write; with target ram a folder, which is replaced only if bootsplice wrote "
    "it.",
)
@click.option(
    "--into",
    "disk",
    metavar="DISK",
    type=_FILE,
    help="Instead of -o: a raw disk image or a block device, to boot KERNEL from now on; all else "
    "on it stays as it is.",
)
@click.option(
    "--partition",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --into: the partition to use, whose contents are lost; without it the gap before "
    "the first one is used.",
)
@takes_order
def build(
    order: "Callable[[str], Order]", out: Path | None, disk: Path | None, partition: int | None
) -> None:
    """Build a bootable image from KERNEL: a disk, if nothing else is asked for."""
    from pybuild.build import build as build_image
    from pybuild.build import build_into

    if (out is None) == (disk is None):
        raise click.UsageError("Expected either -o or --into.")
    if partition is not None and disk is None:
        raise click.UsageError("--partition goes with --into.")
    notes: tuple[str, ...] = ()
    if disk is not None:
        wanted = order(targets.DEFAULT)
        for name in (*wanted.options, *(["target"] if wanted.target != targets.DEFAULT else [])):
            raise click.UsageError(f"--{name} does not go with --into.")
        with say.late_steps() as progress:
            plan, notes = build_into(wanted, disk, partition, progress)
    elif out is not None:
        with say.late_steps() as progress:
            plan = build_image(order(targets.of_output(out)), out, progress)
    for note in (*plan.notes, *notes):
        say.note(note)


@click.command(
    short_help="Undo build --into.",
    epilog="""\b
bootsplice build bzImage --into /dev/sdX --partition 2
bootsplice restore /dev/sdX
""",
)
@click.argument("disk", type=_FILE)
def restore(disk: Path) -> None:
    """Put back the boot sector that DISK had before `build --into`.

    The partition table stays as it is now. What was written for the kernel stays on the disk, as
    free room for the next `build --into`.
    """
    from pybuild import into

    into.restore(disk)
