"""`bootsplice plan`, on real kernels: it says what `build` does."""

import json
import re
from pathlib import Path
from typing import Any, Final

import drawn
import probes
import pytest
from booting import named, parts
from command import refusal, run
from test_picture import WIDTH, check_svg, check_text

from pybuild import build, kernel, paths
from pybuild.build import Order
from pybuild.drawing import sheet
from pybuild.drawing.sheet import Sheet
from pybuild.errors import InputError
from pybuild.material import Workshop
from pybuild.plan import Patch
from pybuild.targets.ram import PLAN

PICTURE: Final = paths.ROOT / "docs" / "move.svg"


@pytest.fixture(scope="module")
def memtest(shop: Workshop) -> Path:
    return parts(named("memtest86+x64"), shop)[0]


def told(order: Order) -> Sheet:
    return sheet.of(build.prepare(order), order.target)


def data(told: Sheet) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(told.to_json())
    return loaded


@pytest.mark.parametrize("each", probes.PROBES, ids=lambda each: each.name)
@pytest.mark.parametrize("machine", ["pc", "xen-hvm"])
def test_it_is_what_build_does(each: Any, machine: str, tmp_path: Path, shop: Workshop) -> None:
    image, *initrds = parts(each, shop)
    order = Order(image, tuple(initrds), each.cmdline, machine, "ram")
    build.build(order, tmp_path / "out")
    found = told(order)
    assert data(found)["plan"] == json.loads((tmp_path / "out" / PLAN).read_text())
    check_svg(found)
    check_text(found)
    written = kernel.read(next((tmp_path / "out").glob("*.bzImage")))
    for patch in found.patches:
        if not patch.of_loader:
            assert written[patch.field] == patch.new


@pytest.mark.parametrize("target", ["disk", "iso", "ram"])
def test_memtest_under_xen(target: str, memtest: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "plan", memtest, "--machine", "xen-hvm", "--target", target)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "memtest86+x64.bin on xen-hvm: kernel moved from 0x200000 to 0x100000"
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in done.stdout
    (goal,) = [line for line in lines if line.startswith("0x00100000")]
    shown = "0x00100000 ░ hvmloader █ kernel goes here ◄┐ █ kernel runs"
    assert " ".join(goal.split()) == shown
    (source,) = [line for line in lines if line.startswith("0x00200000")]
    assert "█ kernel " in source
    assert "▒ kernel as loaded ─┘" in source
    assert ("disk loader" in done.stdout) is (target != "ram")
    size = kernel.read(memtest).protected_size
    assert f"  src=0x200000  dst=0x100000  len={size:#x}" in lines
    assert any(line.startswith("code32_start") and "0x100000" in line for line in lines)
    assert "  eax=ecx=edx=ebx=ebp=esi=edi=0x0  " in done.stdout
    assert "  cs=0x10  ds=es=fs=gs=ss=0x18  df=if=0x0  unchanged: esp" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_json(memtest: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "plan", memtest, "--machine", "xen-hvm", "--json", "--cmdline", "a b")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert list(found) == [
        *("kernel", "target", "machine", "summary", "reason", "parts", "taken", "moves", "patches"),
        *("entry_is", "entry", "kernel_entry", "notes", "plan", "head", "phases"),
    ]
    size = kernel.read(memtest).protected_size
    (move,) = found["moves"]
    assert (move["src"], move["dst"], move["len"]) == (0x200000, 0x100000, size)
    (moved,) = [part for part in found["parts"] if part["name"] == "kernel"]
    assert (moved["loaded_at"], moved["runs_at"], moved["size"]) == (0x200000, 0x100000, size)
    assert "hvmloader" in moved["why"]
    assert "loadflags bit 0" in moved["why"]
    assert [phase["when"] for phase in found["phases"]] == [
        "while loading",
        "while moving",
        "when the kernel runs",
    ]
    (firmware,) = [taken for taken in found["taken"] if taken["name"] == "hvmloader"]
    assert firmware == {
        "name": "hvmloader",
        "start": 0x100000,
        "end": 0x200000,
        "when": ["while loading"],
    }
    assert {name: found["entry"][name] for name in ("cs", "ip", "ds", "ss", "esp", "eax")} == {
        "cs": 0x1020,
        "ip": 0,
        "ds": 0x1000,
        "ss": 0x1000,
        "esp": 0xFFF0,
        "eax": 0,
    }
    assert found["kernel_entry"] == {
        "eip": 0x100000,
        "ebx": 0,
        "cs": 0x10,
        "df": 0,
        "if": 0,
        **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), 0x18),
        **dict.fromkeys(("esp", "ebp", "esi", "edi"), "as it was"),
    }
    patches = {patch["field"]: patch for patch in found["patches"]}
    assert (patches["code32_start"]["old"], patches["code32_start"]["new"]) == (
        0x100000,
        move["relocator"],
    )
    assert all(patch["why"] for patch in found["patches"])


