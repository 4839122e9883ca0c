"""Files of Debian packages, fetched without root and without installing anything.

apt-get downloads and authenticates a package and dpkg-deb unpacks it. Only the file that was
asked for is kept, in a cache that looks like this:

    packages.json                                   what was fetched, with size and SHA-256
    memtest86+_6.10-4_amd64/boot/memtest86+x64.bin  a file as it is in the package
"""

import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pybuild import apt, flock, fresh
from pybuild.errors import BuildError, InputError
from pybuild.files import write_file
from pybuild.progress import Progress

_PACKAGE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy 5.6.7


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """What packages.json says of one fetched file.

    Attributes:
        path: the file, from the cache directory.
        package: the package that has it: for a metapackage, the one that it depends on.
        version: of that package, with its epoch.
        architecture: of that package; "all" where it has none.
        size: bytes.
        sha256: of the file, in hexadecimal.
    """

    path: str
    package: str
    version: str
    architecture: str
    size: int
    sha256: str


def fetch(package: str, member: str, cache: Path, *, progress: Progress) -> Path:
    """The path of a file from a Debian package; the package is downloaded the first time only.

    Later calls with the same package and member compare the cached file to what was recorded
    when it was fetched, and do not touch the network. Processes may share a cache: one of them
    fetches, the others wait.

    Args:
        package: a package's name. Where a metapackage has no such file, the packages that it
            depends on are tried in order: those whose name begins with the same word.
        member: a regular file's path in the package, without a leading slash, or a glob that
            matches one file (`*` matches slashes too).
        cache: the directory to keep files in; it is made if need be.
        progress: called with one line before each step that may take long.

    Raises:
        apt.Unavailable: there is no apt-get or dpkg-deb, apt-get cannot download the package, or
            the package has no such file.
        InputError: the package's name is malformed, or several of its files match `member`.
        BuildError: the cached file is not what was fetched, or the cache cannot be used.
    """
    if not _PACKAGE_NAME.fullmatch(package):
        raise InputError(f"{package!r}: no name of a Debian package; give one such as memtest86+")
    key = f"{package}: {member}"
    with _locked(cache):
        records = _read_records(cache / "packages.json")
        if key not in records or not (cache / records[key].path).exists():
            with tempfile.TemporaryDirectory(prefix=".fetch.", dir=cache) as room:
                record, content = _obtain(package, member, Path(room), progress)
            write_file(cache / record.path, [content])
            records[key] = record
            _write_records(cache / "packages.json", records)
        record = records[key]
        _check(cache / record.path, record)
    return cache / record.path


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    with contextlib.ExitStack() as lock:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            lock.enter_context(flock.held(cache / ".lock"))
        except OSError as error:
            raise BuildError(
                f"{cache}: cannot be used as the cache ({error.strerror}); "
                "set BOOTSPLICE_CACHE to a directory that can be written"
            ) from error
        yield


def _read_records(path: Path) -> dict[str, _Record]:
    if not path.exists():
        return {}
    try:
        return {key: _Record(**fields) for key, fields in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BuildError(
            f"{path}: not as bootsplice wrote it ({error}); remove it and fetch again"
        ) from error


def _write_records(path: Path, records: dict[str, _Record]) -> None:
    plain = {key: dataclasses.asdict(record) for key, record in records.items()}
    write_file(path, [json.dumps(plain, indent=2, sort_keys=True).encode(), b"\n"])


def _check(path: Path, record: _Record) -> None:
    size, sha256 = path.stat().st_size, fresh.digest(path)
    if (size, sha256) != (record.size, record.sha256):
        raise BuildError(
            f"{path}: found {size} bytes with SHA-256 {sha256}, expected {record.size} bytes with "
            f"SHA-256 {record.sha256} as fetched from {record.package} {record.version}; "
            "remove the file and fetch it again"
        )


def _obtain(package: str, member: str, room: Path, progress: Progress) -> tuple[_Record, bytes]:
    for tool in ("apt-get", "dpkg-deb"):
        apt.require(tool, "fetch on Debian or a system derived from it, or give a file of your own")
    deb = apt.download(package, room, progress)
    found = _matching_files(deb, member)
    if not found:
        for dependency in _dependencies(deb, package):
            progress(f"{package} has no {member}: trying {dependency}, which it depends on")
            deb = apt.download(dependency, room, progress)
            found = _matching_files(deb, member)
            if found:
                break
    if not found:
        raise apt.Unavailable(
            f"{package}: has no file {member} in this release of the distribution "
            "(a path has no leading slash)"
        )
    if len(found) > 1:
        raise InputError(
            f"{package}: expected one file that matches {member}, found {len(found)}: "
            f"{', '.join(sorted(found))}"
        )
    ((name, content),) = found.items()
    owner, version, architecture = (_field(deb, f) for f in ("Package", "Version", "Architecture"))
    path = f"{owner}_{version.split(':')[-1]}_{architecture}/{name}"
    sha256 = hashlib.sha256(content).hexdigest()
    return _Record(path, owner, version, architecture, len(content), sha256), content


def _dependencies(deb: Path, package: str) -> list[str]:
    """What a package depends on of its own kind, in order; of alternatives the first."""
    clauses = _field(deb, "Depends").split(",")
    names = [match[0] for clause in clauses if (match := _PACKAGE_NAME.match(clause.strip()))]
    same_word = (name for name in names if name.split("-")[0] == package.split("-")[0])
    return list(dict.fromkeys(same_word))


def _field(deb: Path, name: str) -> str:
    command = ["dpkg-deb", "--field", str(deb), name]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BuildError(f"{deb.name}: dpkg-deb cannot read it: {run.stderr.strip()}")
    return run.stdout.strip()


def _matching_files(deb: Path, pattern: str) -> dict[str, bytes]:
    """The regular files in a package whose path matches a glob, with their content."""
    found = {}
    with tempfile.TemporaryFile(dir=deb.parent) as unpacked:
        command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
        if subprocess.run(command, stdout=unpacked, check=False).returncode:
            raise BuildError(f"{deb.name}: dpkg-deb cannot unpack it; fetch again")
        unpacked.seek(0)
        with tarfile.open(fileobj=unpacked, mode="r:") as tar:
            for info in tar:
                name = info.name.removeprefix("./")
                matches = info.isreg() and fnmatch.fnmatchcase(name, pattern)
                if matches and (stream := tar.extractfile(info)):
                    found[name] = stream.read()
    return found
