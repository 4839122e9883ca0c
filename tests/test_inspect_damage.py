"""`inspect` of damaged images: each fault is found and named, and none is a crash."""

import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import refusal, run
from disks import make as make_disk
from disks import patch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspected import Made, flipped, inspected, maker
from intodisk import GRUB, LAYOUTS

from pybuild import build, imagereport, loader, splice
from pybuild.errors import BootspliceError
from pybuild.flat import FlatBinary
from pybuild.reading import recognise
from pybuild.reading.found import Image

Make = Callable[[str], Made]
SECTOR = 512


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return maker(tmp_path_factory.mktemp("damaged"))


def damage(path: Path) -> list[str]:
    return imagereport.damage(inspected(path))


@pytest.mark.parametrize("name", ["mbr", "gpt", "floppy", "early", "iso", "into-mbr-gap"])
def test_a_flipped_byte_of_any_part(make: Make, name: str, tmp_path: Path) -> None:
    made = make(name)
    for part in inspected(made.path).parts:
        if part.offset is None or part.sum is None:
            continue
        for at in {0, part.size - 1} if name == "mbr" else {part.size // 2}:
            wrong = inspected(flipped(made.path, part.offset + at, tmp_path / "flipped"))
            assert wrong.is_damaged
            said = next(
                line for line in imagereport.damage(wrong) if line.startswith(f"{part.name}:")
            )
            if part.name == "loader":
                assert f"expected {part.sum.stored:#010x}" in said or "no load table" in said
            else:
                assert re.search(rf" is 0x[0-9a-f]{{8}}, expected {part.sum.stored:#010x}", said)
            broken = [each.name for each in wrong.parts if each.is_damaged]
            assert broken == [part.name] or part.name == "loader"


@pytest.mark.parametrize(
    ("name", "sector", "offset", "what"),
    [
        ("mbr", 0, 0x60, "boot sector: not the code of real/diskboot that goes with the rest"),
        ("mbr", 0, 9, "loader: it would end at 0x302600, and the image at 0x17a000"),
        ("mbr", 0, 16, "loader: sum is 0x.*, expected 0x"),
        ("mbr", 0, 22, "boot sector: sector_shift is 25, expected 9 or 11"),
        ("mbr", 0, 0x1BE, "no partition table: entry 1 in sector 0 has a boot indicator of 0x90"),
        ("gpt", 1, 0x18, "GPT, header at sector 1: the header's checksum is wrong"),
        ("gpt", -1, 0, "GPT's backup, header at sector 5039: no header"),
        ("into-mbr-gap", 1, 0x20, "the saved boot sector: sector 1 holds no record, or a damaged"),
        ("iso", 0, 5, "no boot sector of bootsplice's at 0x0"),
        ("iso", 17 * 4, 1, "El Torito: no boot record in sector 17"),
        ("iso", 64, 0, "the file system cannot be read: "),
    ],
)
def test_what_no_checksum_of_ours_covers(
    make: Make, name: str, sector: int, offset: int, what: str, tmp_path: Path
) -> None:
    made = make(name)
    at = sector * SECTOR % made.path.stat().st_size + offset
    found = damage(flipped(made.path, at, tmp_path / "flipped"))
    assert any(re.match(what, line) for line in found), found


@pytest.mark.parametrize(
    ("file", "offset", "what"),
    [
        ("cmdline.txt", 0, "cmdline.txt: not the command line that the kernel gets"),
        ("plan.json", 0, "plan.json: not as bootsplice writes it: "),
        ("boot.cat", 4, "El Torito: the catalog's checksum is wrong"),
        ("boot.cat", 0x26, "El Torito: the entry has 0x88, media 0, 20 sectors from .*, expected"),
        ("loader.bin", 0x60, "CD boot sector: not the code of real/diskboot"),
        ("loader.bin", 16, "the two boot sectors lead to different loaders"),
        ("2.10", 0x2F0, "/.*: not the real-mode part that is booted"),
    ],
)
def test_a_damaged_file_on_a_cd(
    make: Make, file: str, offset: int, what: str, tmp_path: Path
) -> None:
    made = make("iso")
    name = made.plan.kernel if file == "2.10" else file
    (found,) = (f for f in inspected(made.path).files if f.path.endswith(name))
    wrong = damage(flipped(made.path, found.offset + offset, tmp_path / "flipped"))
    assert any(re.match(what, line) for line in wrong), wrong


def test_a_cd_that_is_cut_off(make: Make, tmp_path: Path) -> None:
    """Its files are not said to be damaged, nor to be shorter than nothing."""
    made = make("iso")
    size = made.path.stat().st_size
    (plan,) = (f for f in inspected(made.path).files if f.path.endswith("plan.json"))
    for left in (plan.offset, plan.offset - 4096, size - 2048):
        (tmp_path / "cut").write_bytes(made.path.read_bytes()[:left])
        found = damage(tmp_path / "cut")
        assert found[0] == f"cut off: the file system has {size} bytes, and the image {left}"
        assert not any("txt" in line for line in found)


@pytest.mark.parametrize(
    ("name", "file", "what"),
    [
        ("ram", "boot.img", "boot sector: real/bootsect has gpr_ebx 0x1000, expected 0x0 by plan"),
        ("ram", "setup.bin", r"setup\.bin: not what .*\.bzImage has"),
        ("ram", "kernel.bin", r"kernel\.bin: not what .*\.bzImage has"),
        ("ram", "qemu.args", r"qemu\.args: not what plan\.json asks for"),
        ("ram-early", "early.bin", "early: not the code of real/early that goes with the rest"),
    ],
)
def test_a_damaged_file_in_a_folder(
    make: Make, name: str, file: str, what: str, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(make(name).path, folder)
    flipped(make(name).path / file, 5 if file == "qemu.args" else 0x30, folder / file)
    assert re.match(what, damage(folder)[0])
    (folder / file).unlink()
    assert any(f"{file}: No such file" in line for line in damage(folder))
    (folder / "plan.json").write_text("[]")
    with pytest.raises(BootspliceError, match=r"plan\.json: is not as bootsplice wrote it"):
        recognise.read(folder)


def test_what_the_plan_says_otherwise(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(make("ram").path, folder)
    plan = make("ram").plan
    move = dataclasses.replace(plan.moves[0], dst=plan.moves[0].dst + 0x1000)
    loads = tuple(dataclasses.replace(load, size=load.size + 1) for load in plan.loads)
    other = dataclasses.replace(plan, moves=(move,), loads=loads)
    (folder / "plan.json").write_text(other.to_json())
    found = damage(folder)
    assert f"kernel: i386/relocator has dst 0x100000, expected {move.dst:#x} by plan.json" in found
    size = (folder / "initrd.bin").stat().st_size
    assert f"initrd: {size} bytes, expected {size + 1} by plan.json" in found


def test_a_folder_with_something_else_in_it(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(make("ram").path, folder)
    (folder / "gone").symlink_to("nowhere")
    (folder / "sub").mkdir()
    assert damage(folder) == []


def test_a_fifo_for_a_part_is_not_waited_for(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(make("ram").path, folder)
    (folder / "cmdline.bin").unlink()
    os.mkfifo(folder / "cmdline.bin")
    assert "cmdline.bin: is no regular file" in damage(folder)


def test_no_plan_gives_a_terminal_orders(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(make("ram").path, folder)
    plan = make("ram").plan
    orders = "\x1b[2J\x9b\0"
    loads = (*plan.loads, dataclasses.replace(plan.loads[0], part=orders))
    other = dataclasses.replace(plan, kernel=orders, loads=loads)
    (folder / "plan.json").write_text(other.to_json())
    done = run(tmp_path, "inspect", "copy")
    assert done.returncode == 1
    assert not set(done.stdout + done.stderr) & set(orders[:1] + orders[-2:])
    assert "\\x1b[2J\\x9b\\x00" in done.stdout


def test_the_command_shows_all_and_fails(make: Make, tmp_path: Path) -> None:
    made = make("mbr")
    (part,) = (part for part in inspected(made.path).parts if part.name == "kernel")
    assert part.offset is not None
    path = flipped(made.path, part.offset + 9, tmp_path / "wrong.img")
    done = run(tmp_path, "inspect", "wrong.img")
    assert done.returncode == 1
    assert "\nstate      DAMAGED, see below\n" in done.stdout
    rows = {line.split()[-1]: line for line in done.stdout.split("\n\n")[1].splitlines()}
    assert rows["kernel"].endswith(" DAMAGED kernel")
    assert {line.rindex(" ") for line in rows.values() if "sector" not in line} == {
        rows["part"].rindex(" ")
    }
    assert not any("DAMAGED" in rows[name] for name in rows if name != "kernel")
    line = imagereport.damage(inspected(path))[0]
    assert done.stdout.splitlines()[-1] == f"DAMAGED: {line}"
    assert done.stderr == f"bootsplice: wrong.img: damaged: {line}\n"


@pytest.mark.parametrize("name", ["mbr", "iso"])
def test_an_image_of_another_version(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sums hold all the same, and that is no damage."""
    code = build.code()

    def other(source: str) -> FlatBinary:
        changed = bytearray(code[source].code)
        changed[0] ^= 1
        more = bytes(40) if len(changed) != SECTOR else b""
        return dataclasses.replace(code[source], code=bytes(changed) + more)

    names = (loader.LOADER, loader.BOOT_SECTOR, splice.RELOCATOR, splice.BOOT_SECTOR)
    changed = {source: other(source) for source in names}
    with monkeypatch.context() as patched:
        patched.setattr(build, "code", lambda *_: {**code, **changed})
        made = maker(tmp_path)(name)
    image = inspected(made.path)
    assert imagereport.damage(image) == []
    codes = [code for part in image.parts for code in part.code]
    assert {code.source for code in codes} == changed.keys()
    assert all(code.symbols is None for code in codes)
    text = imagereport.text(image)
    assert text.count("not this version's code: its symbols cannot be read") == len(codes)
    assert "checksums hold" in text


def test_a_disk_that_boots_something_else(tmp_path: Path) -> None:
    make_disk(tmp_path / "grub.img", LAYOUTS["mbr"], {34: 1})
    patch(tmp_path / "grub.img", 0, 0, GRUB)
    line = refusal(tmp_path, "inspect", "grub.img")
    assert line.startswith("grub.img: no Linux/x86 kernel: ")
    assert line.endswith("; it boots GRUB's core.img in sector 34")


@functools.cache
def places(path: Path) -> list[tuple[int, int]]:
    return [(p.offset, p.size) for p in inspected(path).parts if p.offset is not None]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["mbr", "gpt", "iso"])
def test_no_damage_is_a_crash(make: Make, name: str, tmp_path: Path, data: st.DataObject) -> None:
    made = make(name)
    path = tmp_path / "mutated"
    size = made.path.stat().st_size
    content = bytearray(made.path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, size)) :]
    hot = [(0, SECTOR), (SECTOR, SECTOR), (0x8000, 0x9000)]
    hot += places(made.path)
    for start, length in data.draw(st.lists(st.sampled_from(hot), max_size=4)):
        for at in data.draw(st.lists(st.integers(start, start + length - 1), max_size=6)):
            if at < len(content):
                content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = recognise.read(path)
    except BootspliceError:
        return
    if isinstance(found, Image):
        assert imagereport.text(found)
        assert imagereport.describe(found)


def test_a_large_disk_is_not_read(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "large.img"
    shutil.copy(make("mbr").path, path)
    with path.open("r+b") as stream:
        stream.truncate(4 << 30)

    def read_so_far() -> int:
        match = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
        assert match
        return int(match[1])

    build.code()
    before = read_so_far()
    assert damage(path) == []
    assert read_so_far() - before < 2 << 20
