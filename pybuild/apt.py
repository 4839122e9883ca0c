"""apt-get without root: downloading a package that apt itself has authenticated."""

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, TextIO

from pybuild.errors import BuildError
from pybuild.progress import Meter, Progress

_DOWNLOADED: Final = re.compile(r"dlstatus:\d+:(\d+(?:\.\d+)?):")


class Unavailable(BuildError):  # noqa: N818 - it says what is wrong with the package
    """A package cannot be had here and now: no apt-get, no network, no such package."""


def download(package: str, room: Path, progress: Progress) -> Path:
    """Downloads a package into a new folder in `room`, with one `apt-get update` if need be.

    Raises:
        Unavailable: apt-get is missing, or cannot get it.
    """
    return download_all([package], room, progress)[package]


def download_all(packages: Collection[str], room: Path, progress: Progress) -> dict[str, Path]:
    """The same for several packages, in one run of apt-get: the .deb file of each, by its name."""
    one = len(packages) == 1
    names = ", ".join(packages)
    meter = progress(f"fetching the Debian package{'' if one else 's'} {names}")
    place = Path(tempfile.mkdtemp(dir=room))
    command = ["apt-get", "download", *packages]
    if os.geteuid() == 0:  # apt's own user _apt may not write to `place`
        command[1:1] = ["-o", "APT::Sandbox::User=root"]
    done = _run_measured(command, place, meter)
    if done.returncode and _lists_are_old(done.stderr, place):
        _update(place, progress)
        done = _run_measured(command, place, meter)
    if done.returncode:
        them, their = ("it", "its name") if one else ("them", "their names")
        raise Unavailable(
            f"{names}: apt-get cannot download {them} ({_reason(done)}); "
            f"check {their}, the network and the sources in /etc/apt, then fetch again"
        )
    return {deb.name.split("_")[0]: deb for deb in sorted(place.glob("*.deb"))}


def known_names(room: Path, progress: Progress) -> frozenset[str]:
    """The names of all the packages that apt knows, with one `apt-get update` if it has no lists.

    Raises:
        Unavailable: apt is missing, or cannot update its lists.
    """
    if _lists_are_missing(room):
        _update(room, progress)
    done = _run(["apt-cache", "pkgnames"], room)
    if done.returncode:
        raise Unavailable(f"apt-cache pkgnames: failed ({_reason(done)})")
    return frozenset(done.stdout.split())


def _lists_are_old(complaint: str, place: Path) -> bool:
    """Whether a download failed for want of an `apt-get update`."""
    if re.search(r"\b404\b", complaint):  # the archive has replaced the version that apt knows
        return True
    return _lists_are_missing(place)


def _lists_are_missing(place: Path) -> bool:
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


def _run(
    command: list[str], place: Path, inherited: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        pass_fds=inherited,
    )


def _run_measured(
    command: list[str], place: Path, meter: Meter | None
) -> subprocess.CompletedProcess[str]:
    """Runs apt-get, and tells how much it has downloaded."""
    if meter is None:
        return _run(command, place)
    reader, writer = os.pipe()
    with os.fdopen(reader) as status:
        measuring = threading.Thread(target=_measure, args=(status, meter))
        measuring.start()
        try:
            return _run([*command, "-o", f"APT::Status-Fd={writer}"], place, [writer])
        finally:
            os.close(writer)
            measuring.join()


def _measure(status: TextIO, meter: Meter) -> None:
    """Passes on the percentage that apt-get reports, as its README.progress-reporting has it."""
    for line in status:
        if match := _DOWNLOADED.match(line):
            meter(float(match[1]) / 100)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The first error that a failed apt-get reports, on one line."""
    lines = done.stderr.splitlines()
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")] or lines
    return " ".join(errors[0].split()) if errors else f"exit status {done.returncode}"
