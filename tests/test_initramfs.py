import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest
from archive import real_kernel

from pybuild.initramfs import CharacterDevice, Directory, Entry, File, Symlink, make, newc
from pybuild.paths import KERNELS

INIT = KERNELS / "initramfs" / "init"
ENTRIES: list[Entry] = [
    Directory("d"),
    File("d/empty", 0o644, b""),
    *(File(f"d/{'n' * size}", 0o640 + size, b"x" * size) for size in range(1, 6)),
    Symlink("d/link", "empty"),
    CharacterDevice("null", 1, 3),
]


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    """A busybox that can be run here and in a guest."""
    path = tmp_path / "busybox"
    path.write_bytes(real_kernel("busybox-static", "bin/busybox").read_bytes())
    path.chmod(0o755)
    return path


def test_busybox_lists_what_was_written(busybox: Path) -> None:
    command = [str(busybox), "cpio", "-tv"]
    done = subprocess.run(command, input=newc(ENTRIES), capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [(line[0], line[1], line[-1]) for line in lines[:2]] == [
        ("drwxr-xr-x", "0/0", "d"),
        ("-rw-r--r--", "0/0", "d/empty"),
    ]
    assert [line[0] for line in lines[-2:]] == ["lrwxrwxrwx", "crw-------"]
    assert " ".join(lines[-2]).endswith("d/link -> empty")
    assert len(lines) == len(ENTRIES)


def test_busybox_unpacks_what_was_written(busybox: Path, tmp_path: Path) -> None:
    files = [entry for entry in ENTRIES if not isinstance(entry, CharacterDevice)]
    room = tmp_path / "room"
    room.mkdir()
    command = [str(busybox), "cpio", "-i"]
    subprocess.run(command, input=newc(files), cwd=room, capture_output=True, check=True)
    for entry in files:
        path = room / entry.name
        match entry:
            case Directory():
                assert path.is_dir()
            case File():
                assert path.read_bytes() == entry.content
                assert path.stat().st_mode & 0o777 == entry.mode
            case Symlink():
                assert path.readlink() == Path(entry.target)
    assert len(list(room.rglob("*"))) == len(files)


def test_archive_to_the_byte() -> None:
    def header(*fields: int) -> bytes:
        return b"070701" + "".join(f"{value:08X}" for value in fields).encode()

    assert newc([File("ab", 0o600, b"hello"), CharacterDevice("c", 5, 1)]) == (
        header(1, 0o100600, 0, 0, 1, 0, 5, 0, 0, 0, 0, 3, 0)
        + b"ab\0\0\0\0"
        + b"hello\0\0\0"
        + header(2, 0o020600, 0, 0, 1, 0, 0, 0, 0, 5, 1, 2, 0)
        + b"c\0"
        + header(0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0)
        + b"TRAILER!!!\0"
        + b"\0\0\0"
    )


def test_same_input_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(b"busybox", b"init", b"payload")
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert make(b"busybox", b"init", b"payload") == first
    # gzip's header: no flags, hence no name; no time; best compression; unknown system
    assert first[:10] == b"\x1f\x8b\x08\0" + bytes(4) + b"\x02\xff"
    assert make(b"busybox", b"init", b"other") != first
    assert gzip.decompress(first).count(b"070701") == 10


@pytest.mark.boot
def test_guest_reports_what_it_was_given(busybox: Path, tmp_path: Path) -> None:
    payload = bytes(range(256)) * 4099
    initramfs = tmp_path / "initramfs.gz"
    initramfs.write_bytes(make(busybox.read_bytes(), INIT.read_bytes(), payload))
    kernel = real_kernel("linux-image-cloud-amd64", "boot/vmlinuz-*")
    cmdline = "console=ttyS0 panic=-1 bootsplice.test='%s a\\b'"
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-kernel", str(kernel)]
    command += ["-initrd", str(initramfs), "-append", cmdline]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-monitor", "none"]
    command += ["-no-reboot"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    console = done.stdout.decode(errors="replace")
    lines = console.replace("\r\n", "\n").split("\n")
    assert "initramfs=bootsplice" in lines, console + done.stderr.decode()

    start = lines.index("initramfs=bootsplice")
    report = dict(line.split("=", 1) for line in lines[start : lines.index("end=ok") + 1])
    memory = int(report.pop("mem_kb"))
    assert 128 * 1024 < memory < 256 * 1024
    assert report == {
        "initramfs": "bootsplice",
        "cmdline": cmdline,
        "kernel": kernel.name.removeprefix("vmlinuz-"),
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
        "cpus": "1",
        "end": "ok",
    }
    assert done.returncode == 0
