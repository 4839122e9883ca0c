"""The command line's help for shells: `bootsplice completion`, and what completes an option."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


@click.command(
    short_help="Print a shell's completion script.",
    epilog="""\b
bootsplice completion bash >~/.local/share/bash-completion/completions/bootsplice
bootsplice completion zsh >~/.zfunc/_bootsplice
bootsplice completion fish >~/.config/fish/completions/bootsplice.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes bootsplice's commands, options and files in SHELL."""
    from click.shell_completion import get_completion_class

    root = context.find_root()
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  click has all three
    script = kind(root.command, {}, str(root.info_name), "_BOOTSPLICE_COMPLETE")
    click.echo(script.source())


def complete_machine(
    _context: click.Context, _option: click.Parameter, begun: str
) -> "list[CompletionItem[str]]":
    """The machine profiles that begin so, else files."""
    from click.shell_completion import CompletionItem

    from pybuild import machine

    found = [CompletionItem(name) for name in machine.names() if name.startswith(begun)]
    return found or [CompletionItem(begun, type="file")]


def complete_target(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """The targets that begin so."""
    from pybuild import targets

    return [name for name in targets.names() if name.startswith(begun)]
