"""Where `build --into` changes nothing, and says why."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from disks import MIB, make, patch
from intodisk import GRUB, Payload, refusal

from pybuild.errors import InputError


def use(name: str) -> Callable[[Path, dict[str, bytes]], None]:
    return lambda disk, blank: (disk.write_bytes(blank[name]), None)[1]


def patched(name: str, lba: int, offset: int, data: bytes) -> Callable[..., None]:
    def write(disk: Path, blank: dict[str, bytes]) -> None:
        disk.write_bytes(blank[name])
        patch(disk, lba, offset, data)

    return write


def scripted(script: str, **fill: int) -> Callable[..., None]:
    return lambda disk, _: make(disk, script, {int(k[1:]): v for k, v in fill.items()})


def contents(data: bytes) -> Callable[..., None]:
    return lambda disk, _: (disk.write_bytes(data), None)[1]


BOOT_FLAG = bytes(510) + b"\x55\xaa"
SMALL = "label: dos\nstart=2048, size=400\nstart=3000, size=5000"


@pytest.mark.parametrize(
    ("prepare", "number", "why"),
    [
        (use("mbr"), 9, "no partition 9; there are: 1, 2, 3, 5, 6"),
        (use("mbr"), 3, "partition 3 is extended: it holds the logical ones; give one of those"),
        (scripted(SMALL), 1, r"the payload needs \d+ sectors, partition 1 has 400; give a larger"),
        (
            scripted("label: dos\nstart=34, size=5000"),
            None,
            "the payload needs .* sectors, the gap before the first partition has 33; give a .*",
        ),
        (
            patched("mbr", 77, 100, b"x"),
            None,
            "sector 77, in the gap before the first partition, is in use .*--partition",
        ),
        (patched("gpt", 34, 511, b"x"), None, "sector 34, in the gap .*"),
        (scripted("label: dos\n"), None, "has no partitions, .* -o"),
        (scripted("label: gpt\n"), None, "has no partitions, .* -o"),
        (scripted("label: gpt\n"), 1, "has no partitions, .* --partition, .*"),
        (
            patched("mbr", 0, 0x1CE, bytes.fromhex("00000000 83000000 00100000 00200000")),
            2,
            "partition 2 and partition 1 have sectors in common",
        ),
        (
            patched("mbr", 0, 0x1BE, bytes.fromhex("00000000 83000000 00400000 00020000")),
            1,
            "partition 1 and partition 3 have sectors in common",
        ),
        (
            patched("mbr", 0, 0x1CE, bytes.fromhex("00000000 83000000 00000000 00100000")),
            2,
            "partition 2 and the partition table have sectors in common",
        ),
        (
            patched("gpt", 0, 0, GRUB[:0x5C] + (9000).to_bytes(8, "little") + GRUB[0x64:]),
            2,
            "partition 2 has GRUB's core.img in sector 9000, which the disk boots now or .*",
        ),
        (
            patched("mbr", 4096, 510, b"\x55\xaa"),
            1,
            "partition 1 has the active partition's boot sector in sector 4096, .*",
        ),
        (contents(b""), None, "no raw disk with a partition table: .*an empty file; .*"),
        (contents(bytes(MIB)), None, "no raw disk .* no 55aa at 0x1fe, nothing but zero bytes; .*"),
        (contents(b"QFI\xfb" + bytes(MIB)), None, "no raw disk .*, a qcow2 disk image; .*-O raw.*"),
        (contents(BOOT_FLAG[:0x1BE] + b"\x20" + BOOT_FLAG[0x1BF:]), None, "no partition table: .*"),
        (
            contents(BOOT_FLAG + bytes(0x8001 - 512) + b"CD001" + bytes(9999)),
            None,
            r"is a CD image \(ISO 9660\), .*",
        ),
        (
            contents(BOOT_FLAG + bytes(4096 - 512) + b"EFI PART" + bytes(9999)),
            None,
            "is the image of a disk with sectors of 4096 bytes, not 512",
        ),
        (lambda *_: None, None, "cannot be written: No such file or directory"),
        (lambda disk, _: disk.mkdir(), None, "no disk: expected a raw disk image .*"),
        (lambda disk, _: os.mkfifo(disk), None, "no disk: expected a raw disk image .*"),
        (lambda disk, _: disk.symlink_to(disk), None, "cannot be written: .*symbolic links"),
    ],
)
def test_refused(
    prepare: Callable[[Path, dict[str, bytes]], None],
    number: int | None,
    why: str,
    payload: Payload,
    blank: dict[str, bytes],
    disk: Path,
) -> None:
    prepare(disk, blank)
    before = disk.read_bytes() if disk.is_file() else None
    with pytest.raises(InputError, match=f"^{re.escape(str(disk))}: (damaged .*: )?{why}"):
        payload.put(disk, number, "new")
    assert (disk.read_bytes() if disk.is_file() else None) == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "Expected either -o or --into"),
        (("-o", "x", "--into", "y"), "Expected either -o or --into"),
        (("-o", "x", "--partition", "1"), "--partition goes with --into"),
        (("--into", "y", "--partition", "0"), "0 is not in the range"),
        (("--into", "y", "--target", "ram"), "--target does not go with --into"),
        (("--into", "y", "--gpt"), "--gpt does not go with --into"),
    ],
)
def test_options_that_do_not_go_together(
    payload: Payload, arguments: tuple[str, ...], why: str
) -> None:
    assert why in refusal("build", payload.kernel, *arguments)
