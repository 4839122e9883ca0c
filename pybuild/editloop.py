"""`invoke watch`: on each save of a source, what it changes is assembled and held to its contract.

First comes what is known at once: NASM's word, the size, the verdict of a trace. Then the contract
tests, in a process of their own, which the next save ends.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, Final

import watchfiles
from rich.console import Console
from rich.markup import escape

from pybuild import assembler, contract, errors
from pybuild.assembler import Tree
from pybuild.errors import InputError
from pybuild.trace import show, verdicts

_SOURCES: Final = (".asm", ".inc", ".toml")
_SETTLED: Final = 50  # ms without another change, and a save is done
_DOTS: Final = re.compile(r"[.FEsxX]+( *\[ *\d+%\])?")
_LOOK: Final = 200  # ms between two looks at the tests


def run(tree: Tree, pytest: str, console: Console) -> None:
    """Watches the sources until it is interrupted.

    Args:
        tree: the sources.
        pytest: the program that runs the tests.
        console: where to say what was found.
    """
    loop = _Loop(tree, pytest, console)
    changes = watchfiles.watch(
        tree.asm,
        watch_filter=lambda _, path: path.endswith(_SOURCES),
        debounce=_SETTLED * 10,
        step=_SETTLED,
        rust_timeout=_LOOK,
        yield_on_timeout=True,
    )
    with contextlib.closing(loop), contextlib.suppress(KeyboardInterrupt):
        next(changes)  # from here on nothing is missed
        loop.begin()
        for changed in changes:
            if changed:
                console.clear()
                loop.begin()
            else:
                loop.look()


class _Loop:
    """What was held to its contract so far, and what is being held."""

    def __init__(self, tree: Tree, pytest: str, console: Console) -> None:
        self._tree = tree
        self._pytest = pytest
        self._console = console
        self._held = self._stamps()
        self._tests: _Tests | None = None

    def begin(self) -> None:
        """Assembles what has changed, says what is known at once, and starts the tests."""
        self.close()
        try:
            assembler.build(self._tree)
        except errors.FORESEEN as error:  # a file may be gone again, or not be there yet
            self._say(errors.line(error), "red")
            return
        stamps = self._stamps()
        names = [name for name, stamp in stamps.items() if stamp and stamp != self._held.get(name)]
        for name in names:
            for line in _at_once(self._tree, name):
                self._say(line, "red" if "BROKEN" in line else "")
        if names:
            self._say(f"contract tests of {', '.join(names)} ...", "dim")
            self._tests = _Tests(self._tree, self._pytest, {name: stamps[name] for name in names})
        else:
            self._say(f"watching {self._tree.asm}", "dim")

    def look(self) -> None:
        """Says how the tests went, if they have ended."""
        if self._tests and (status := self._tests.process.poll()) is not None:
            self._say(self._tests.said(), "red" if status else "green")
            self._held |= self._tests.stamps
            self.close()
            self._say(f"watching {self._tree.asm}", "dim")

    def close(self) -> None:
        """Ends the tests, if they still run."""
        if self._tests:
            self._tests.end()
            self._tests = None

    def _stamps(self) -> dict[str, bytes]:
        """What each source was last assembled from; nothing for one that never was."""
        found = {}
        with contextlib.suppress(*errors.FORESEEN):  # an arch.toml that is being edited
            for source in self._tree.sources():
                path = self._tree.build / f"{source.name}.stamp"
                found[source.name] = path.read_bytes() if path.exists() else b""
        return found

    def _say(self, text: str, style: str) -> None:
        self._console.print(escape(text), style=style, highlight=False, soft_wrap=True)


def _at_once(tree: Tree, name: str) -> Iterator[str]:
    """A source's size, and the verdict of its trace."""
    try:
        limit = contract.read(tree.asm / f"{name}.asm").limit
        yield f"{name}: {len(tree.load(name).code)} bytes, limit {limit}"
        yield from show.verdicts(verdicts(tree, name))
    except InputError as error:
        yield f"no trace: {error}"
    except errors.FORESEEN as error:
        yield errors.line(error)


class _Tests:
    """A run of contract tests.

    Attributes:
        stamps: of the sources that they are about.
        process: pytest.
    """

    def __init__(self, tree: Tree, pytest: str, stamps: dict[str, bytes]) -> None:
        self.stamps = stamps
        chosen = [word for name in stamps for word in ("--source", name)]
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - until end()
        self.process = subprocess.Popen(
            [pytest, "-q", "-x", "--tb=line", "--no-header", *chosen],
            cwd=tree.root,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its workers end with it
        )

    def said(self) -> str:
        """What pytest says, without its dots."""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if line and not _DOTS.fullmatch(line))

    def end(self) -> None:
        """Ends them, if they still run."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._output.close()
