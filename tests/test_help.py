"""Each command's help has an example, and the command takes it."""

import itertools
import shlex

import click
import pytest
from click.testing import CliRunner

from pybuild.cli import cli

EVERY: list[click.Command] = [cli, *cli.commands.values()]


def examples(command: click.Command) -> list[list[str]]:
    """The command lines of bootsplice in the text behind a command's options, in words."""
    lines = (command.epilog or "").splitlines()
    return [
        list(itertools.takewhile(lambda word: word[0] not in ">|", shlex.split(line)[1:]))
        for line in lines
        if line.startswith("bootsplice ")
    ]


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.name)
def test_help_has_an_example(command: click.Command) -> None:
    words = examples(command)
    names = [each[0] for each in words]
    assert command.name in names or command is cli
    assert names
    for name, *arguments in words:
        root = cli.make_context("bootsplice", [name, *arguments])
        cli.commands[name].make_context(name, arguments, parent=root)  # or it says what is wrong

    arguments = ["--help"] if command is cli else [str(command.name), "--help"]
    shown = CliRunner().invoke(cli, arguments, prog_name="bootsplice", terminal_width=80).output
    assert "\n  Examples:\n\n  bootsplice " in shown
    for line in (command.epilog or "").splitlines():
        if line.startswith("bootsplice "):
            assert f"  {line}\n" in shown  # as it stands there, not wrapped


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.name)
def test_every_command_says_less_or_more(command: click.Command) -> None:
    options = {option for each in command.params for option in each.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= options


def test_an_option_that_is_not_there_is_seen() -> None:
    arguments = ["kernel", "--nonsense"]
    root = cli.make_context("bootsplice", ["build", *arguments])
    with pytest.raises(click.UsageError, match="--nonsense"):
        cli.commands["build"].make_context("build", arguments, parent=root)
