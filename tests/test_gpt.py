"""A GPT, as sgdisk and sfdisk read it, and whether they'd see that it was damaged."""

import json
import re
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from disks import tool

from pybuild import gpt
from pybuild.splice import put_disk_own

DISK, PARTITION = (UUID(int=number * 0x1234567_89ABCDEF_01234567) for number in (3, 5))


def write(path: Path, start: int, end: int, sectors: int) -> gpt.Table:
    table = gpt.table(DISK, PARTITION, start, end, sectors)
    assert len(table.primary) == (gpt.FIRST_USABLE - 1) * 512
    assert len(table.backup) == gpt.SECTORS_BEHIND * 512
    with path.open("wb") as stream:
        stream.truncate(sectors * 512)
        stream.write(put_disk_own(bytes(510) + b"\x55\xaa", table.mbr) + table.primary)
        stream.seek((sectors - gpt.SECTORS_BEHIND) * 512)
        stream.write(table.backup)
    return table


def verify(path: Path) -> str:
    command = [tool("sgdisk"), "--verify", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    ("start", "end", "sectors"),
    [
        (34, 35, 68),  # one sector, on the least disk that there can be
        (2048, 4096, 5040),
        (2048, 1 << 21, 3 << 21),
        (2048, 6 << 30, 5 << 31),  # more than an MBR can say
    ],
)
def test_as_others_read_it(tmp_path: Path, start: int, end: int, sectors: int) -> None:
    path = tmp_path / "disk"
    table = write(path, start, end, sectors)
    said = verify(path)
    assert "No problems found" in said
    assert not re.search("CRC|corrupt", said)
    command = [tool("sfdisk"), "--json", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    found = json.loads(run.stdout)["partitiontable"]
    (partition,) = found.pop("partitions")
    assert (found["label"], found["id"]) == ("gpt", str(DISK).upper())
    assert (found["firstlba"], found["lastlba"]) == (34, sectors - 34)
    assert partition == {
        "node": f"{path}1",
        "start": start,
        "size": end - start,
        "type": "21686148-6449-6E6F-744E-656564454649",
        "uuid": str(PARTITION).upper(),
        "name": "bootsplice",
    }
    check = subprocess.run([tool("sfdisk"), "--verify", str(path)], capture_output=True, text=True)
    assert (check.returncode, check.stderr) == (0, "")
    assert table.mbr[6:7] == b"\x80"
    assert table.mbr[:6] == bytes(6)


def test_the_type_spells_what_it_is_for() -> None:
    assert gpt.BIOS_BOOT.bytes_le == b"Hah!IdontNeedEFI"


@pytest.mark.parametrize("at", [512 + 24, 1024 + 32, -512 + 24, -1024 - 15 * 1024 + 32])
def test_damage_is_seen(tmp_path: Path, at: int) -> None:
    """In either header, and in either copy of the entries: so each has the right CRC."""
    path = tmp_path / "disk"
    write(path, 2048, 4096, 5040)
    image = bytearray(path.read_bytes())
    image[at] ^= 1
    path.write_bytes(image)
    assert re.search("CRC|corrupt", verify(path))


def test_the_backup_alone_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    write(path, 2048, 4096, 5040)
    image = bytearray(path.read_bytes())
    image[512:2048] = bytes(1536)
    path.write_bytes(image)
    run = subprocess.run([tool("sfdisk"), "--dump", str(path)], capture_output=True, text=True)
    assert "start=        2048, size=        2048" in run.stdout
    assert str(PARTITION).upper() in run.stdout
