"""The command line for debugging: `bootsplice debug`."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pybuild import numbers
from pybuild.cli_boot import drive_option, memory_option, vcpus_option
from pybuild.drives import Drive

if TYPE_CHECKING:
    from pybuild.debugging.arrival import Place

_PLACES: Final = ("bootsect", "entry", "hook", "kernel")
_ADDRESSES: Final = range(1 << 64)


def _place(_context: click.Context, _parameter: click.Parameter, text: str) -> "Place | int":
    """One of the places, or a physical address."""
    for place in _PLACES:
        if text == place:
            return place
    try:
        address = numbers.parse(text)
    except ValueError:
        address = _ADDRESSES.stop
    if address not in _ADDRESSES:
        expected = ", ".join(_PLACES)
        raise click.BadParameter(f"{text!r}: expected {expected} or an address, as 0x100000")
    return address


def _complete_place(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """The places that begin so."""
    return [place for place in _PLACES if place.startswith(begun)]


@click.command(
    short_help="Boot an image up to a place in its boot, and attach gdb.",
    epilog="""\b
bootsplice debug disk.img
bootsplice debug cd.iso --at bootsect --memory 64 -- -nic none
bootsplice debug spliced.bzImage --at kernel
""",
)
@click.argument("image", metavar="IMAGE", type=click.Path(path_type=Path))
@click.option(
    "--at",
    metavar=f"[{'|'.join(_PLACES)}|ADDRESS]",
    default="hook",
    show_default=True,
    callback=_place,
    shell_complete=_complete_place,
    help="Where to stop.",
)
@drive_option
@memory_option
@vcpus_option
@click.argument("qemu_arguments", metavar="[-- QEMU ARGS]", nargs=-1)
def debug(
    image: Path,
    at: "Place | int",
    drive: Drive | None,
    memory: int | None,
    vcpus: int | None,
    qemu_arguments: tuple[str, ...],
) -> None:
    """Boot IMAGE in QEMU up to a place in its boot, and attach gdb to it there.

    IMAGE and QEMU ARGS are as for `bootsplice boot`. gdb has the sources of our code, in real,
    protected and long mode, and a script that can be read; the guest ends when gdb does. Without
    gdb the guest waits, stopped, for whoever attaches to it, until Ctrl-C.

    \b
    bootsect  our boot sector's first instruction, as the BIOS enters it
    entry     the kernel's 16-bit setup code
    hook      the code that moves the kernel: where code32_start points, the relocator
              or an image's head; or the relocator that the early stage enters
    kernel    the kernel's own protected-mode entry, after the move
    ADDRESS   any physical address: 0x100200 is where a loader enters a kernel in 64 bits
    """  # noqa: D301  \b is click's
    from pybuild.debugging import session as debugging

    debugging.debug(image, at=at, drive=drive, memory=memory, vcpus=vcpus, extra=qemu_arguments)
