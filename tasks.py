"""The tasks: `invoke --list`. Thin; the work is in pybuild/."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from pybuild import assembler, images, paths, protocoldoc, say
from pybuild.errors import reported
from pybuild.files import write_file
from pybuild.material import Workshop
from pybuild.progress import Progress

_BIN = Path(sys.executable).parent
_RESULTS = Path("docs/performance.md")
_PROTOCOL = paths.ROOT / "docs/boot-protocol.md"


def _shop(progress: Progress) -> Workshop:
    return Workshop(paths.ROOT, paths.BUILD, paths.cache_directory(), progress)


def _fail(message: str, status: int) -> NoReturn:
    raise Exit(message, code=status)


def _tool(name: str) -> str:
    if not (_BIN / name).exists():
        _fail(f"bootsplice: {name} is not in {_BIN}; `make test` installs it", 1)
    return str(_BIN / name)


@task
def build(_: Context) -> None:
    """Assemble and link what has changed in asm/."""
    with reported(_fail):
        done = assembler.build(assembler.Tree(paths.ROOT, paths.BUILD))
    print(f"assembled: {', '.join(done)}" if done else "nothing has changed")


@task(name="images")
def build_images(_: Context) -> None:
    """Build the images of every recipe in kernels/ whose inputs have changed."""
    with reported(_fail), say.late_steps() as progress, say.long_steps() as fetching:
        outcome = images.build_all(_shop(fetching), progress)
    for name in outcome.built:
        print(f"built {paths.IMAGES.relative_to(paths.ROOT)}/{name}")
    for name, why in outcome.left_out.items():
        print(f"left out {name}: {why}")
    if not outcome.built:
        print(f"nothing has changed: {len(outcome.unchanged)} images are up to date")


@task
def kernels(_: Context) -> None:
    """Fetch the real kernels from Debian packages into the cache."""
    with reported(_fail), say.long_steps() as progress:
        found = images.fetch_all(_shop(progress))
    for path in found:
        print(path)


@task(
    positional=["name"],
    help={"name": "<recipe> or <recipe>.<machine>", "timeout": "seconds"},
)
def boot(_: Context, name: str, timeout: float = 60.0) -> None:
    """Boot the image of a recipe in QEMU, up to what the recipe expects."""
    with reported(_fail):
        images.boot_image(name, timeout)


@task
def contract(c: Context) -> None:
    """Hold every source in asm/ to the contract in its header comment (under a minute)."""
    build(c)
    c.run(f"{_tool('pytest')} -q -n auto --dist worksteal -m contract --tb=line", pty=False)


@task
def watch(_: Context) -> None:
    """On each save in asm/: assemble what changed, trace it, run its contract tests."""
    pytest = _tool("pytest")
    from rich.console import Console

    from pybuild import editloop

    with reported(_fail):
        editloop.run(assembler.Tree(paths.ROOT, paths.BUILD), pytest, Console())


@task
def test(c: Context) -> None:
    """Run the test suite, in parallel; without the tests that `soak` is for."""
    c.run(f"{_tool('pytest')} -n auto --dist worksteal -m 'not soak'", pty=False)


@task
def soak(c: Context) -> None:
    """Run the whole test suite, with the tests that take long, too."""
    c.run(f"{_tool('pytest')} -n auto --dist worksteal", pty=False)


@task
def lint(c: Context) -> None:
    """Check style and types, of the assembler sources, too."""
    from pybuild.lint import asmlint

    found = asmlint.findings(paths.ROOT)
    for finding in found:
        print(finding)
    c.run(f"{_tool('ruff')} check", pty=False)
    c.run(f"{_tool('ruff')} format --check", pty=False)
    c.run(f"{_tool('mypy')}", pty=False)
    if found:
        _fail(f"bootsplice: findings in the assembler sources: {len(found)}", 1)


@task(
    positional=["name"],
    iterable=["set_"],
    help={
        "name": "<arch>/<name>, or its end: relocator_seed",
        "set": "NAME=NUMBER, the value of a symbol that is open; may come often",
        "base": "physical address of the first byte",
    },
)
def listing(_: Context, name: str, set_: list[str], base: str = "") -> None:
    """Show a source beside its bytes: final offsets, and each open field by its name."""
    from rich.console import Console
    from rich.text import Text

    from pybuild import listing as listed
    from pybuild import numbers

    console = Console(highlight=False, soft_wrap=True)
    with reported(_fail):
        tree = assembler.own()
        symbols = numbers.settings(set_)
        start = listed.address(base) if base else None
        for parts in listed.of_source(tree, name, symbols, start):
            console.print(Text.assemble(*parts))


@task(
    help={
        "quick": "one round of a small set",
        "update": "put the tables and the chart into docs/performance.md",
    }
)
def bench(c: Context, quick: bool = False, update: bool = False) -> None:
    """Measure speed beside other loaders: tables, JSON and a chart in build/bench/."""
    options = [*(["--quick"] if quick else []), *(["--update", str(_RESULTS)] if update else [])]
    with c.cd(str(paths.ROOT)):
        c.run(shlex.join([sys.executable, "-m", "bench", *options]), pty=False)


@task
def docs(_: Context) -> None:
    """Write the pages in docs/ that are generated: boot-protocol.md."""
    write_file(_PROTOCOL, [protocoldoc.of_sources(paths.ROOT).encode()])
    print(_PROTOCOL.relative_to(paths.ROOT))


@task
def clean(_: Context) -> None:
    """Remove what was built; fetched packages stay in the cache."""
    shutil.rmtree(paths.BUILD, ignore_errors=True)
