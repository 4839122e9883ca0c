"""apt-get without root: downloading a package that apt itself has authenticated."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from pybuild.errors import BuildError

Progress = Callable[[str], None]


class Unavailable(BuildError):  # noqa: N818 - it says what is wrong with the package
    """A package cannot be had here and now: no apt-get, no network, no such package."""


def download(package: str, room: Path, progress: Progress) -> Path:
    """Downloads a package into a new folder in `room`, with one `apt-get update` if need be.

    Raises:
        Unavailable: apt-get is missing, or cannot get it.
    """
    progress(f"fetching the Debian package {package}")
    place = room / package
    place.mkdir()
    command = ["apt-get", "download", package]
    if os.geteuid() == 0:  # apt's own user _apt may not write to `place`
        command[1:1] = ["-o", "APT::Sandbox::User=root"]
    done = _run(command, place)
    if done.returncode and _lists_are_old(done.stderr, place):
        _update(place, progress)
        done = _run(command, place)
    if done.returncode:
        raise Unavailable(
            f"{package}: apt-get cannot download it ({_reason(done)}); "
            "check its name, the network and the sources in /etc/apt, then fetch again"
        )
    (deb,) = place.glob("*.deb")
    return deb


def _lists_are_old(complaint: str, place: Path) -> bool:
    """Whether a download failed for want of an `apt-get update`."""
    if re.search(r"\b404\b", complaint):  # the archive has replaced the version that apt knows
        return True
    return not _run(["apt-get", "indextargets", "Created-By: Packages"], place).stdout


def _update(place: Path, progress: Progress) -> None:
    remedy = "run apt-get update as root, then fetch again"
    command = ["apt-get", "update"]
    if os.geteuid() != 0:
        require("sudo", remedy)
        command[:0] = ["sudo", "-n"]
    progress(f"apt's package lists are missing or old: running {' '.join(command)}")
    done = _run(command, place)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: failed ({_reason(done)}); {remedy}")


def require(tool: str, remedy: str) -> None:
    """Raises Unavailable, with the remedy, if a program is not on PATH."""
    if not shutil.which(tool):
        raise Unavailable(f"{tool}: not found on PATH; {remedy}")


def _run(command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    english = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, cwd=place, env=english, capture_output=True, text=True, check=False
    )


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The first error that a failed apt-get reports, on one line."""
    lines = done.stderr.splitlines()
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")] or lines
    return " ".join(errors[0].split()) if errors else f"exit status {done.returncode}"
