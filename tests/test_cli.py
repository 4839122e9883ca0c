import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from command import FAR, contents, refusal, run
from fakekernel import image

from pybuild import paths
from pybuild.cli import cli

KEPT = {"left": b"by somebody", "sub": None}  # what a folder that isn't ours has in it


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        ("none", "none: cannot be read: No such file or directory"),
        ("folder", "folder: is a directory, not a kernel; give the bzImage inside"),
        ("fifo", "fifo: is no regular file; .*"),
        ("initrd", "initrd: no Linux/x86 kernel: a text file, 6 bytes, too short .*"),
        ("random", "random: no Linux/x86 kernel: boot_flag at 0x1fe is 0x.*, expected 0xaa55; .*"),
        ("cut", "cut: cut off: .* 12288 bytes, expected 16384 by syssize; get the file again"),
        ("x" * 300, "x+: cannot be read: File name too long"),
    ],
)
@pytest.mark.parametrize("command", [("inspect",), ("inspect", "--json"), ("build", "-o", "out")])
def test_what_is_no_kernel(room: Path, command: tuple[str, ...], kernel: str, why: str) -> None:
    assert re.fullmatch(why, refusal(room, *command, kernel))
    assert not (room / "out").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--machine vax", "machine 'vax': no such profile or file; profiles are pc, xen-hvm"),
        ("--machine folder", "machine 'folder': no such profile or file; .*"),
        ("--machine broken.toml", "broken.toml: not a machine profile: .*line 1.*"),
        ("--machine odd.toml", "odd.toml: ram is 'much', expected bytes .*"),
        ("--machine fifo", "fifo: not a machine profile: .*"),
        ("--target tape", "target 'tape': unknown, expected one of bzimage, disk, iso, ram"),
        ("--target ram --gpt", "option gpt: target 'ram' has none such, only disk"),
        ("--volume-id X", "option volume-id: target 'disk' has none such, only iso"),
        ("--size many", "option size is 'many', expected bytes, as in 64M"),
        ("--size 1M", "option size is 1048576 bytes, but the disk needs at least 1548288"),
        ("--size 2000001", "option size is 2000001 bytes, expected a multiple of 512"),
        ("--floppy --gpt", "option floppy: a floppy has no gpt; leave out one of the two"),
        ("--floppy --size 3M", "option floppy: a floppy has no size; leave out one of the two"),
        (f"--cmdline {'x' * 256}", "command line: 256 characters, but good .* at most 255 .*"),
        ("--cmdline a\nb", r"command line: has '\\n' in it; a kernel reads only one line"),
        ("--cmdline a\rb", r"command line: has '\\r' in it; .*"),
        ("--cmdline vga=lots", "command line: vga=lots, expected normal, ext, ask or a number .*"),
        ("--initrd none", "none: cannot be read as an initrd: No such file or directory"),
        ("--initrd folder", "folder: cannot be read as an initrd: .*"),
        ("--initrd initrd --initrd none", "none: cannot be read as an initrd: .*"),
        ("--initrd fifo", "fifo: cannot be read as an initrd: .*"),
        ("--initrd /dev/zero", "/dev/zero: cannot be read as an initrd: .*"),
        ("--initrd huge", f"initrd: {FAR} bytes, but no free range .*; give a --machine .*"),
        ("--initrd initrd --cmdline mem=2M --initrd huge", "initrd: .* 0x100000 and 0x200000 .*"),
        ("-o folder/../good", ".*good: is what the image is built from; give another -o"),
        ("--initrd initrd -o initrd", "initrd: is what the image is built from; give another -o"),
        ("--machine odd.toml -o odd.toml", "odd.toml: is what the image is built from; .*"),
        ("--target ram -o initrd", ".*initrd: is there already and is no directory; .*"),
        ("-o folder", ".*folder: is a directory, .*; give another -o, or --target ram for a .*"),
        ("-o fifo", ".*fifo: is there already and is no regular file; give another -o"),
        ("-o initrd/out", ".*initrd/out: cannot be written: .*"),
        ("-o loop", ".*loop: .*"),
        ("--move sideways", ".*--move.*sideways.*"),
        ("--nonsense", ".*--nonsense.*"),
    ],
)
def test_what_cannot_be_built(room: Path, arguments: str, why: str) -> None:
    before = contents(room)
    words = arguments.split(" ")
    out = [] if "-o" in words else ["-o", "out"]
    assert re.fullmatch(why, refusal(room, "build", "good", *words, *out))
    assert contents(room) == before


