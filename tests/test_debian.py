import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from archive import real_kernel
from debrepo import publish, served
from missing import missing

from pybuild.apt import Unavailable
from pybuild.debian import fetch
from pybuild.errors import BootspliceError, BuildError, InputError

MEMTEST = ("memtest86+", "boot/memtest86+x64.bin")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips or fails, as real_kernel does, where the Debian archive cannot be reached now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOTSPLICE_CACHE", str(tmp_path_factory.mktemp("archive")))
        real_kernel(*MEMTEST)


@pytest.fixture
def no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing can be run: neither apt-get nor dpkg-deb is on PATH."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def sudo_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Puts a shell script in the place of sudo."""
    stub = tmp_path / "bin" / "sudo"
    if not stub.exists():
        stub.parent.mkdir()
        monkeypatch.setenv("PATH", str(stub.parent), prepend=os.pathsep)
    stub.write_text(f"#!/bin/sh\n{what}\n")
    stub.chmod(0o755)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An archive of our own, the only one that apt knows; without lists. sudo is a stub."""
    if not shutil.which("apt-get"):
        missing("apt-get: not found on PATH")
    sudo_does(tmp_path, monkeypatch, 'shift; exec "$@"')
    with served(tmp_path) as (root, configuration):
        monkeypatch.setenv("APT_CONFIG", str(configuration))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def unexpected(line: str) -> None:
    pytest.fail(f"not expected to do anything slow: {line}")


def one_line(error: pytest.ExceptionInfo[BootspliceError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("package", "member", "start"),
    [
        ("busybox-static", "bin/busybox", b"\x7fELF"),
        (*MEMTEST, None),
        ("memtest86+", "boot/*ia32.bin", None),
    ],
)
def test_fetches_a_file_and_records_it(
    cache: Path, package: str, member: str, start: bytes | None
) -> None:
    path = fetch(package, member, cache, progress=print)
    content = path.read_bytes()
    assert content[:4] == start if start else content[0x202:0x206] == b"HdrS"

    ((key, record),) = json.loads((cache / "packages.json").read_text()).items()
    assert key == f"{package}: {member}"
    assert cache / record["path"] == path
    assert record["package"] == package
    assert record["architecture"] == "amd64"
    assert re.match(r"(\d:)?\d+\.\d+", record["version"])
    assert record["size"] == len(content)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert sorted(p.name for p in cache.iterdir()) == [".lock", path.parts[-3], "packages.json"]


@pytest.mark.usefixtures("archive")
def test_how_much_is_fetched(cache: Path) -> None:
    parts: list[float] = []
    fetch(*MEMTEST, cache, progress=lambda _: parts.append)
    assert parts == sorted(parts)
    assert 0 <= parts[0] <= parts[-1] == 1


@pytest.mark.usefixtures("archive")
def test_metapackage_leads_to_the_kernel_it_depends_on(cache: Path) -> None:
    lines: list[str] = []
    path = fetch("linux-image-cloud-amd64", "boot/vmlinuz-*", cache, progress=lines.append)
    assert re.fullmatch(r"vmlinuz-\d.*-cloud-amd64", path.name)
    assert path.read_bytes()[0x202:0x206] == b"HdrS"
    ((_, record),) = json.loads((cache / "packages.json").read_text()).items()
    assert record["package"] == path.name.replace("vmlinuz", "linux-image")
    assert lines[0] == "fetching the Debian package linux-image-cloud-amd64"
    assert lines[-1] == f"fetching the Debian package {record['package']}"


@pytest.mark.usefixtures("archive")
def test_unknown_package(cache: Path) -> None:
    with pytest.raises(Unavailable) as error:
        fetch("bootsplice-no-such-package", "boot/kernel", cache, progress=print)
    assert "Unable to locate package bootsplice-no-such-package" in one_line(error)


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize("member", ["boot/nothing", "/boot/memtest86+x64.bin", "boot"])
def test_no_such_file_in_the_package(cache: Path, member: str) -> None:
    with pytest.raises(Unavailable, match="has no file") as error:
        fetch("memtest86+", member, cache, progress=print)
    assert member in one_line(error)
    assert [path.name for path in cache.iterdir()] == [".lock"]


@pytest.mark.usefixtures("archive")
def test_several_files_match(cache: Path) -> None:
    with pytest.raises(InputError, match=r"found 2: boot/memtest86\+ia32.bin, boot/mem") as error:
        fetch("memtest86+", "boot/*.bin", cache, progress=print)
    assert "expected one file" in one_line(error)
    assert [path.name for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("package", ["", "-oDebug=1", "../memtest86+", "a=1", "memtest86+ ipxe"])
def test_malformed_package_name(cache: Path, package: str) -> None:
    with pytest.raises(InputError, match="no name of a Debian package"):
        fetch(package, "boot/kernel", cache, progress=unexpected)


@pytest.mark.usefixtures("no_path")
def test_without_apt_get(cache: Path) -> None:
    with pytest.raises(Unavailable) as error:
        fetch(*MEMTEST, cache, progress=unexpected)
    assert one_line(error).startswith("apt-get: not found on PATH; ")


@pytest.mark.usefixtures("archive")
def test_offline(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apt.conf").write_text('Acquire::Retries "0";\n')  # they take 8 s
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(Unavailable) as error:
        fetch(*MEMTEST, cache, progress=print)
    assert "check its name, the network" in one_line(error)


def test_cached_file_needs_no_network(
    repository: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    publish(repository, "kernel", "1.0", {"boot/kernel": b"one"})
    first = fetch("kernel", "boot/kernel", cache, progress=print)
    request.getfixturevalue("no_path")
    assert fetch("kernel", "boot/kernel", cache, progress=unexpected) == first


@pytest.mark.parametrize("tampered", [b"tw", b"onE"])
def test_changed_file_is_an_error_until_it_is_removed(
    repository: Path, cache: Path, tampered: bytes
) -> None:
    publish(repository, "kernel", "1:1.0-1", {"boot/kernel": b"one"})
    path = fetch("kernel", "boot/kernel", cache, progress=print)
    assert path == cache / "kernel_1.0-1_all" / "boot" / "kernel"
    path.write_bytes(tampered)
    with pytest.raises(BuildError) as error:
        fetch("kernel", "boot/kernel", cache, progress=unexpected)
    assert not isinstance(error.value, Unavailable)
    found, expected = (
        f"{len(content)} bytes with SHA-256 {hashlib.sha256(content).hexdigest()}"
        for content in (tampered, b"one")
    )
    assert f"{path}: found {found}, expected {expected} as fetched" in one_line(error)
    path.unlink()
    assert fetch("kernel", "boot/kernel", cache, progress=print).read_bytes() == b"one"


def test_missing_lists_are_updated_once(repository: Path, cache: Path) -> None:
    publish(repository, "kernel", "1.0", {"boot/kernel": b"one"})
    lines: list[str] = []
    fetch("kernel", "boot/kernel", cache, progress=lines.append)
    assert len(lines) == 2
    assert lines[1].endswith("apt-get update")
    lines.clear()
    with pytest.raises(Unavailable):
        fetch("nothing", "boot/kernel", cache, progress=lines.append)
    assert len(lines) == 1


def test_old_lists_are_updated(repository: Path, cache: Path) -> None:
    publish(repository, "kernel", "1.0", {"boot/kernel": b"one"})
    old = fetch("kernel", "boot/kernel", cache, progress=print)
    publish(repository, "kernel", "2.0", {"boot/kernel": b"two"})
    new = fetch("kernel", "boot/ker*", cache, progress=print)
    assert (old.read_bytes(), new.read_bytes()) == (b"one", b"two")


def test_update_that_fails(repository: Path, cache: Path) -> None:
    with pytest.raises(Unavailable) as error:  # the archive has no index
        fetch("kernel", "boot/kernel", cache, progress=print)
    assert "apt-get update: failed (" in one_line(error)
    assert one_line(error).endswith("run apt-get update as root, then fetch again")
    assert not list(repository.iterdir())


def test_update_goes_through_sudo_without_root(
    repository: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    publish(repository, "kernel", "1.0", {"boot/kernel": b"one"})
    sudo_does(tmp_path, monkeypatch, "echo 'sudo: a password is required' >&2; exit 1")
    with pytest.raises(Unavailable, match="a password is required") as error:
        fetch("kernel", "boot/kernel", cache, progress=print)
    assert one_line(error).startswith("sudo -n apt-get update: failed (")

    sudo_does(tmp_path, monkeypatch, '[ "$1" = -n ] && shift && exec "$@"')
    lines: list[str] = []
    fetch("kernel", "boot/kernel", cache, progress=lines.append)
    assert lines[-1].endswith("running sudo -n apt-get update")


def test_dependencies_of_another_name_or_deeper_are_left_alone(
    repository: Path, cache: Path
) -> None:
    content = {"boot/kernel": b"one"}
    publish(repository, "other", "1", content)
    publish(repository, "linux-deep", "1", content)
    publish(repository, "linux-second", "1", {}, depends="linux-deep")
    publish(repository, "linux-meta", "1", {}, depends="other, linux-second (>= 1) | linux-deep")
    lines: list[str] = []
    with pytest.raises(Unavailable, match="linux-meta: has no file"):
        fetch("linux-meta", "boot/kernel", cache, progress=lines.append)
    tried = [line.split()[-1] for line in lines if line.startswith("fetching")]
    assert tried == ["linux-meta", "linux-second"]


def test_damaged_records(cache: Path) -> None:
    cache.mkdir()
    for text in ("{", "[]", '{"a: b": {}}'):
        (cache / "packages.json").write_text(text)
        with pytest.raises(BuildError, match=r"packages\.json: not as bootsplice wrote it"):
            fetch(*MEMTEST, cache, progress=unexpected)


def test_unusable_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuildError, match="set BOOTSPLICE_CACHE") as error:
        fetch(*MEMTEST, tmp_path / "file", progress=unexpected)
    assert not isinstance(error.value, Unavailable)


def test_many_fetch_at_once_but_one_downloads(repository: Path, cache: Path) -> None:
    names = [f"boot/kernel{number}" for number in range(3)]
    publish(repository, "kernel", "1.0", {name: name.encode() for name in names})
    lines: list[str] = []

    def content(name: str) -> bytes:
        return fetch("kernel", name, cache, progress=lines.append).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(content, names * 8)) == [name.encode() for name in names * 8]
    assert lines.count("fetching the Debian package kernel") == len(names)
    assert len(json.loads((cache / "packages.json").read_text())) == len(names)


@pytest.mark.parametrize(("ci", "outcome"), [("1", "failed"), (None, "skipped")])
def test_unreachable_archive_skips_but_fails_in_ci(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    ci: str | None,
    outcome: str,
) -> None:
    monkeypatch.setenv("BOOTSPLICE_CACHE", str(tmp_path / "empty"))
    if ci is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", ci)
    request.getfixturevalue("no_path")
    raised = {"failed": pytest.fail.Exception, "skipped": pytest.skip.Exception}[outcome]
    with pytest.raises(raised, match="apt-get: not found on PATH"):
        real_kernel(*MEMTEST)
