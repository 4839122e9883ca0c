"""Debian packages, downloaded and unpacked into a folder without being installed."""

import fnmatch
import posixpath
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pybuild import apt
from pybuild.errors import BuildError
from pybuild.progress import Progress

NEEDS: Final = "the Xen lab needs Debian 12 or later (amd64)"
TOP: Final = ("bin", "lib", "lib64", "sbin")  # /bin and so on: links where /usr is merged

_FIRST_ALTERNATIVE: Final = re.compile(r"\s*([a-z0-9][a-z0-9+.-]+)")  # of a clause in Depends


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """An unpacked package.

    Attributes:
        name: its name.
        version: its version, with its epoch.
        depends: the names of the packages that it depends on; of alternatives the first.
        tree: the directory that it was unpacked in.
        files: the path from `tree` of its files and symbolic links, by their path where /usr is
            merged: usr/lib/x, be it packaged as that or as lib/x.
    """

    name: str
    version: str
    depends: tuple[str, ...]
    tree: Path
    files: dict[str, Path]

    def file(self, pattern: str) -> "File":
        """The file whose path, with /usr merged, matches a glob (`*` matches slashes too).

        Raises:
            apt.Unavailable: not exactly one does.
        """
        found = fnmatch.filter(self.files, pattern)
        if len(found) != 1:
            raise apt.Unavailable(
                f"{self.name} {self.version}: expected one file {pattern}, found {len(found)}; "
                f"{NEEDS}"
            )
        return File(self, found[0])


class File(NamedTuple):
    """A file of a package, or a symbolic link to one, by its path where /usr is merged."""

    package: Package
    name: str

    @property
    def path(self) -> Path:
        """Where it was unpacked."""
        return self.package.tree / self.package.files[self.name]

    def chain(self) -> "list[File]":
        """This file; if it is a link, what it points to, and so on. The last is a regular file.

        Raises:
            BuildError: a link points to nothing in its package.
        """
        found = [self]
        while (path := found[-1].path).is_symlink():
            place = Path("/") / path.parent.relative_to(self.package.tree)
            target = File(self.package, merged(posixpath.normpath(place / path.readlink())[1:]))
            if target.name not in self.package.files or target in found:
                raise BuildError(
                    f"{self.package.name} {self.package.version}: {found[-1].name} is a link to "
                    f"{path.readlink()}, which is no file of the package"
                )
            found.append(target)
        return found


class Packages:
    """Packages that are downloaded and unpacked as they are asked for, each once.

    Attributes:
        known: the names of all packages that there are.
        unpacked: the packages that were asked for, by name.
    """

    def __init__(self, room: Path, progress: Progress) -> None:
        """Everything goes into `room`; apt.Unavailable is raised if this system has no apt."""
        for tool in ("apt-get", "dpkg-deb"):
            apt.require(tool, NEEDS)
        self._room = room
        self._progress = progress
        self.known = apt.known_names(room, progress)
        self.unpacked: dict[str, Package] = {}

    def get(self, names: Iterable[str]) -> None:
        """Downloads and unpacks packages, in one go.

        Raises:
            apt.Unavailable: one of them does not exist, or cannot be downloaded.
            BuildError: one cannot be unpacked.
        """
        new = sorted({*names} - self.unpacked.keys())
        if not self.known.issuperset(new):  # a download may have updated apt's lists since
            self.known = apt.known_names(self._room, self._progress)
        if strange := [name for name in new if name not in self.known]:
            raise apt.Unavailable(f"{strange[0]}: apt knows no such package; {NEEDS}")
        for name, deb in apt.download_all(new, self._room, self._progress).items():
            self.unpacked[name] = _unpack(deb, self._room / name)
            deb.unlink()


def merged(name: str) -> str:
    """A path without a leading slash as it is where /usr is merged."""
    return f"usr/{name}" if name.split("/")[0] in TOP else name


def _unpack(deb: Path, tree: Path) -> Package:
    fields = "${Package}\n${Version}\n${Pre-Depends},${Depends}"
    name, version, depends = _dpkg_deb("--show", f"--showformat={fields}", str(deb)).split("\n")
    _dpkg_deb("--extract", str(deb), str(tree))
    clauses = map(_FIRST_ALTERNATIVE.match, depends.split(","))
    return Package(
        name,
        version,
        tuple(dict.fromkeys(clause[1] for clause in clauses if clause)),
        tree,
        {
            merged(str(path)): path
            for path in (path.relative_to(tree) for path in tree.rglob("*") if _is_file(path))
        },
    )


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _dpkg_deb(*arguments: str) -> str:
    command = ["dpkg-deb", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: failed: {' '.join(done.stderr.split())}")
    return done.stdout