def test_old_kernels_take_no_initrd(room: Path) -> None:
    why = refusal(room, "build", "old", "--initrd", "initrd", "-o", "out")
    assert why == "old: protocol old is too old to load a ram disk"


def test_a_hook_cannot_move_a_zimage(room: Path) -> None:
    (room / "zimage").write_bytes(image(0x203, loadflags=0))
    why = refusal(room, "build", "zimage", "--target", "ram", "--move", "hook", "-o", "out")
    assert why.startswith("zimage: cannot be moved by a hook: ")


def test_what_is_not_ours_is_not_lost(room: Path) -> None:
    ram = ("--target", "ram")
    out = room / "theirs"
    (out / "sub").mkdir(parents=True)
    (out / "left").write_bytes(b"by somebody")
    why = refusal(room, "build", "good", *ram, "-o", out)
    assert why.startswith(f"{out}: is there already and holds left, which bootsplice did ")
    assert contents(out) == KEPT
    (room / "to-theirs").symlink_to("theirs")
    assert "theirs: is there already" in refusal(room, "build", "good", *ram, "-o", "to-theirs")
    assert (room / "to-theirs").is_symlink()
    assert contents(out) == KEPT


def test_the_target_goes_by_the_output(room: Path) -> None:
    """By its suffix, unless it is named; a disk for any other suffix."""
    a_cd, a_disk = b"CD001", b"\x80"  # in sector 16 of a CD, and of an active partition
    for out, options, is_cd in (
        ("a.img", (), False),
        ("a.iso", (), True),
        ("A.ISO", (), True),
        ("a.6.1", (), False),
        ("a", (), False),
        ("b.iso", ("--target", "disk"), False),
        ("b.img", ("--target", "iso"), True),
    ):
        assert run(room, "build", "good", *options, "-o", out).returncode == 0
        image = (room / out).read_bytes()
        assert (image[0x8001:0x8006] == a_cd) == is_cd
        assert image[0x1BE:0x1BF] == a_disk
    assert run(room, "build", "good", "--target", "ram", "-o", "c.img").returncode == 0
    assert (room / "c.img/plan.json").is_file()


@pytest.mark.parametrize("option", [("--gpt",), ("--size", "9M"), ("--target", "ram")])
def test_what_does_not_go_with_into(room: Path, option: tuple[str, ...]) -> None:
    before = contents(room)
    why = refusal(room, "build", "good", "--into", "initrd", *option)
    assert f"{option[0]} does not go with --into" in why
    assert contents(room) == before


def test_what_is_ours_is_replaced_whole(room: Path) -> None:
    for kernel, line in (("good", "first"), ("good", "second"), ("old", "third")):
        options = ("--target", "ram", "--cmdline", line)
        assert run(room, "build", kernel, "-o", "out", *options).returncode == 0
        assert (room / "out/cmdline.bin").read_bytes() == line.encode() + b"\0"
    assert not (room / "out/good.bzImage").exists()
    assert {"old.bzImage", "boot.img", "plan.json", "qemu.args"} <= contents(room / "out").keys()
    (room / "empty").mkdir()
    assert run(room, "build", "good", "--target", "ram", "-o", "empty").returncode == 0


@pytest.mark.parametrize(("target", "part"), [("ram", "cmdline.bin"), ("disk", ""), ("iso", "")])
def test_a_link_stays_and_leaves_no_litter(room: Path, target: str, part: str) -> None:
    (room / "link").symlink_to("out")
    for cmdline in ("first", "second"):
        options = ("--target", target, "--cmdline", cmdline, "-o", "link")
        assert run(room, "build", "good", *options).returncode == 0  # run() looks for litter
        assert (room / "link").is_symlink()
        assert cmdline.encode() + b"\0" in (room / "out" / part).read_bytes()


@pytest.mark.parametrize("target", ["ram", "disk", "iso"])
def test_a_build_that_fails_leaves_the_older_image(room: Path, target: str) -> None:
    order = ("build", "good", "--target", target, "-o", "out")
    assert run(room, *order).returncode == 0
    before = contents(room)
    refusal(room, *order, "--initrd", "huge")
    assert contents(room) == before
    # The disk is full: no file may grow beyond some size.
    full = run(room, *order, "--initrd", "random", file_limit=100_000)
    assert full.returncode == 1
    assert re.fullmatch(r"bootsplice: .*out.*: File too large\n", full.stderr)
    assert contents(room) == before


