"""The command line for looking at things: `bootsplice inspect`."""

from pathlib import Path
from typing import Final

import click

from pybuild import kernel as kernels

_FILE: Final = click.Path(path_type=Path)


@click.command(
    short_help="Say what a kernel is.", epilog="\b\nbootsplice inspect /boot/vmlinuz --json\n"
)
@click.argument("kernel", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(kernel: Path, *, as_json: bool) -> None:
    """Say what KERNEL is: its setup header field by field, its entries, what is odd about it."""
    import json

    from pybuild import report

    image = kernels.read(kernel)
    click.echo(json.dumps(report.describe(image), indent=1) if as_json else report.text(image))
