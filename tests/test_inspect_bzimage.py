"""`inspect` of kernel images for other loaders: what is in front of the kernel, or behind it."""

import json
from pathlib import Path

import pytest
from command import run
from fakekernel import image, probe
from hypothesis import given, settings
from hypothesis import strategies as st
from inspected import flipped, inspected

from pybuild import build, headplan, headsplice, imagereport, kernel, splice
from pybuild.build import Order
from pybuild.errors import BootspliceError
from pybuild.kernel import Kernel
from pybuild.reading import recognise
from pybuild.reading.found import Image

CMDLINE = "built in"


def with_head(
    folder: Path, source: Path, *, cmdline: str = CMDLINE, initrd: bytes = b"initrd" * 999
) -> Path:
    (folder / "initrd").write_bytes(initrd)
    initrds = (folder / "initrd",) if initrd else ()
    out = folder / "out.bzImage"
    build.build(Order(source, initrds, cmdline, target="bzimage"), out)
    return out


def with_crc(folder: Path) -> Path:
    """A kernel that has a CRC-32 at its end, as Linux had (boot.rst, 2.08)."""
    data = image(text="crc 1.0", protected=0x3000, xloadflags=1)
    data = data[: -headplan.CRC_SIZE]
    path = folder / "crc"
    path.write_bytes(data + headsplice.crc(data).to_bytes(4, "little"))
    assert headsplice.crc_holds(kernel.read(path))
    return path


def symbols(found: Image, source: str) -> dict[str, int]:
    (code,) = (code for part in found.parts for code in part.code if code.source == source)
    assert code.symbols is not None
    return dict(code.symbols)


def damage(path: Path) -> list[str]:
    return imagereport.damage(inspected(path))


@pytest.mark.parametrize("name", ["2.10", "relocatable"])
def test_a_head_and_what_it_carries(tmp_path: Path, name: str) -> None:
    source = probe(name, tmp_path)
    path = with_head(tmp_path, source)
    found, made, original = inspected(path), kernel.read(path), kernel.read(source)
    assert (found.kind, found.cmdline, imagereport.damage(found)) == ("bzimage", CMDLINE, [])
    binaries = build.code()
    order = Order(source, (tmp_path / "initrd",), CMDLINE, target="bzimage")
    plan = headplan.place(
        headsplice.raised(original),
        headplan.Request(
            cmdline=CMDLINE,
            replace=False,
            initrd_size=(tmp_path / "initrd").stat().st_size,
            code_size=headsplice.code_size(binaries),
            relocator_size=headsplice.relocator_size(binaries),
            has_crc=False,
            move=order.move,
        ),
    )
    same = {
        "image_size", "len", "dst", "run", "init_size", "entry32", "work_size", "work_cmdline",
        "cmdline_room", "initrd_size", "initrd_addr_max",
    }  # fmt: skip
    for source_name in (splice.HEAD_32, splice.HEAD_64):
        bound = symbols(found, source_name)
        assert {key: bound[key] for key in same} == {key: getattr(plan, key) for key in same}
        assert bound["follows"] == plan.follows
    assert symbols(found, splice.RELOCATOR) == {"len": plan.len}
    assert symbols(found, splice.RELOCATOR_64)["tables_size"] == plan.tables_size
    parts = {part.name: part for part in found.parts}
    for part, content in (
        ("kernel", original.protected),
        ("initrd", (tmp_path / "initrd").read_bytes()),
        ("cmdline", CMDLINE.encode()),
    ):
        offset = parts[part].offset
        assert offset is not None
        assert made.data[offset : offset + parts[part].size] == content
    assert found.kernel is not None
    assert found.kernel.data == original.data
    assert {change.field for change in found.changes} == {patch.field for patch in plan.patches}
    for change in found.changes:
        assert (change.old, change.new) == (original[change.field], made[change.field])


