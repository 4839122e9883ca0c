import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pybuild import files, fresh
from pybuild.errors import InputError
from pybuild.files import replace_directory, write_file

MARKER = "plan.json"
OWN = (MARKER, "*.bin")


@pytest.fixture(params=[0o022, 0o077, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The process's umask while the test runs."""
    mask: int = request.param
    before = os.umask(mask)
    yield mask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_write_file_makes_it_and_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    write_file(path, [b"one", b"", b"two"])
    assert path.read_bytes() == b"onetwo"
    write_file(path, iter([b"three"]))
    assert path.read_bytes() == b"three"
    assert list(path.parent.iterdir()) == [path]


def test_write_file_has_the_mode_of_any_new_file(tmp_path: Path, umask: int) -> None:
    write_file(tmp_path / "file", [b"x"])
    assert mode(tmp_path / "file") == 0o666 & ~umask


@pytest.mark.parametrize("error", [ValueError("bad chunk"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, b"old"])
def test_write_file_interrupted(tmp_path: Path, error: BaseException, before: bytes | None) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise error

    with pytest.raises(type(error)):
        write_file(path, chunks())
    assert (path.read_bytes() if path.exists() else None) == before
    assert list(tmp_path.iterdir()) == ([] if before is None else [path])


def test_write_file_is_on_the_disk_before_it_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    synced: list[tuple[int, bytes]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(path, [b"x" * 100_000])
    assert synced[0] == (100_000, b"old")


def test_write_file_over_a_directory(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_file(tmp_path / "there", [b"x"])
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def ours(path: Path) -> Path:
    """A directory as replace_directory() leaves it."""
    with replace_directory(path, MARKER, OWN) as room:
        (room / MARKER).write_text("old")
        (room / "part.bin").write_text("old")
    return path


def tree(directory: Path) -> dict[str, str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_text() for path in files}


OLD = {MARKER: "old", "part.bin": "old"}


def test_replace_directory_makes_it_and_its_folders(tmp_path: Path, umask: int) -> None:
    path = ours(tmp_path / "a/out")
    assert tree(path) == OLD
    assert mode(path) == 0o777 & ~umask
    assert list(path.parent.iterdir()) == [path]


def test_replace_directory_replaces_it_whole(tmp_path: Path) -> None:
    path = ours(tmp_path / "out")
    with replace_directory(path, MARKER, OWN) as room:
        assert room.parent == tmp_path
        assert list(room.iterdir()) == []
        (room / MARKER).write_text("new")
        assert tree(path) == OLD
    assert tree(path) == {MARKER: "new"}
    assert list(tmp_path.iterdir()) == [path]


def test_replace_directory_takes_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert tree(ours(tmp_path / "out")) == OLD


@pytest.mark.parametrize("there", [False, True])
def test_replace_directory_through_a_link(tmp_path: Path, there: bool) -> None:
    real = tmp_path / "real"
    if there:
        ours(real)
    (tmp_path / "out").symlink_to(real)
    ours(tmp_path / "out")
    assert tree(tmp_path / "out") == OLD
    assert tree(real) == OLD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


@pytest.mark.parametrize(
    "kind", ["directory", "ours-and-more", "names-like-ours", "file", "a-directory-in-it"]
)
def test_replace_directory_spares_what_is_not_ours(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    match kind:
        case "directory":
            path.mkdir()
            (path / "diary").write_text("precious")
        case "file":
            path.write_text("precious")
        case "ours-and-more":
            ours(path)
            (path / "diary").write_text("precious")
        case "names-like-ours":
            path.mkdir()
            (path / "part.bin").write_text("precious")
        case "a-directory-in-it":
            (path / MARKER).mkdir(parents=True)
    before = tree(tmp_path)
    with (
        pytest.raises(InputError, match=r"/out: is there already and (holds|is no directory)"),
        replace_directory(path, MARKER, OWN),
    ):
        pytest.fail("it began")
    assert tree(tmp_path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [False, True])
def test_replace_directory_interrupted_while_filled(
    tmp_path: Path, error: BaseException, there: bool
) -> None:
    path = tmp_path / "out"
    if there:
        ours(path)

    def fill() -> None:
        with replace_directory(path, MARKER, OWN) as room:
            (room / MARKER).write_text("new")
            raise error

    with pytest.raises(type(error)):
        fill()
    assert tree(path) == (OLD if there else {})
    assert list(tmp_path.iterdir()) == ([path] if there else [])


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["before", "after"])
def test_replace_directory_interrupted_when_they_change_places(
    tmp_path: Path, error: BaseException, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ours(tmp_path / "out")
    real = files._exchange

    def exchange(one: Path, other: Path) -> None:
        if when == "after":
            real(one, other)
        raise error

    monkeypatch.setattr(files, "_exchange", exchange)
    with pytest.raises(type(error)), replace_directory(path, MARKER, OWN) as room:
        (room / MARKER).write_text("new")
    assert tree(path) == (OLD if when == "before" else {MARKER: "new"})
    assert list(tmp_path.iterdir()) == [path]


class Libc:
    """A C library whose renameat2() fails, or that has none."""

    def __init__(self, number: int | None) -> None:
        if number is not None:
            self.renameat2 = lambda *_: ctypes.set_errno(number) or -1


@pytest.mark.parametrize("number", [None, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
def test_replace_directory_where_nothing_can_change_places(
    tmp_path: Path,
    number: int | None,
    error: BaseException | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = ours(tmp_path / "out")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc(number))
    real, renames = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        renames.append(target)
        if error is not None and len(renames) == 2:
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    expected = pytest.raises(type(error)) if error is not None else contextlib.nullcontext()
    with expected, replace_directory(path, MARKER, OWN) as room:
        (room / MARKER).write_text("new")
    assert tree(path) == ({MARKER: "new"} if error is None else OLD)
    assert list(tmp_path.iterdir()) == [path]


def test_replace_directory_reports_other_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ours(tmp_path / "out")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc(errno.EROFS))
    with pytest.raises(OSError, match="Read-only"), replace_directory(path, MARKER, OWN):
        pass
    assert tree(path) == OLD


def test_replace_directory_killed_at_any_moment(tmp_path: Path) -> None:
    """The folder is always there and always whole."""
    program = (
        "import itertools, pathlib, sys\n"
        "from pybuild.files import replace_directory\n"
        "for number in itertools.count():\n"
        f"    with replace_directory(pathlib.Path(sys.argv[1]), {MARKER!r}, {OWN!r}) as folder:\n"
        f"        (folder / {MARKER!r}).write_text(str(number))\n"
        "        (folder / 'part.bin').write_text(str(number))\n"
        "    print(number, flush=True)\n"
    )
    path = tmp_path / "out"
    for kill in range(8):
        child = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(2 + 5 * kill):
            child.stdout.readline()
        child.kill()
        child.wait()
        child.stdout.close()
        found = tree(path)
        assert found.keys() == {MARKER, "part.bin"}
        assert found[MARKER] == found["part.bin"]


def test_replace_directory_spares_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(InputError, match="is the current directory"),
        replace_directory(Path(), MARKER, OWN),
    ):
        pass


def test_replace_directory_by_many_at_once(tmp_path: Path) -> None:
    def replace(number: int) -> None:
        with replace_directory(tmp_path / "out", MARKER, OWN) as folder:
            (folder / MARKER).write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(replace, range(200)))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / MARKER).read_text().isdecimal()


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert fresh.digest(path) == "missing"
    path.write_bytes(b"x" * 1_000_000)
    assert fresh.digest(path) == hashlib.sha256(b"x" * 1_000_000).hexdigest()


def test_digests_are_named_by_where_the_files_are_in_the_tree(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root/sub/file", tmp_path / "outside"
    write_file(inside, [b"in"])
    write_file(outside, [b"out"])
    found = fresh.digests([inside, outside, inside], tmp_path / "root")
    assert found == {
        "sub/file": hashlib.sha256(b"in").hexdigest(),
        str(outside): hashlib.sha256(b"out").hexdigest(),
    }
    shutil.move(tmp_path / "root", tmp_path / "moved")
    moved = fresh.digests([tmp_path / "moved/sub/file", outside], tmp_path / "moved")
    assert moved == found


def test_stamp_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "sub/out.stamp"
    assert fresh.read_stamp(path) is None
    key = {"b": ["-f", "elf32"], "a": {"x": "1"}, "n": 3}
    fresh.write_stamp(path, key)
    assert fresh.read_stamp(path) == key
    first = path.read_bytes()
    fresh.write_stamp(path, dict(reversed(key.items())))
    assert path.read_bytes() == first


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a": 1'])
def test_stamp_that_cannot_be_read_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "stamp").write_bytes(text)
    assert fresh.read_stamp(tmp_path / "stamp") is None


def test_stamp_that_is_a_directory_is_none(tmp_path: Path) -> None:
    assert fresh.read_stamp(tmp_path) is None
