"""The command line for looking at things: `bootsplice inspect`."""

from pathlib import Path
from typing import Final

import click

from pybuild import report, words
from pybuild.errors import BuildError
from pybuild.kernel import Kernel

_FILE: Final = click.Path(path_type=Path)


@click.command(
    short_help="Say what a kernel or an image is.",
    epilog="\b\nbootsplice inspect /boot/vmlinuz --json\nbootsplice inspect disk.img\n",
)
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(file: Path, *, as_json: bool) -> None:
    """Say what FILE is: a kernel, or an image that bootsplice built.

    Of a kernel it shows the setup header field by field, the entries, and what is odd about it. Of
    an image (disk, iso, bzimage, a folder of target ram) what is inside, where, with what symbols
    bound, and whether the checksums hold. The exit status is 1 if anything is damaged.
    """
    import json

    from pybuild.reading import recognise

    found = recognise.read(file)
    if isinstance(found, Kernel):
        described = report.describe(found)
        text = words.harmless(report.text(found))
        click.echo(json.dumps(described, indent=1) if as_json else text)
        return
    from pybuild import imagereport

    described = imagereport.describe(found)
    click.echo(json.dumps(described, indent=1) if as_json else imagereport.text(found))
    if found.is_damaged:
        raise BuildError(f"{file}: damaged: {imagereport.damage(found)[0]}")
