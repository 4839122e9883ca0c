"""Target `bzimage` by its command: both forms, what it says, what it refuses."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lief
import pytest
from archive import real_kernel
from booting import plan
from command import refusal, run
from fakekernel import NEWEST, image, probe

from pybuild import kernel, paths

PLAIN = "--load-addr"


def build(room: Path, source: Path, *options: str, out: str = "out.bzImage") -> tuple[Path, str]:
    """What is written, and what is said."""
    done = run(room, "build", source, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    return room / out, done.stderr


def test_the_suffix_is_enough_and_the_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    source = probe("2.10", tmp_path / "build")
    (tmp_path / "initrd").write_bytes(b"initrd" * 1000)
    options = ("--initrd", "initrd", "--cmdline", "built in")
    first, said = build(tmp_path, source, *options)
    second, _ = build(tmp_path, source, *options, "--target", "bzimage", out="other")
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()
    assert re.search(
        r"head of \d+ bytes; the kernel behind it, 4097 bytes, is moved to 0x1000", said
    )
    made = kernel.read(first)
    assert made.is_relocatable
    assert "32-bit" in made.entries


@pytest.mark.parametrize("name", ["probe-bzimage", "probe-2.00", "probe-64"])
def test_the_plain_form_is_what_target_ram_has_for_another_loader(
    name: str, built: Callable[[str], Path], tmp_path: Path
) -> None:
    """Which its tests boot, from this address."""
    folder = built(f"{name}.xen-hvm")
    address = next(load["address"] for load in plan(folder)["loads"] if load["part"] == "kernel")
    source = paths.BUILD / "kernels" / f"{name}.bin"
    made, said = build(tmp_path, source, PLAIN, hex(address))
    assert made.read_bytes() == (folder / f"{name}.bzImage").read_bytes()
    assert f"to move kernel of {kernel.read(source).protected_size} bytes from {address:#x}" in said


def test_the_plain_form_of_a_relocatable_kernel_is_told_where_it_is(tmp_path: Path) -> None:
    source = probe("relocatable", tmp_path / "build")
    made, _ = build(tmp_path, source, PLAIN, "0x1000000")
    old, new = kernel.read(source), kernel.read(made)
    assert new["code32_start"] == 0x1000000
    assert new.protected == old.protected
    assert build(tmp_path, source, PLAIN, "1M")[0].read_bytes() == source.read_bytes()


def fine(**fields: Any) -> bytes:
    """A kernel that can have a head, but for what these fields say."""
    return image(NEWEST, setup_sects=2, **fields)


def test_a_command_line_may_fill_all_of_its_room(tmp_path: Path) -> None:
    """Then a loader is told that there is none for its own."""
    (tmp_path / "kernel").write_bytes(fine())
    made, _ = build(tmp_path, tmp_path / "kernel", "--cmdline", "x" * 255)
    assert kernel.read(made)["cmdline_size"] == 0
    made, _ = build(tmp_path, tmp_path / "kernel", "--cmdline", "x" * 255, "--replace-cmdline")
    assert kernel.read(made)["cmdline_size"] == 255


ZIMAGE = image(0x203, loadflags=0)
OLD = image(0x203)
MEMDISK = image(0x20A, text="MEMDISK 6.04")
RELOCATABLE = image(
    NEWEST, setup_sects=2, relocatable_kernel=1, kernel_alignment=0x200000, min_alignment=20
)


@pytest.mark.parametrize(
    ("contents", "options", "why"),
    [
        (ZIMAGE, (), r"kernel: a zImage \(loadflags bit 0 clear\) cannot carry a head: .*"),
        (
            OLD,
            (),
            r"kernel: protocol 2.03, and its header ends at 0x230: no room for pref_address and "
            r"init_size .*; possible is the plain form, .*: --load-addr",
        ),
        (MEMDISK, (), "kernel: its setup code would pass the head by: MEMDISK's .*"),
        (MEMDISK, (PLAIN, "2M"), "kernel: cannot be moved by a hook .*; build a disk or an ISO .*"),
        (
            fine(),
            ("--move", "early"),
            "kernel: move early: nothing runs before .*",
        ),
        (
            fine(),
            ("--cmdline", "x" * 256),
            "command line: 256 characters, but kernel .*",
        ),
        (
            fine(),
            ("--cmdline", "x", PLAIN, "2M"),
            "option load-addr: the plain form has .*",
        ),
        (
            fine(),
            (PLAIN, "0x80000"),
            "kernel: load address 0x80000: expected 1 MiB or more",
        ),
        (ZIMAGE, (PLAIN, "2M"), "kernel: load address 0x200000: expected 0x10000, it is a zImage"),
        (
            RELOCATABLE,
            (PLAIN, "0x180000"),
            "kernel: load address 0x180000: expected a multiple of 0x100000 .*",
        ),
        (
            fine(init_size=0xFFFFF000),
            (),
            "kernel: pref_address is 0x100000, expected .*",
        ),
        (
            fine(init_size=0x30000000),
            (),
            "machine 'pc', kernel: when the kernel runs, .* overlap",
        ),
    ],
)
def test_what_is_refused(
    tmp_path: Path, contents: bytes, options: tuple[str, ...], why: str
) -> None:
    (tmp_path / "kernel").write_bytes(contents)
    said = refusal(tmp_path, "build", "kernel", "-o", "out.bzImage", *options)
    assert re.fullmatch(why, said)
    assert [path.name for path in tmp_path.iterdir()] == ["kernel"]


def test_a_signature_and_the_efi_entry_are_spoken_of(tmp_path: Path) -> None:
    """Debian's kernel is signed; what becomes of it is a PE file that LIEF has nothing against."""
    source = real_kernel("linux-image-cloud-amd64", "boot/vmlinuz-*")
    (tmp_path / "initrd").write_bytes(b"x" * 5000)
    made, said = build(tmp_path, source, "--initrd", "initrd")
    assert re.search(r"its signature \(\d+ bytes\) does not cover a head and is left out", said)
    assert "the EFI stub entry passes the head by: a firmware has to give" in said
    before, after = lief.PE.parse(source), lief.PE.parse(made)
    assert before is not None
    assert after is not None
    assert before.has_signatures
    assert not after.has_signatures
    assert lief.PE.check_layout(after)[0]
    assert kernel.read(made).has_efi_stub


def test_an_efi_entry_that_cannot_be_kept_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(fine(efi_stub=True))
    made, said = build(tmp_path, tmp_path / "kernel")
    assert "the EFI stub entry is given up: its PE headers: " in said
    assert not kernel.read(made).has_efi_stub
