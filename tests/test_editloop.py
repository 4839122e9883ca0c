"""`invoke watch`: what it says, save by save."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from copied import copy_project, environment

DEADLINE = 60.0  # seconds for a round, on a busy machine


class Watched:
    """An `invoke watch` in a copy of the project."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process = subprocess.Popen(
            [root / ".venv/bin/invoke", "watch"],
            cwd=root,
            env={**environment(root), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        self._out = self.process.stdout
        os.set_blocking(self._out.fileno(), False)

    def until(self, last: str) -> str:
        """What it says, up to a line that begins so."""
        said = ""
        end = time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while not f"\n{said}".rpartition("\n")[0].rpartition("\n")[2].startswith(last):
                assert selector.select(end - time.monotonic()), f"no {last!r} after:\n{said}"
                piece = self._out.read()
                assert piece, f"it ended after:\n{said}"
                said += piece.decode()
        return said

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / f"asm/{name}"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    running = Watched(copy_project(tmp_path / "tree", built=True))
    with running.process:
        yield running
        running.process.kill()


def test_each_save_is_held_to_its_contract(watched: Watched) -> None:
    assert watched.until("watching") == f"watching {watched.root}/asm\n"

    watched.edit("real/bootsect.asm", "    cld\n", "    nop\n")
    said = watched.until("watching")
    size, verdict, broken, tests, *failure = said.splitlines()
    assert size.startswith("real/bootsect: 512 bytes, limit 512")
    assert verdict == "real/bootsect: contract BROKEN"
    assert "leaves with df=0x1" in broken
    assert tests == "contract tests of real/bootsect ..."
    assert any("ContractError" in line and "leaves with df=0x1" in line for line in failure)
    assert "1 failed" in said

    watched.edit("real/bootsect.asm", "    nop\n", "    cldd\n")
    said = watched.until("asm/real/bootsect.asm:")
    assert said.startswith("bootsplice: nasm refuses asm/real/bootsect.asm:\n")

    # What two of them include: both are held to their contracts, and the one that was refused.
    watched.edit("real/bootsect.asm", "    cldd\n", "    cld\n")
    watched.edit("include/bootsector.inc", "; bootsector.inc", "; bootsector.inc ")
    said = watched.until("watching")
    assert "real/bootsect: contract kept" in said
    assert "real/diskboot: " in said
    assert "contract tests of real/bootsect, real/diskboot ..." in said
    assert " passed, " in said
    watched.process.send_signal(signal.SIGINT)
    assert watched.process.wait(DEADLINE) == 0


def test_watching_goes_on_whatever_becomes_of_a_file(watched: Watched) -> None:
    watched.until("watching")
    path = watched.root / "asm/real/arch.toml"
    text = path.read_text()
    path.unlink()
    path.mkdir()
    said = watched.until("bootsplice: ")
    assert said == f"bootsplice: {path}: Is a directory\n"
    path.rmdir()
    assert watched.until("bootsplice: ").endswith(f"its architecture has no {path}\n")
    path.write_text("bits =\n")
    assert watched.until("bootsplice: ").startswith(f"bootsplice: {path}: Invalid value")
    path.write_text(text)
    assert watched.until("watching") == f"watching {watched.root}/asm\n"


def test_a_save_ends_the_tests_of_the_one_before(watched: Watched) -> None:
    watched.until("watching")
    watched.edit("real/loader.asm", "; loader.asm", "; loader.asm ")
    watched.until("contract tests of real/loader ...")
    watched.edit("real/bootsect.asm", "; bootsect.asm", "; bootsect.asm ")
    watched.until("contract tests of real/bootsect, real/loader ...")
    end = time.monotonic() + DEADLINE
    while not (
        running := [each for each in Path("/proc").glob("[0-9]*") if is_test(each, watched)]
    ):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(running) == 1
    watched.process.send_signal(signal.SIGINT)
    assert watched.process.wait(DEADLINE) == 0


def is_test(process: Path, watched: Watched) -> bool:
    """Whether a process runs tests in the copy."""
    try:
        here = (process / "cwd").readlink() == watched.root
        return here and b"--source" in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
