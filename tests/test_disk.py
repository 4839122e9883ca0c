"""Target disk: what is in an image, and what cannot be one."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from diskimage import SECTOR, check, make, noise, parse, write
from disks import tool
from fakekernel import image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pybuild import block, build, kernel
from pybuild.build import Order
from pybuild.errors import InputError
from pybuild.splice import DISK_OWN

FLOPPY = 1474560
CYLINDER = 16 * 63 * SECTOR

SIZES = st.one_of(
    st.integers(0, 3000),
    st.sampled_from(
        [511, 512, 513, 4095, 4096, 4097, 127 * 512 - 1, 127 * 512, 127 * 512 + 1, 1 << 16]
    ),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    protected=SIZES.filter(bool),
    initrds=st.lists(SIZES, max_size=4),
    text=st.text("ab =", max_size=600),
    machine=st.sampled_from(["pc", "xen-hvm"]),
    options=st.sampled_from([{}, {"gpt": True}, {"size": "8M"}, {"floppy": True}]),
)
def test_any_sizes(
    tmp_path: Path,
    protected: int,
    initrds: list[int],
    text: str,
    machine: str,
    options: dict[str, object],
) -> None:
    contents = tuple(noise(size, seed) for seed, size in enumerate(initrds))
    out = make(
        tmp_path,
        initrds=contents,
        protected=protected,
        cmdline=text,
        machine=machine,
        options=options,
    )
    made = parse(out.read_bytes())
    check(made)
    joined = b""
    for content in contents:
        joined += bytes(-len(joined) % 4) + content
    names = {entry.name for entry in made.entries}
    assert ("initrd" in names) == bool(joined)
    if joined:
        assert made.part("initrd") == joined
    assert made.part("cmdline") == text.encode() + b"\0"
    original = kernel.read(tmp_path / "kernel")
    assert made.part("kernel").startswith(original.protected)
    assert ("dst" in names) == (machine == "xen-hvm")
    floppy = "floppy" in options
    assert made.block == (1 if floppy else 2048)
    if floppy:
        assert len(made.data) == FLOPPY
        assert not any(made.data[DISK_OWN])
    elif "size" in options:
        assert len(made.data) == 8 << 20
    else:
        assert len(made.data) % CYLINDER == 0


@pytest.mark.parametrize("options", [{}, {"gpt": True}, {"size": 20_000_000 // 512 * 512}])
def test_the_partition_covers_all_that_is_read(tmp_path: Path, options: dict[str, object]) -> None:
    out = make(tmp_path, initrds=(noise(70_001),), options=options)
    made = parse(out.read_bytes())
    command = [tool("sfdisk"), "--dump", str(out)]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"start= *(\d+), size= *(\d+), (.*)", dump)
    assert found
    start, size = int(found[1]), int(found[2])
    assert start == made.block
    end = max(entry.lba + -(-entry.size // SECTOR) for entry in made.entries)
    assert end <= start + size <= len(made.data) // SECTOR
    if options.get("gpt"):
        assert "label: gpt" in dump
        command = [tool("sgdisk"), "--verify", str(out)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "No problems found" in said
        assert not re.search("CRC|corrupt|Caution", said)
    else:
        assert "type=da, bootable" in found[3]
        assert "label: dos" in dump
        assert (start + size) * SECTOR % CYLINDER == 0
        assert f"label-id: {int.from_bytes(made.data[0x1B8:0x1BC], 'little'):#010x}" in dump
        assert any(made.data[0x1B8:0x1BC])


def test_what_the_entries_say_is_the_plan(tmp_path: Path) -> None:
    source = write(tmp_path, "kernel", image(xloadflags=1))
    order = Order(source, (write(tmp_path, "initrd", noise(5)),), machine="xen-hvm")
    plan = build.build(order, tmp_path / "out")
    made = parse((tmp_path / "out").read_bytes())
    at = {entry.name: entry for entry in made.entries}
    for load in plan.loads:
        assert (at[load.part].address, at[load.part].size) == (load.address, load.size)
    assert made.needs == 1
    assert plan.load("bootsect") is not None
    assert made.part("bootsect")[510:] == b"\x55\xaa"


def test_what_is_in_it_changes_its_names(tmp_path: Path) -> None:
    """The disk's signature, or its GUIDs: the same for the same bytes, and for no others."""
    for options, own in (({}, slice(0x1B8, 0x1BC)), ({"gpt": True}, slice(512 + 56, 512 + 72))):
        seen = []
        for text in ("one", "one", "two"):
            out = make(tmp_path, cmdline=text, initrds=(b"x",), options=options)
            seen.append(out.read_bytes())
            out.unlink()
        assert seen[0] == seen[1]
        assert seen[0][own] != seen[2][own]