def test_where_nothing_can_be_written(room: Path) -> None:
    for out in ("/proc/out", "/dev/null/out"):
        for target in ("ram", "disk", "iso"):
            why = refusal(room, "build", "good", "--target", target, "-o", out)
            assert why.startswith(f"{out}: cannot be written: ")


def test_same_input_same_bytes(room: Path) -> None:
    other = room / "elsewhere"
    other.mkdir()
    shutil.copy(room / "good", other / "good")
    options: tuple[str | Path, ...] = ("--initrd", room / "initrd", "--machine", "xen-hvm")
    options += ("--cmdline", "quiet", "--target", "ram")
    assert run(room, "build", "good", *options, "-o", "one").returncode == 0
    assert run(room, "build", room / "good", *options, "-o", room / "two").returncode == 0
    assert run(other, "build", other / "good", *options, "-o", "../three").returncode == 0
    one = contents(room / "one")
    assert len(one) >= 7
    assert contents(room / "two") == one
    assert contents(room / "three") == one
    modes = {path.stat().st_mode & 0o777 for path in (room / "one").iterdir()}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {0o666 & ~umask}
    assert (room / "one").stat().st_mode & 0o777 == 0o777 & ~umask


def test_notes_go_to_standard_error(room: Path) -> None:
    done = run(room, "build", "good", "--machine", "xen-hvm", "-o", "out")
    assert done.stdout == ""
    assert all(line.startswith("bootsplice: ") for line in done.stderr.splitlines())
    assert "NOT relocatable" in done.stderr
    assert "from 0x200000 to 0x100000" in done.stderr


def test_nasm_is_named_when_it_is_missing_and_needed(room: Path) -> None:
    tree = room / "tree"  # a checkout of its own, where nothing is assembled yet
    for name in ("asm", "pybuild"):
        shutil.copytree(paths.ROOT / name, tree / name)
    order = ("build", room / "good", "-o", "out")
    nothing = str(room / "folder")
    why = refusal(tree, *order, status=1, path=nothing)
    assert why.startswith("nasm is not installed; ")
    assert "apt-get install nasm" in why
    assert not (tree / "out").exists()
    assert run(tree, *order).returncode == 0
    assert run(tree, *order, path=nothing).returncode == 0  # all is assembled


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--version"], r"bootsplice, version \d+\.\d+\.\d+"),
        (["-h"], r"(?s).*\bboot\b.*\bbuild\b.*\binspect\b.*"),
        (["build", "--help"], r"(?s).*--initrd.*--cmdline.*--machine.*--move.*--target.*"),
        (["build", "--help"], r"(?s).*--gpt +A GUID [^-]*\(disk\)\s+--size BYTES .*--floppy.*"),
        (["build", "--help"], r"(?s).*--volume-id TEXT[^-]*\(iso\).*"),
        (["build", "--help"], r"(?s).*\n  bootsplice build bzImage .* -o disk.img\n  bootspl.*"),
        (["boot", "-h"], r"(?s).*--expect.*--timeout.*--screenshot.*"),
    ],
)
def test_help(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(cli, arguments, prog_name="bootsplice")
    assert result.exit_code == 0
    assert re.match(expected, result.output)


def test_the_installed_command(room: Path) -> None:
    command = [str(Path(sys.executable).parent / "bootsplice"), "inspect", str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"bootsplice: {room}: is a directory, not a kernel; give the bzImage inside\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["boot", "nonsense"], 2, "bootsplice: image 'nonsense': unknown, expected one of "),
        (["build"], 0, ""),
    ],
)
def test_tasks_fail_with_a_line_too(arguments: list[str], status: int, line: str) -> None:
    command = [sys.executable, "-m", "invoke", *arguments]
    done = subprocess.run(
        command, cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") <= 1


def test_a_name_gives_a_terminal_no_orders(room: Path) -> None:
    assert refusal(room, "inspect", "no\x1b[2Jsuch") == (
        "no\\x1b[2Jsuch: cannot be read: No such file or directory"
    )
