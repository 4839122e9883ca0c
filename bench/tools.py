"""Running other people's programs, and finding out which are there."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pybuild.errors import BuildError


@dataclass(frozen=True, slots=True)
class Need:
    """What a peer needs: a program on PATH, or a file by its whole path, and its Debian package."""

    what: str
    package: str

    def is_there(self) -> bool:
        if "/" in self.what:
            return Path(self.what).is_file()
        return shutil.which(self.what) is not None


def run(*command: str | Path) -> str:
    """Runs a program to its end; returns what it wrote, on standard output and standard error.

    Raises:
        BuildError: it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout.strip()}")
    return done.stdout
