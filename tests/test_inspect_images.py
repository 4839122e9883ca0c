"""`inspect` of images: what it shows is what the plan says, for every target and option."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from archive import real_kernel
from command import run
from disks import dump
from inspected import CMDLINE, INTO, RECIPES, Made, inspected, maker

from pybuild import build, imagereport, kernel, loader, lowmemory, splice
from pybuild.build import Order
from pybuild.plan import Plan
from pybuild.reading.found import Image

KEYS = [
    *("file", "size", "kind", "recognised", "damage", "parts", "cmdline", "kernel", "changes"),
    *("partitions", "saved", "files", "arguments", "facts"),
]
Make = Callable[[str], Made]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return maker(tmp_path_factory.mktemp("inspected"))


def symbols(image: Image) -> dict[str, dict[str, int]]:
    """What each source is bound to, all of which is this version's."""
    found: dict[str, dict[str, int]] = {}
    for part in image.parts:
        for code in part.code:
            assert code.symbols is not None, code.source
            found[code.source] = dict(code.symbols)
    return found


def planned(plan: Plan) -> dict[str, dict[str, int]]:
    """The same by the plan, of what is not the loader's."""
    found = {splice.BOOT_SECTOR: dict(splice.boot_sector_symbols(plan))}
    early = plan.load("early")
    for move in plan.moves:
        returns_to = move.code32_start
        if early:
            returns_to = early.address + build.code()[splice.EARLY].symbols["moved"]
            found[splice.EARLY] = {"relocator": move.relocator, "setup_cs": plan.entry.cs}
        found[splice.RELOCATOR] = dict(splice.relocator_symbols(move, returns_to))
    return found


@pytest.mark.parametrize("name", [*RECIPES, *INTO])
def test_what_is_shown_is_what_was_planned(make: Make, name: str) -> None:
    made = make(name)
    image = inspected(made.path)
    assert imagereport.damage(image) == []
    assert not image.is_damaged
    found = symbols(image)
    of_loader = {source: found.pop(source, {}) for source in (loader.BOOT_SECTOR, loader.LOADER)}
    assert found == planned(made.plan)
    assert image.cmdline == CMDLINE
    for load in made.plan.loads:
        parts = [part for part in image.parts if part.name == load.part]
        assert (parts[0].address, sum(part.size for part in parts)) == (load.address, load.size)
    assert image.kernel is not None
    for change in image.changes:
        assert image.kernel[change.field] == change.new
    filled_in = {
        patch.field: patch.new
        for patch in made.plan.patches
        if patch.new and image.kernel.field(patch.field).access == "write"
    }
    assert {change.field: change.new for change in image.changes}.items() >= filled_in.items()
    if image.kind == "ram":
        assert not any(of_loader.values())
        assert list(image.arguments) == (made.path / "qemu.args").read_text().splitlines()
        return
    bounce = made.plan.bounce
    assert bounce is not None
    assert of_loader[loader.LOADER]["bounce"] == bounce.start
    read = [part for part in image.parts if part.sum is not None]
    assert all(part.sum and part.sum.holds for part in read)
    assert {part.name for part in read} == {"loader", *(load.part for load in made.plan.loads)}
    assert [part.name for part in image.parts if part.offset is None] == [
        entry.name for entry in loader.memory(made.plan)
    ]


@pytest.mark.parametrize("name", ["mbr", "gpt", *INTO])
def test_partitions_are_those_that_sfdisk_sees(make: Make, name: str) -> None:
    made = make(name)
    table = inspected(made.path).table
    assert table is not None
    shown = [
        f"start={each.start:>12}, size={each.sectors:>12}, type={each.type}"
        for each in table.partitions
    ]
    said = dump(made.path)
    assert all(line in said for line in shown), said
    assert said.count("start=") == len(shown)


def test_a_relocator_that_was_a_hook_tells_what_code32_start_was(make: Make) -> None:
    made = make("mbr")
    (change,) = (c for c in inspected(made.path).changes if c.field == "code32_start")
    (patch,) = (p for p in made.plan.patches if p.field == "code32_start")
    assert (change.old, change.new) == (patch.old, patch.new)


@pytest.mark.parametrize("name", INTO)
def test_what_into_saved(make: Make, name: str) -> None:
    made = make(name)
    record = inspected(made.path).record
    assert record is not None
    room = INTO[name][2]
    assert room.start <= record.own.start < record.own.end <= room.end


def test_the_files_of_an_iso(make: Make) -> None:
    made = make("iso")
    image = inspected(made.path)
    files = {file.path: file for file in image.files}
    data = made.path.read_bytes()
    for path in ("/initrd", "/more"):
        file = files[path]
        original = (made.path.parent / path[1:]).read_bytes()
        assert data[file.offset : file.offset + file.size] == original
    ours = {path for path in files if path.startswith("/bootsplice/")}
    names = ("boot.cat", "cmdline.txt", "loader.bin", "plan.json")
    assert ours == {f"/bootsplice/{name}" for name in names}
    catalog = files["/bootsplice/boot.cat"].offset
    (lba,) = struct.unpack_from("<I", data, catalog + 0x28)
    assert image.facts["el_torito_offset"] == lba * 2048
    assert image.facts["el_torito_sectors"] == 4
    olds = {p.field: (p.old, p.new) for p in made.plan.patches}
    assert {c.field: (c.old, c.new) for c in image.changes} == olds


@pytest.mark.parametrize("arch", ["ia32", "x64"])
def test_memtest_on_a_disk_and_with_a_head(tmp_path: Path, arch: str) -> None:
    path = real_kernel("memtest86+", f"boot/memtest86+{arch}.bin")
    original = kernel.read(path)
    plan = build.build(Order(path, cmdline=CMDLINE, machine="xen-hvm"), tmp_path / "m.img")
    image = inspected(tmp_path / "m.img")
    assert symbols(image).items() >= planned(plan).items()
    assert image.kernel is not None
    assert image.kernel.version_string == original.version_string == "Memtest86+ v6.10"
    build.build(Order(path, cmdline=CMDLINE, target="bzimage"), tmp_path / "m.bzImage")
    image = inspected(tmp_path / "m.bzImage")
    assert image.kernel is not None
    assert image.kernel.data == original.data


def test_the_command(make: Make, tmp_path: Path) -> None:
    for name in ("mbr", "iso", "ram"):
        made = make(name)
        done = run(tmp_path, "inspect", made.path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == imagereport.text(inspected(made.path)) + "\n"
        done = run(tmp_path, "inspect", made.path, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        shown = json.loads(done.stdout)
        assert list(shown) == KEYS
        assert shown == imagereport.describe(inspected(made.path))


def test_the_text(make: Make) -> None:
    made = make("mbr")
    text = imagereport.text(inspected(made.path))
    summary, parts, bound, header = text.split("\n\n")
    assert summary.splitlines()[1] == "image      disk: sector 0 is a boot sector of bootsplice's"
    assert "state      whole: 6 checksums hold" in summary
    assert f"cmdline    {CMDLINE}" in summary
    move = made.plan.moves[0]
    assert (
        f"i386/relocator     src={move.src:#x} dst={move.dst:#x} len={move.len:#x} "
        f"code32_start={move.code32_start:#x}" in bound
    )
    assert all(len(line) <= 80 for line in bound.splitlines())
    assert parts.count(" ok ") == 6
    assert f"{lowmemory.BOOT_SECTOR.address:#x}" in parts
    assert f"code32_start           {move.code32_start:<#18x} {move.relocator:#x}" in header
