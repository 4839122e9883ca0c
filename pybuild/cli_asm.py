"""The command line for the guest's code: `bootsplice trace`."""

from pathlib import Path
from typing import Final

import click

_EXAMPLE: Final = """\b
bootsplice trace asm/i386/relocator.asm
bootsplice trace asm/i386/relocator.asm --set src=0x200000 --set dst=0x100000 --set len=8M
"""


@click.command(short_help="Run a source and hold it to its contract.", epilog=_EXAMPLE)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "given",
    metavar="NAME=NUMBER",
    multiple=True,
    help="A symbol's value, or a register's on entry; may be given repeatedly. 0x200000, 4096, 8M.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def trace(context: click.Context, source: Path, given: tuple[str, ...], *, as_json: bool) -> None:
    """Run SOURCE, an .asm or a flat binary, in an emulator as the contract in its header says.

    Shows each instruction that is executed, with its source line and what it changes, loops folded;
    then which of its promises it kept. Exit status 1 if one is broken.

    What is not set comes from the contract. A source that `moves` is run with three moves, unless
    src or dst is set: apart, and overlapping either way; the first that breaks the contract is
    shown. Other symbols get addresses 1 MiB apart, sizes of 4 KiB and values that differ, within
    the ranges of their `reads` lines. Registers and memory hold patterns. A head runs in a kernel
    image made for it, the disk loader's stages on a simulated PC with a BIOS and a drive.
    """
    import json
    from collections.abc import Sequence

    from pybuild import assembler, numbers
    from pybuild.trace import Judged, show, target, traces, verdicts

    tree, name = target.find(source)
    values = numbers.settings(given)
    if source.suffix == ".asm":
        assembler.build(tree)
    judged: Sequence[Judged]
    if as_json:
        judged = traced = traces(tree, name, values)
        click.echo(json.dumps(show.as_json(traced), indent=1))
    else:
        judged = verdicts(tree, name, values)
        click.echo("\n".join(show.text(judged)))
    context.exit(0 if all(each.kept for each in judged) else 1)