def test_a_floppy_that_is_too_small(tmp_path: Path) -> None:
    options = {"floppy": True}
    with pytest.raises(InputError, match=rf"needs \d+ bytes, and a floppy has {FLOPPY}; "):
        make(tmp_path, initrds=(bytes(FLOPPY - 10_000),), options=options)
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "initrd0"}


@pytest.mark.parametrize(("options", "unit"), [({"floppy": True}, 1), ({"size": "8M"}, CYLINDER)])
def test_what_just_fits(tmp_path: Path, options: dict[str, object], unit: int) -> None:
    """The initrd may end where the floppy does, or the last whole cylinder; no byte later."""
    made = parse(make(tmp_path, initrds=(b"x",), options=options).read_bytes())
    (entry,) = (entry for entry in made.entries if entry.name == "initrd")
    most = len(made.data) // unit * unit - entry.lba * SECTOR
    initrd = tmp_path / "initrd0"
    order = Order(tmp_path / "kernel", (initrd,), "quiet", options=options)
    os.truncate(initrd, most)
    build.build(order, tmp_path / "out.img")
    assert len(parse((tmp_path / "out.img").read_bytes()).part("initrd")) == most
    os.truncate(initrd, most + 1)
    with pytest.raises(InputError, match="needs"):
        build.build(order, tmp_path / "out.img")


@pytest.mark.parametrize("gpt", [False, True])
def test_a_large_disk_is_sparse_and_has_another_geometry(tmp_path: Path, gpt: bool) -> None:
    options = {"size": "3G", **({"gpt": True} if gpt else {})}
    out = make(tmp_path, options=options)
    status = out.stat()
    assert status.st_size == 3 << 30
    assert status.st_blocks * SECTOR < 1 << 20
    with out.open("rb") as image_:
        sector = image_.read(SECTOR)
    assert (sector[0x1BE + 5], sector[0x1BE + 6] & 0x3F) == (254, 63)
    command = [tool("sfdisk"), "--verify", str(out)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "No errors detected" in said.stdout


def test_a_device_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path, "sda", b"")
    real = Path.stat

    def as_device(self: Path, **how: bool) -> os.stat_result:
        found = real(self, **how)
        if self.name != "sda":
            return found
        return os.stat_result((0o60660, *found[1:]))

    monkeypatch.setattr(Path, "stat", as_device)
    with pytest.raises(InputError, match="sda: is a device, not a file; --into "):
        make(tmp_path, "sda")
    assert out.read_bytes() == b""


def test_onto_what_is_there_already(tmp_path: Path) -> None:
    """The block, as --into writes it: the same, whatever was there, and nothing outside it."""
    reference = parse(make(tmp_path, initrds=(noise(5001), noise(3))).read_bytes())
    order = Order(tmp_path / "kernel", (tmp_path / "initrd0", tmp_path / "initrd1"), "quiet")
    prepared = build.prepare(order)
    plan, parts = prepared.plan, prepared.parts
    for lba in (2048, 63, 77, 8):
        placed = block.Block(plan, parts, lba)
        old = b"\xee" * (placed.end + 3) * SECTOR
        path = write(tmp_path, "disk", old)
        with path.open("r+b") as out:
            written = placed.write(out.fileno(), saved=b"S" * SECTOR, onto_zeros=False)
        found = path.read_bytes()
        assert found[: lba * SECTOR] == old[: lba * SECTOR]
        assert found[placed.end * SECTOR :] == old[placed.end * SECTOR :]
        body = found[lba * SECTOR : placed.end * SECTOR]
        assert body.startswith(b"S" * SECTOR)
        made = parse(written.boot_sector + found[SECTOR:])
        for entry in made.entries:
            if entry.lba:
                assert made.part(entry.name) == reference.part(entry.name)
                assert entry.lba % (8 if entry.name in ("kernel", "initrd") else 1) == 0
        assert b"\xee" * 64 not in body
        if lba == 2048:
            assert body[SECTOR:] == reference.data[lba * SECTOR :][SECTOR : len(body)]
