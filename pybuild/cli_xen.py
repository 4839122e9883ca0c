"""The command line for Xen: `bootsplice xl` and `bootsplice lab`."""

from pathlib import Path
from typing import get_args

import click

from pybuild import drives, paths, say
from pybuild.cli_boot import memory_option, vcpus_option
from pybuild.errors import InputError

_FILE = click.Path(path_type=Path)


@click.command(
    short_help="Print an image's configuration for Xen's xl.",
    epilog="\b\nbootsplice xl disk.img --memory 256 >disk.cfg\nxl create -c disk.cfg\n",
)
@click.argument("image", metavar="IMAGE", type=_FILE)
@click.option("--initrd", type=_FILE, help="With a kernel for IMAGE: its initrd.")
@click.option("--cmdline", help="With a kernel for IMAGE: its command line.")
@click.option(
    "--drive",
    type=click.Choice(get_args(drives.Drive)),
    help="What a file is to the guest; cdrom for an ISO, else ide.",
)
@memory_option
@vcpus_option
@click.option("--name", help="The guest's name; IMAGE's if it is not given.")
def xl(
    image: Path,
    initrd: Path | None,
    cmdline: str | None,
    drive: drives.Drive | None,
    memory: int | None,
    vcpus: int | None,
    name: str | None,
) -> None:
    """Print the configuration by which `xl create` starts an HVM guest from IMAGE.

    IMAGE is a disk image, an ISO, a folder that `build --target ram` wrote, or a kernel, which
    Xen's device model then loads itself.
    """
    from pybuild import splice
    from pybuild.xen import xl as configuration

    where = str(image.absolute())
    if drives.is_kernel(image):
        if drive is not None:
            raise InputError(f"{image}: is a kernel; --drive {drive} is for a disk or CD image")
        if initrd is not None:
            splice.open_initrds((initrd,))  # says what is wrong with it
        domain = configuration.of_kernel(
            where, str(initrd.absolute()) if initrd else None, cmdline or "", memory, vcpus
        )
    else:
        for option, value in (("--initrd", initrd), ("--cmdline", cmdline)):
            if value is not None:
                raise InputError(f"{option} {value}: goes with a kernel, and {image} is none")
        domain = configuration.of_image(image, where, drive, memory, vcpus)
    click.echo(configuration.text(domain, name=name or image.stem), nl=False)


@click.command(
    short_help="Make, show or remove the Xen lab.", epilog="\b\nbootsplice lab xen --status\n"
)
@click.argument("which", metavar="xen", type=click.Choice(["xen"]))
@click.option("--status", "show", is_flag=True, help="Say what there is of it.")
@click.option("--clean", is_flag=True, help="Remove it.")
def lab(which: str, *, show: bool, clean: bool) -> None:  # noqa: ARG001 - there is only one
    """Make the Xen lab ready, in which `boot --on xen` boots: a real Xen and its dom0, in QEMU.

    Its Debian packages are downloaded and unpacked below the cache directory; nothing is
    installed. `boot --on xen` does the same when it is used first.
    """
    from pybuild.xen import lab as labs

    cache = paths.cache_directory()
    if show and clean:
        raise click.UsageError("--status does not go with --clean.")
    if clean:
        labs.clean(cache)
        return
    if not show:
        with say.long_steps() as progress:
            labs.prepare(cache, progress=progress)
    status = labs.status(cache)
    click.echo(f"{status.folder}: {status.size >> 20} MiB")
    if not status.packages:
        click.echo("not there yet; the first `bootsplice boot --on xen` makes it")
        return
    for package, version in status.packages.items():
        click.echo(f"{package} {version}")
    click.echo(
        "starts at once" if status.starts_at_once else "its next start boots Xen, once: 12 s"
    )
