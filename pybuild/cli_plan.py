"""The command line for looking before building: `bootsplice plan`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pybuild import say, targets
from pybuild.cli_build import takes_order

if TYPE_CHECKING:
    from pybuild.build import Order

_EXAMPLE: Final = """\b
bootsplice plan memtest86+x64.bin --machine xen-hvm
bootsplice plan bzImage --initrd initrd.img --target iso --svg plan.svg
"""


@click.command(epilog=_EXAMPLE, short_help="Say where everything would go, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--svg",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a picture instead: memory before, during and after the move.",
)
@takes_order
def plan(order: "Callable[[str], Order]", svg: Path | None, *, as_json: bool) -> None:
    """Say where everything of KERNEL would go, by which rule, and what would change in its header.

    Nothing is built. The options are those of `build`, and what that refuses is refused.
    """
    from pybuild.build import prepare, spare_inputs
    from pybuild.drawing import sheet

    wanted = order(targets.DEFAULT)
    if svg:
        spare_inputs(wanted, svg, "--svg")
    with say.late_steps() as progress:
        prepared = prepare(wanted, progress)
        targets.get(wanted.target).check(prepared.plan, prepared.parts, prepared.options)
    told = sheet.of(prepared, wanted.target)
    if svg:
        from pybuild.drawing import svgmap
        from pybuild.files import output_file

        with output_file(svg, "--svg") as stream:
            stream.write(svgmap.render(told).encode())
    if as_json:
        click.echo(told.to_json(), nl=False)
    elif not svg:
        from rich.console import Console

        from pybuild.drawing import planreport

        planreport.show(told, Console())