def check_image(found: Sheet, order: Order) -> None:
    """The fields that change are those of the image that is built."""
    (image,) = [build.prepare(order).parts.image]
    before, after = kernel.read(order.kernel), kernel.parse("image", image)
    changed = {
        field.name: (before[field.name], after[field.name])
        for field in before.fields
        if field.name != "version" and before[field.name] != after[field.name]
    }
    assert changed == {patch.field: _values(patch) for patch in found.patches}


def _values(patch: Patch) -> tuple[int, int]:
    return patch.old, patch.new


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--floppy",), "option floppy: the image needs "),
        (("--floppy", "--gpt"), "option floppy: a floppy has no gpt"),
        (("--size", "1M"), "option size is 1048576 bytes, but the disk needs at least "),
        (("--size", "100000001"), "option size is 100000001 bytes, expected a multiple of 512"),
        (("--target", "iso", "--volume-id", "a b"), "option volume-id is 'a b', expected "),
        (("--target", "iso", *("--initrd", "initrd") * 300), "308 parts (initrds among them) are"),
    ],
)
def test_what_build_refuses_to_write(room: Path, options: tuple[str, ...], why: str) -> None:
    (room / "large").write_bytes(bytes(2 << 20))
    order = ("good", "--initrd", "large", *options)
    refused = refusal(room, "plan", *order)
    assert refused.startswith(why)
    assert refusal(room, "build", *order, "-o", "out") == refused


@pytest.mark.parametrize(
    ("machine", "at", "overlap"), [("pc", 0x100000, True), ("xen-hvm", 0x200000, False)]
)
def test_an_image_that_moves_itself(memtest: Path, machine: str, at: int, overlap: bool) -> None:
    order = Order(memtest, machine=machine, target="bzimage")
    found = told(order)
    assert found.entry == {"32-bit": at, "64-bit": at + 0x200}
    (move,) = found.moves
    assert move["dst"] == 0x100000
    assert any(row.lanes == 2 for row in found.picture.columns[1].rows) is overlap
    check_svg(found)
    check_text(found)
    check_image(found, order)
    assert data(found)["plan"] is None
    assert data(found)["head"]["len"] == move["len"]
    assert not any("is loaded at" in note for note in found.notes)  # its loader says where


def test_an_image_whose_initrd_is_moved(memtest: Path, tmp_path: Path) -> None:
    """memtest86+ needs more memory than it has bytes, and the initrd is right behind it."""
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(100_000))
    order = Order(memtest, (initrd,), "a b", target="bzimage")
    found = told(order)
    assert [move["what"] for move in found.moves] == ["kernel", "initrd"]
    check_svg(found)
    check_text(found)


def test_an_image_that_has_no_room(memtest: Path, tmp_path: Path) -> None:
    """Its loader would have nowhere to put it; where it does have room is up to the machine."""
    profile = tmp_path / "small.toml"
    text = 'base = "pc"\nram = 0x400000\n[[busy_while_loading]]\nname = "rom"\nstart = 0x100000\n'
    profile.write_text(f"{text}end = 0x320000\n")
    found = told(Order(memtest, machine=str(profile), target="bzimage"))
    assert found.entry["32-bit"] == 0x320000
    profile.write_text(f"{text}end = 0x350000\n")
    with pytest.raises(InputError, match="machine 'small': no room for an image of memtest86"):
        told(Order(memtest, machine=str(profile), target="bzimage"))


def test_the_plain_form_has_nothing_of_the_loader(memtest: Path) -> None:
    order = Order(memtest, target="bzimage", options={"load-addr": "0x300000"})
    found = told(order)
    assert [part.name for part in found.parts] == [
        "kernel",
        "relocator",
        "kernel at run time (init_size)",
    ]
    assert {patch.field for patch in found.patches} == {"code32_start", "syssize"}
    assert not data(found)["plan"].keys() & {"loads", "patches", "entry", "stack", "bounce"}
    check_svg(found)
    check_text(found)
    check_image(found, order)


def test_a_kernel_that_is_not_moved_has_fewer_columns(shop: Workshop) -> None:
    image = parts(named("probe-relocatable"), shop)[0]
    found = told(Order(image))
    assert [column.when for column in found.picture.columns] == [
        "while loading",
        "when the kernel runs",
    ]
    assert (found.moves, found.summary) == ((), "kernel loaded at 0x100000, not moved")
    check_svg(found)
    check_text(found)