def test_a_crc_holds_or_does_not(tmp_path: Path) -> None:
    path = with_head(tmp_path, with_crc(tmp_path))
    found = inspected(path)
    (part,) = (part for part in found.parts if part.sum)
    assert (part.name, part.size) == ("image", path.stat().st_size)
    assert part.sum is not None
    assert part.sum.method == "CRC-32"
    assert imagereport.damage(found) == []
    for each in found.parts:
        assert each.offset is not None
        wrong = damage(flipped(path, each.offset + each.size - 1, tmp_path / "wrong"))
        assert any(line.startswith("image: CRC-32 is 0x") for line in wrong), each
    done = run(tmp_path, "inspect", flipped(path, path.stat().st_size - 9, tmp_path / "wrong"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"bootsplice: {tmp_path}/wrong: damaged: image: CRC-32 is 0x")


def test_damaged_code_of_a_head(tmp_path: Path) -> None:
    source = probe("2.10", tmp_path)
    path = with_head(tmp_path, source, cmdline="", initrd=b"")
    found = inspected(path)
    assert (found.cmdline, [part.name for part in found.parts]) == (
        None,
        ["setup", "head", "kernel"],
    )
    start = kernel.read(source).setup_size
    for name, at in headsplice.code_places(build.code()).items():
        wrong = damage(flipped(path, start + at, tmp_path / "wrong"))
        assert wrong[0] == f"head: not the code of {name} that goes with the rest"


def test_a_head_of_another_version(tmp_path: Path) -> None:
    path = with_head(tmp_path, probe("2.10", tmp_path))
    data = bytearray(path.read_bytes())
    for at in headsplice.code_places(build.code()).values():
        data[kernel.parse("k", bytes(data)).setup_size + at] ^= 1
    path.write_bytes(data)
    found = inspected(path)
    assert imagereport.damage(found) == []
    assert imagereport.text(found).count("not this version's code") == 4


@pytest.mark.parametrize("name", ["2.10", "2.00"])
def test_the_plain_form(tmp_path: Path, name: str) -> None:
    source = probe(name, tmp_path)
    order = Order(source, target="bzimage", options={"load-addr": 0x200000})
    plan = build.build(order, tmp_path / "plain.bzImage")
    found = inspected(tmp_path / "plain.bzImage")
    (move,) = plan.moves
    assert symbols(found, splice.RELOCATOR) == splice.relocator_symbols(move, move.code32_start)
    assert {part.name: part.address for part in found.parts} == {
        "setup": None,
        "kernel": move.src,
        "relocator": move.relocator,
    }
    assert found.facts == {"load_address": 0x200000}
    (change,) = found.changes
    assert (change.old, change.new) == (move.code32_start, move.relocator)
    wrong = flipped(tmp_path / "plain.bzImage", 0x215, tmp_path / "wrong")
    assert damage(wrong)[0].startswith("setup: code32_start is 0x")


def test_what_is_no_image_of_ours_stays_a_kernel(tmp_path: Path) -> None:
    text = b"bootsplice: the loader's boot_params"
    for data in (image(code32_start=0x123456), image()[:-0x100] + text + bytes(0x100 - len(text))):
        (tmp_path / "k").write_bytes(data)
        assert run(tmp_path, "inspect", "k").returncode == 0
    (tmp_path / "k").write_bytes(image(code32_start=0x123456))
    done = run(tmp_path, "inspect", "k", "--json")
    assert json.loads(done.stdout)["fields"]["code32_start"]["value"] == 0x123456


@settings(max_examples=80)
@given(data=st.data())
def test_no_damage_is_a_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "out.bzImage"
    if not path.exists():
        with_head(folder, with_crc(folder))
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, 0x2800), max_size=5)):
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    (folder / "mutated").write_bytes(content)
    try:
        found = recognise.read(folder / "mutated")
    except BootspliceError:
        return
    if not isinstance(found, Kernel):
        assert imagereport.text(found)
        assert imagereport.describe(found)
