"""Large files on their way into an image: in little memory, quickly, and whole."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diskimage import MASK, SECTOR, check, make, noise, parse, write, xxh32
from disks import tool
from fakekernel import image

from pybuild import block, files, stream
from pybuild.errors import InputError
from pybuild.loadtable import Checksum
from pybuild.stream import Copying, Source

MEASURED = """
import re
from pathlib import Path
from pybuild import build
from pybuild.build import Order
build.build(Order(Path("kernel"), (Path("small"), Path("large"))), Path("out.img"))
# Not getrusage(): a process inherits its parent's maximum, and pytest's is large.
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize("is_sparse", [True, False])
def test_memory(tmp_path: Path, is_sparse: bool) -> None:
    """An initrd of more than 2 GB with holes, and one of 300 MB without, in well under 100 MB."""
    write(tmp_path, "kernel", image(initrd_addr_max=MASK))
    write(tmp_path, "small", b"abc")
    size = (1 << 31) + 12345 if is_sparse else 300 << 20
    with (tmp_path / "large").open("wb") as large:
        for at in range(0, size, size // 3) if is_sparse else range(0, size, 1 << 20):
            large.seek(at)
            large.write(noise(4099) if is_sparse else b"\xab" * (1 << 20))
        large.truncate(size)
    run = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 60_000  # KiB
    out = tmp_path / "out.img"
    status = out.stat()
    if is_sparse:
        assert status.st_blocks * SECTOR < 10 << 20
    with out.open("rb") as made, (tmp_path / "large").open("rb") as large:
        head = made.read(4 << 20)
        entries = [entry for entry in parse(head).entries if entry.name == "initrd"]
        assert entries[0].size == 4 + size
        for at in (0, size // 3 * 2, size - 5000):
            large.seek(at)
            made.seek(entries[0].lba * SECTOR + 4 + at)
            assert made.read(5000)[: size - at] == large.read(5000)


def sources(folder: Path, data: bytes) -> tuple[Path, Path]:
    return write(folder, "source", data), write(folder, "copy", b"")


def copied(path: Path, size: int, out: Path, *, at: int = 0, onto_zeros: bool = True) -> int:
    """Copies a file, and returns the checksum."""
    checksum = Checksum()
    parts: list[float] = []
    copying = Copying(size, parts.append)
    with Source(path, size) as source, out.open("r+b") as opened:
        stream.both(
            lambda: source.add_to(checksum),
            lambda: source.copy(opened.fileno(), at, copying, onto_zeros=onto_zeros),
            copying,
        )
        source.check()
    assert parts == sorted(parts)
    assert all(0 < part <= 1 for part in parts)
    return checksum.value


@functools.cache
def with_a_hole() -> tuple[bytes, int]:
    """What a file has in it, and its XXH32, which takes a second."""
    data = noise(3_000_001) + bytes(1 << 20) + b"end"
    return data, xxh32(data)


@pytest.mark.parametrize("onto_zeros", [True, False])
@pytest.mark.parametrize("number", [None, *stream._CANNOT_COPY, 0])
def test_copying_where_the_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, onto_zeros: bool
) -> None:
    """`number` is the error of copy_file_range(2); None for none, 0 for a file that looks empty."""

    def refuse(*_: object, **__: object) -> int:
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    if number is not None:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    data, checksum = with_a_hole()
    source, out = sources(tmp_path, b"")
    with source.open("r+b") as stream_:
        stream_.write(data[:3_000_001])
        stream_.truncate(len(data) - 3)
        stream_.seek(len(data) - 3)
        stream_.write(b"end")
    out.write_bytes(b"head" if onto_zeros else b"head" + b"\xff" * len(data) + b"tail")
    assert copied(source, len(data), out, at=4, onto_zeros=onto_zeros) == checksum
    assert out.read_bytes() == b"head" + data + (b"" if onto_zeros else b"tail")


def test_another_error_while_copying_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*out\.img'"):
        make(tmp_path, initrds=(noise(5000),))
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "initrd0"}


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 1000)


def overwrite(path: Path) -> None:
    """The size stays."""
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize(
    ("change", "when"),
    [
        (grow, "opened"),
        (shrink, "opened"),
        (grow, "read"),
        (shrink, "read"),
        (overwrite, "read"),
    ],
)
def test_an_initrd_that_changes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], when: str
) -> None:
    """After its size was taken, or after its first bytes were."""
    path = tmp_path / "initrd0"
    if when == "opened":
        real = block.to_read

        def first_change(*given: Any) -> Any:
            change(path)
            return real(*given)

        monkeypatch.setattr(block, "to_read", first_change)
    else:
        real_check = Source.check

        def change_first(self: Source) -> None:
            change(path)
            real_check(self)

        monkeypatch.setattr(Source, "check", change_first)
    with pytest.raises(InputError, match=r"initrd0: expected 5000 bytes, but it changed while"):
        make(tmp_path, initrds=(noise(5000),))
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "initrd0"}


def test_an_interrupt_ends_the_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other thread is not left running, and copies no more than its current piece."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Source, "add_to", interrupt)
    monkeypatch.setattr(stream, "_STEP", 1)
    real = os.copy_file_range

    def slow(*given: Any, **named: Any) -> int:
        time.sleep(0.001)
        return real(*given, **named)

    monkeypatch.setattr(os, "copy_file_range", slow)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, initrds=(noise(100_000),))
    assert time.monotonic() - begun < 30
    assert threading.active_count() == 1
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "initrd0"}


@pytest.mark.parametrize("form", ["img", "qcow2"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_killed_leaves_the_older_image_and_nothing_else(
    tmp_path: Path, form: str, how: signal.Signals
) -> None:
    if form != "img":
        tool("qemu-img")
    write(tmp_path, "kernel", image(initrd_addr_max=MASK))
    with (tmp_path / "initrd").open("wb") as initrd:
        initrd.truncate(400 << 20)
        initrd.write(noise(1 << 20))
    out = write(tmp_path, f"out.{form}", b"old")
    command = [sys.executable, "-m", "pybuild.cli", "build", "kernel", "--initrd", "initrd"]
    command += ["-o", out.name]
    outcomes = set()
    for delay in (0.05, 0.2, 0.3, 0.4, 0.6):
        child = subprocess.Popen(
            command,
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        time.sleep(delay)
        child.send_signal(how)
        outcomes.add(child.wait())
        assert {path.name for path in tmp_path.iterdir()} == {"kernel", "initrd", out.name}
        if out.read_bytes()[:3] != b"old":  # it was done already
            out.write_bytes(b"old")
    assert outcomes & {1, -how}


def test_a_file_system_without_nameless_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported", path)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", without)
    check(parse(make(tmp_path).read_bytes()))
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "out.img"}
    with pytest.raises(ValueError, match="stop"), files.output_file(tmp_path / "out.img"):
        raise ValueError("stop")
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "out.img"}
