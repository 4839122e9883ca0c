import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from archive import real_kernel
from fakekernel import VERSIONS, image, probe

from pybuild import report
from pybuild.bootproto import OLD_PROTOCOL, version_name
from pybuild.kernel import parse, read

KEYS = [
    *("file", "size", "kind", "version", "protocol", "relocatable", "entries", "efi_stub"),
    *("setup_size", "protected_size", "load_address", "header_end", "hook", "fields", "warnings"),
]
FIELD_KEYS = ["offset", "size", "value", "access", "meaning"]


def inspect(
    path: Path, *options: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pybuild.cli", "inspect", str(path), *options]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env={**os.environ, **(environment or {})},
        check=False,
    )


def warnings(data: bytes) -> list[str]:
    return report.warnings(parse("k", data))


def summary(text: str) -> dict[str, str]:
    """The summary lines of `inspect`, by what they are about."""
    return {line[:10].rstrip(): line[11:] for line in text.partition("\n\n")[0].splitlines()}


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_a_right_kernel_has_no_warnings(version: int) -> None:
    kernel = parse("k", image(version, text=None if version == OLD_PROTOCOL else "fake 1.0"))
    assert report.warnings(kernel) == []
    described = report.describe(kernel)
    assert list(described) == KEYS
    assert described["protocol"] == version_name(version)
    assert described["warnings"] == []
    assert "warning" not in report.text(kernel)


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_text_and_json_show_every_field_once(version: int) -> None:
    kernel = parse("k", image(version, root_dev=0x1234))
    fields: Any = report.describe(kernel)["fields"]
    assert list(fields) == [f.name for f in kernel.fields]
    assert fields["root_dev"]["value"] == 0x1234
    lines = report.text(kernel).partition("meaning\n")[2].splitlines()
    assert len(lines) == len(fields)
    for line, f in zip(lines, kernel.fields, strict=True):
        assert list(fields[f.name]) == FIELD_KEYS
        offset, name, value, access, meaning = line.split(maxsplit=4)
        assert (int(offset, 16), name, int(value, 16)) == (f.offset, f.name, kernel[f.name])
        assert len(value) == 2 + 2 * f.size
        assert (access, meaning) == (f.access, f.meaning)


def test_summary_of_a_kernel_that_cannot_be_relocated() -> None:
    kernel = parse("dir/k", image(0x20C, xloadflags=1, text="fake 1.0"))
    assert summary(report.text(kernel)) == {
        "file": "dir/k, 1825 bytes",
        "version": "fake 1.0",
        "kind": "bzImage, boot protocol 2.12",
        "kernel is": "NOT relocatable, runs at 0x100000",
        "entries": "16-bit, 32-bit, 64-bit",
        "parts": "setup 1024 bytes, protected-mode 801 bytes",
        "if moved": "by a code32_start hook",
    }
    assert report.describe(kernel)["hook"] is True


def test_summary_of_others() -> None:
    relocatable = parse("k", image(relocatable_kernel=1, kernel_alignment=0x200000))
    shown = summary(report.text(relocatable))
    assert shown["kernel is"] == "relocatable, aligned to 0x200000"
    assert shown["version"] == "(none)"
    old = parse("k", image(OLD_PROTOCOL))
    shown = summary(report.text(old))
    assert shown["kind"] == "old zImage without a setup header, boot protocol old"
    assert shown["kernel is"] == "NOT relocatable, runs at 0x10000"
    assert shown["if moved"].startswith("by the early stage: ")
    assert report.describe(old)["hook"] is False
    assert report.kind(parse("k", image(0x203, loadflags=0))) == "zImage"
    assert report.kind(parse("k", image(0x203))) == "bzImage"


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (image(0x210), "protocol 2.16 is newer than 2.15"),
        (image(0x20F, end=0x235), "the header ends at 0x235, before .*: min_alignment, .*offset$"),
        (image(0x20F, end=0x218), "the header ends at 0x218, before .*: ramdisk_image, .*offset$"),
        (image(0x204, syssize=0), "syssize is 0; the file's length is taken"),
        (image(0x204, syssize=0x20), "801 bytes, 289 more than syssize says"),
        (image(0x204, syssize=0x40), "801 bytes, 223 fewer than syssize says"),
        (image(0x204, protected=0x330, syssize=0x34), "816 bytes, 16 fewer than syssize says"),
        (image(code32_start=0), "code32_start 0x0 lies outside"),
        (image(code32_start=0x100321), "code32_start 0x100321 lies outside"),
        (image(kernel_version=0xFFFF), "kernel_version 0xffff points to no text"),
        (image(relocatable_kernel=1, kernel_alignment=0), "relocatable, but kernel_alignment is 0"),
        (image(init_size=1), "init_size 0x1 is less than the kernel's own 0x321"),
    ],
)
def test_warnings(data: bytes, warning: str) -> None:
    found = warnings(data)
    assert any(re.search(warning, each) for each in found), found
    assert len(found) == 1
    assert report.text(parse("k", data)).endswith(f"\nwarning: {found[0]}")


