"""The tasks: `invoke --list`. Thin; the work is in pybuild/."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from pybuild import assembler, images, paths, protocoldoc
from pybuild.errors import reported
from pybuild.files import write_file
from pybuild.material import Workshop

_BIN = Path(sys.executable).parent
_RESULTS = Path("docs/performance.md")
_PROTOCOL = paths.ROOT / "docs/boot-protocol.md"


def _shop() -> Workshop:
    return Workshop(paths.ROOT, paths.BUILD, paths.cache_directory(), print)


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
    with reported(_fail):
        outcome = images.build_all(_shop())
    for name in outcome.built:
        print(f"built {paths.IMAGES.relative_to(paths.ROOT)}/{name}")
    for name, why in outcome.left_out.items():
        print(f"left out {name}: {why}")
    if not outcome.built:
        print(f"nothing has changed: {len(outcome.unchanged)} images are up to date")


@task
def kernels(_: Context) -> None:
    """Fetch the real kernels from Debian packages into the cache."""
    with reported(_fail):
        for path in images.fetch_all(_shop()):
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
    """Hold every source in asm/ to the contract in its header comment (seconds)."""
    build(c)
    c.run(f"{_tool('pytest')} -q -m contract --tb=line", pty=False)


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
    """Check style and types."""
    c.run(f"{_tool('ruff')} check", pty=False)
    c.run(f"{_tool('ruff')} format --check", pty=False)
    c.run(f"{_tool('mypy')}", pty=False)


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
