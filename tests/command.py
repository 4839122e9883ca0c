"""Runs the real command in a folder that has all kinds of files in it."""

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

from fakekernel import image

from pybuild.bootproto import OLD_PROTOCOL

FAR = 3 << 30  # bytes: more than the machine has


def run(
    folder: Path, *arguments: str | Path, path: str | None = None, file_limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a folder; nothing of it may be a traceback or left in the folder's way."""

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    environment = os.environ if path is None else {**os.environ, "PATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "pybuild.cli", *map(str, arguments)],
        cwd=folder,
        env=environment,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    return done


def refusal(folder: Path, *arguments: str | Path, status: int = 2, path: str | None = None) -> str:
    """The one line on standard error that a run fails with."""
    done = run(folder, *arguments, path=path)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bootsplice: ")
    return line.removeprefix("bootsplice: ")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with the bytes of its files, but for the one that is huge."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() and path.stat().st_size < FAR else None
        )
        for path in folder.rglob("*")
    }


def fill(folder: Path) -> None:
    """Puts there what is wrong with a kernel or an initrd, and a kernel and an initrd."""
    (folder / "good").write_bytes(image(text="good 1.0"))
    (folder / "old").write_bytes(image(OLD_PROTOCOL))
    (folder / "cut").write_bytes(image(protected=0x4000)[:-0x1000])
    (folder / "random").write_bytes(random.Random(1).randbytes(300_000))
    (folder / "initrd").write_bytes(b"initrd")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    with (folder / "huge").open("wb") as stream:
        stream.truncate(FAR)  # sparse
    (folder / "broken.toml").write_text("ram = \n")
    (folder / "odd.toml").write_text("ram = 'much'\n")
