"""What is up to date: a stamp beside an output holds the digest of everything it was made from."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pybuild.files import write_file


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; "missing" if no file is there."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return "missing"


def digests(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """The digest of each file by its path relative to `root` where it lies below it."""
    below = f"{root}/"  # text: pathlib's own way would take longer than the digests
    return {name.removeprefix(below): digest(Path(name)) for name in {*map(str, paths)}}


def read_stamp(path: Path) -> dict[str, object] | None:
    """What the stamp holds; None if there is none that can be read."""
    try:
        stamp = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def write_stamp(path: Path, key: Mapping[str, object]) -> None:
    """Records what an output was made from; call it when the output is complete."""
    write_file(path, [json.dumps(key, indent=1, sort_keys=True).encode() + b"\n"])