@pytest.mark.parametrize(
    "arguments",
    [
        ("none",),
        ("random",),
        ("good", "--machine", "odd.toml"),
        ("good", "--initrd", "huge"),
        ("good", "--target", "bzimage", "--load-addr", "1"),
        ("good", "--gpt", "--target", "ram"),
    ],
)
def test_errors_are_those_of_build(room: Path, arguments: tuple[str, ...]) -> None:
    assert refusal(room, "plan", *arguments) == refusal(room, "build", *arguments, "-o", "out")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder", "Invalid value for '--svg': File 'folder' is a directory. .*"),
        ("fifo", ".*/fifo: is there already and is no regular file; give another --svg"),
        ("good/x", ".*/good/x: cannot be written: .*; give another --svg"),
    ],
)
def test_a_picture_that_cannot_be_written(room: Path, name: str, why: str) -> None:
    assert re.fullmatch(why, refusal(room, "plan", "good", "--svg", name))


@pytest.mark.parametrize("name", ["good", "initrd", "odd.toml"])
def test_a_picture_does_not_replace_what_it_is_of(room: Path, name: str) -> None:
    before = (room / name).read_bytes()
    arguments = ("good", "--initrd", "initrd", "--machine", "odd.toml", "--svg", name)
    why = refusal(room, "plan", *arguments)
    assert why == f"{name}: is what the image is built from; give another --svg"
    assert (room / name).read_bytes() == before


def test_the_picture_in_the_readme(memtest: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "plan", memtest, "--machine", "xen-hvm", "--svg", "move.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "move.svg").read_text() == PICTURE.read_text(), (
        f"{PICTURE} is not what the command draws today. If that is as meant, or Debian has a new "
        f"memtest86+: bootsplice plan {memtest} --machine xen-hvm --svg docs/move.svg"
    )
    assert "](docs/move.svg)" in (paths.ROOT / "README.md").read_text()
    texts = {box.text for box in drawn.texts(drawn.parse(PICTURE.read_text()))}
    assert {"memtest86+x64.bin on xen-hvm", "hvmloader", "relocator", "kernel runs"} <= texts


def test_why_a_kernel_is_where_it_is(shop: Workshop) -> None:
    """Where the disk loader is, a zImage runs: its setup code moves it on nonetheless."""
    zimage = parts(named("probe-zimage"), shop)[0]
    on = " Its own code moves it on to 0x1000."
    why = "Why there: the protocol's own address 0x10000 (loadflags bit 0 clear)."
    assert told(Order(zimage)).reason == why + on
    found = told(Order(zimage, target="ram"))
    assert found.reason.startswith("The kernel must be at 0x10000: while it is loaded, SeaBIOS's ")
    assert found.reason.endswith(on)
    elsewhere = told(Order(parts(named("probe-relocatable"), shop)[0], machine="xen-hvm"))
    assert "hvmloader (0x100000..0x200000) has 0x100000" in elsewhere.reason
    assert "Its own code" not in elsewhere.reason


def test_rules_name_only_fields_that_there_are(shop: Workshop) -> None:
    """heap_end_ptr is from 2.01 on."""
    for name, has in (("probe-old", False), ("probe-2.00", False), ("probe-2.01", True)):
        found = told(Order(parts(named(name), shop)[0]))
        (stack,) = [part for part in found.parts if part.name.startswith("real-mode part")]
        assert ("heap_end_ptr" in stack.why) is has, name


@pytest.mark.parametrize(
    ("ram", "where"),
    [
        (0x80100000, r"as high as is free, up to initrd_addr_max \(0x7fffffff\)"),
        (0x8000000, r"as high as is free, below the RAM's end \(0x8000000\)"),
    ],
)
def test_the_bound_of_an_initrd(ram: int, where: str, tmp_path: Path, shop: Workshop) -> None:
    """initrd_addr_max is an initrd's highest byte; RAM ends at the first address that it lacks."""
    (tmp_path / "initrd").write_bytes(b"initrd")
    (tmp_path / "m.toml").write_text(f'base = "pc"\nram = {ram:#x}\n')
    image = parts(named("debian-bzimage"), shop)[0]
    order = Order(image, (tmp_path / "initrd",), "", str(tmp_path / "m.toml"), "ram")
    (initrd,) = [part for part in told(order).parts if part.name == "initrd"]
    assert re.search(where, initrd.why)


@pytest.mark.parametrize(
    ("move", "then"),
    [("hook", "it puts code32_start back: 0x100000"), ("early", "it returns to the early stage")],
)
def test_what_the_relocator_does_at_last(
    move: str, then: str, memtest: Path, tmp_path: Path
) -> None:
    done = run(tmp_path, "plan", memtest, "--machine", "xen-hvm", "--move", move)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  relocator: ")]
    assert line.endswith(f"; {then}")