def test_what_is_usual_is_no_warning() -> None:
    assert warnings(image(0x203, syssize=0)) == []  # it says nothing on a bzImage before 2.04
    assert warnings(image(0x20F, syssize=0x33)) == []
    assert warnings(image(0x207, end=0x267)) == []  # ipxe.lkrn
    assert warnings(image(0x203, loadflags=0, code32_start=0x1000)) == []


def test_command_shows_what_report_says(tmp_path: Path) -> None:
    path = probe("2.10", tmp_path)
    shown = inspect(path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == report.text(read(path)) + "\n"
    as_json = inspect(path, "--json")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    assert json.loads(as_json.stdout) == report.describe(read(path))
    assert list(json.loads(as_json.stdout)) == KEYS


def test_a_name_that_is_no_text_can_be_shown(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"k\xff")
    path.write_bytes(image())
    strict = {"PYTHONIOENCODING": "utf-8:strict"}  # as in every locale but C
    shown = inspect(path, environment=strict)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "boot protocol 2.15" in shown.stdout
    as_json = inspect(path, "--json", environment=strict)
    assert json.loads(as_json.stdout)["size"] == len(image())
    refused = inspect(tmp_path / os.fsdecode(b"\xff"), environment=strict)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_a_name_gives_a_terminal_no_orders(tmp_path: Path) -> None:
    path = tmp_path / "k\x1b[2J\x9b"
    path.write_bytes(image(OLD_PROTOCOL))  # has few fields, so a terminal's buffer holds them all
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        command = [sys.executable, "-m", "pybuild.cli", "inspect", str(path)]
        subprocess.run(command, stdout=theirs, check=True)
        shown = screen.read(4096).decode()
        os.close(theirs)
    assert "k\\x1b[2J\\x9b, " in shown
    assert not set(shown) & {"\x1b", "\x9b"}


def test_a_reader_that_goes_away_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_bytes(image())
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as nobody:
        command = [sys.executable, "-m", "pybuild.cli", "inspect", str(path)]
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_real_kernels_oddities_are_shown() -> None:
    ipxe = read(real_kernel("ipxe", "*/ipxe.lkrn"))
    assert report.warnings(ipxe) == [
        "code32_start 0x0 lies outside the protected-mode part: a hook would not run"
    ]
    assert ipxe["kernel_alignment"] == 0
    assert not ipxe.has("pref_address")
    assert ipxe.data[0x258:0x260] != bytes(8)
    memdisk = read(real_kernel("syslinux-common", "usr/lib/syslinux/memdisk"))
    assert report.warnings(memdisk) == []
    assert memdisk.syssize_bytes is None
    assert report.describe(memdisk)["hook"] is False
    debian = read(real_kernel("linux-image-cloud-amd64", "boot/vmlinuz-*"))
    (signature,) = report.warnings(debian)
    assert re.search(r"\d+ more than syssize says \(a signature", signature)
    for name in ("boot/memtest86+ia32.bin", "boot/memtest86+x64.bin"):
        memtest = read(real_kernel("memtest86+", name))
        assert memtest["pref_address"] == 0x100000
        assert report.describe(memtest)["hook"] is True
        assert report.warnings(memtest) == []
