"""The partition table of a disk without GPT, read back by other means than it was written by."""

import subprocess
from pathlib import Path

import pytest
from disks import tool
from hypothesis import given
from hypothesis import strategies as st

from pybuild import mbr
from pybuild.mbr import LARGE, SMALL, Partition
from pybuild.splice import put_disk_own

ENTRY = 0x1BE - 0x1B8  # of the first entry, from where the disk's own bytes begin
LAST_SMALL = 1024 * 16 * 63  # sectors of the largest disk that int 13h reaches with 16 heads
LAST_LARGE = 1024 * 255 * 63


def numbers(own: bytes) -> tuple[int, int, int]:
    """The type, the first sector and the count of sectors."""
    entry = own[ENTRY : ENTRY + 16]
    return entry[4], int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little")


def heads_and_sectors(own: bytes) -> tuple[int, int]:
    """The geometry that QEMU and USB BIOSes see in where the partition ends."""
    return own[ENTRY + 5] + 1, own[ENTRY + 6] & 0x3F


def lba(chs: bytes, heads: int, sectors: int) -> int:
    cylinder = chs[2] | (chs[1] & 0xC0) << 2
    return (cylinder * heads + chs[0]) * sectors + (chs[1] & 0x3F) - 1


def qemus_geometry(disk: Path) -> list[str]:
    """Heads and sectors a track that QEMU's trace says of a disk's partitions."""
    command = [tool("qemu-system-x86_64"), "-S", "-nodefaults", "-display", "none"]
    command += ["-monitor", "stdio", "-trace", "hd_geometry_lchs_guess"]
    command += ["-drive", f"file={disk},format=raw,snapshot=on"]
    run = subprocess.run(command, input="quit\n", capture_output=True, text=True, check=True)
    said = run.stdout + run.stderr
    (line,) = [line for line in said.splitlines() if "hd_geometry_lchs_guess" in line]
    return line.split()[-2:]


@given(st.data())
def test_where_it_begins_and_ends(data: st.DataObject) -> None:
    sectors = data.draw(st.integers(2049, LAST_LARGE))
    cylinder = mbr.geometry(sectors).cylinder
    start = data.draw(st.integers(0, min(sectors - 1, 10_000)))
    end = data.draw(st.integers(start + 1, sectors).map(lambda at: -(-at // cylinder) * cylinder))
    own = mbr.own_part(0x12345678, Partition(0xDA, start, end), sectors)
    assert len(own) == 0x1FE - 0x1B8
    assert own[:6] == bytes.fromhex("78563412 0000")
    assert numbers(own) == (0xDA, start, end - start)
    assert own[ENTRY] == 0x80
    assert not any(own[ENTRY + 16 :])
    heads, track = heads_and_sectors(own)
    assert (heads, track) == ((16, 63) if sectors <= LAST_SMALL else (255, 63))
    assert lba(own[ENTRY + 1 : ENTRY + 4], heads, track) == start
    assert lba(own[ENTRY + 5 : ENTRY + 8], heads, track) == min(end, LAST_LARGE) - 1


@pytest.mark.parametrize("sectors", [LAST_LARGE + 1, 1 << 32, 1 << 40])
def test_what_chs_does_not_reach(sectors: int) -> None:
    own = mbr.own_part(1, Partition(0xEE, 1, sectors), sectors)
    assert own[ENTRY + 5 : ENTRY + 8] == bytes((254, 0xFF, 0xFF))  # 1023/254/63
    assert numbers(own) == (0xEE, 1, min(sectors - 1, 0xFFFFFFFF))
    assert mbr.chs(sectors, LARGE) == bytes((254, 0xFF, 0xFF))


def test_an_end_within_a_cylinder_still_tells_the_geometry() -> None:
    own = mbr.own_part(1, Partition(0xEE, 1, 131072), 131072)
    assert heads_and_sectors(own) == (16, 63)
    assert lba(own[ENTRY + 5 : ENTRY + 8], 16, 63) == 131 * 16 * 63 - 1
    assert numbers(own) == (0xEE, 1, 131071)


def test_it_is_put_where_the_disk_keeps_it() -> None:
    sector = bytes(range(256)) * 2
    own = mbr.own_part(7, Partition(0xDA, 63, 1008), 1008)
    made = put_disk_own(sector, own)
    assert (made[:0x1B8], made[0x1B8:0x1FE], made[0x1FE:]) == (sector[:0x1B8], own, sector[0x1FE:])


@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [(SMALL.cylinder * 3, SMALL), (LAST_SMALL, SMALL), (LARGE.cylinder * 65, LARGE)],
)
def test_qemu_and_sfdisk_read_it(tmp_path: Path, sectors: int, geometry: mbr.Geometry) -> None:
    disk = tmp_path / "disk"
    own = mbr.own_part(0x00C0FFEE, Partition(0xDA, 2048, sectors), sectors)
    with disk.open("wb") as stream:
        stream.write(put_disk_own(bytes(510) + b"\x55\xaa", own))
        stream.truncate(sectors * 512)
    assert qemus_geometry(disk) == [str(geometry.heads), str(geometry.sectors)]
    command = [tool("sfdisk"), "--dump", str(disk)]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "label: dos\nlabel-id: 0x00c0ffee\n" in dump
    assert f"start=        2048, size={sectors - 2048:12}, type=da, bootable\n" in dump
    check = subprocess.run([tool("sfdisk"), "--verify", str(disk)], capture_output=True, text=True)
    assert (check.returncode, check.stderr) == (0, "")
    assert "No errors detected" in check.stdout
