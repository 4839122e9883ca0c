"""`build --into` and `restore`: what changes on a disk, and what never does."""

import fcntl
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from booting import boot, report
from disks import OWN, boots, differing, dump, make, patch, sfdisk, tool
from held import examples
from hypothesis import given
from hypothesis import strategies as st
from intodisk import GRUB, PLACES, Payload, refusal, run
from missing import missing

from pybuild import build, into, saved, targets
from pybuild.bootproto import SECTOR
from pybuild.build import Order
from pybuild.errors import InputError
from pybuild.regions import Region
from pybuild.saved import Saved


@pytest.mark.boot
@pytest.mark.parametrize("place", PLACES)
def test_all_else_stays(place: str, payload: Payload, blank: dict[str, bytes], disk: Path) -> None:
    scheme, number, space = PLACES[place]
    disk.write_bytes(blank[scheme])
    before = dump(disk)
    where = () if number is None else ("--partition", number)
    build_into = ("build", payload.kernel, "--initrd", payload.initrd, "--into", disk, *where)
    for cmdline in ("one", "two", "three"):
        run(*build_into, "--cmdline", cmdline)
        after = disk.read_bytes()
        assert boots(after) == cmdline
        assert after[OWN] == blank[scheme][OWN]
        changed = differing(blank[scheme], after)
        assert changed[0] == 0
        assert space.start <= changed[1] <= changed[-1] < space.end
        assert dump(disk) == before
    assert report(boot(disk, "^end=ok"))["cmdline"] == "three"
    run("restore", disk)
    assert disk.read_bytes()[:SECTOR] == blank[scheme][:SECTOR]
    assert dump(disk) == before


@pytest.mark.parametrize("place", PLACES)
def test_reproducible(place: str, payload: Payload, blank: dict[str, bytes], disk: Path) -> None:
    scheme, number, _ = PLACES[place]
    made = []
    for _ in range(2):
        disk.write_bytes(blank[scheme])
        payload.put(disk, number, "one")
        payload.put(disk, number, "two")
        made.append(disk.read_bytes())
    assert made[0] == made[1]


def test_a_table_that_changed_meanwhile_is_kept_by_restore(
    payload: Payload, blank: dict[str, bytes], disk: Path
) -> None:
    disk.write_bytes(blank["mbr"])
    payload.put(disk, 2, "one")
    sfdisk(disk, "--delete", "1")
    changed = disk.read_bytes()[OWN]
    assert changed != blank["mbr"][OWN]
    into.restore(disk)
    assert disk.read_bytes()[:SECTOR] == blank["mbr"][: OWN.start] + changed + b"\x55\xaa"


@pytest.mark.boot
@pytest.mark.parametrize("options", [{}, {"gpt": True}])
def test_a_disk_that_bootsplice_made(
    payload: Payload, disk: Path, options: targets.Options
) -> None:
    build.build(Order(payload.kernel, cmdline="whole", options=options), disk)
    whole = disk.read_bytes()
    with pytest.raises(InputError, match="no boot sector was saved: bootsplice made the whole"):
        into.restore(disk)
    with pytest.raises(InputError, match=r"of which 2048 to .* boots .*, or make .* anew with -o"):
        payload.put(disk, 1, "one", initrds=False)
    assert disk.read_bytes() == whole
    payload.put(disk, None, "one", initrds=False)
    payload.put(disk, None, "two", initrds=False)
    assert report(boot(disk, "^end=ok"))["cmdline"] == "two"
    into.restore(disk)
    assert disk.read_bytes()[:SECTOR] == whole[:SECTOR]
    assert report(boot(disk, "^end=ok"))["cmdline"] == "whole"
    assert boots(disk.read_bytes()) == "whole"


def test_a_floppy_that_bootsplice_made(payload: Payload, disk: Path) -> None:
    order = Order(payload.kernel, cmdline="whole", options={"floppy": True})
    build.build(order, disk)
    with pytest.raises(InputError, match=r"has no partitions, .* new image with -o"):
        payload.put(disk, None, "one")


def test_notes(payload: Payload, blank: dict[str, bytes], disk: Path) -> None:
    disk.write_bytes(blank["mbr"])
    said = run("build", payload.kernel, "--into", disk, "--partition", 2)
    assert re.search(rf"{disk}: the payload is in sectors 8192 to \d+, in partition 2\n", said)
    assert "active" not in said
    patch(disk, 0, 0x1BE, b"\0")
    said = run("build", payload.kernel, "--into", disk, "--partition", 2)
    assert "no partition is active" in said


def test_two_at_a_time(payload: Payload, blank: dict[str, bytes], disk: Path) -> None:
    disk.write_bytes(blank["mbr"])
    with disk.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        with pytest.raises(InputError, match="in use: another program has locked it"):
            payload.put(disk, None, "new")
        with pytest.raises(InputError, match="in use: another program has locked it"):
            into.restore(disk)


def test_no_room_beside_the_old_one(payload: Payload, disk: Path) -> None:
    make(disk, "label: dos\nstart=2048, size=1000\nstart=4096, size=9000\n", {})
    payload.put(disk, 1, "old")
    before = disk.read_bytes()
    why = rf"needs \d+ .*, partition 1 has 1000, of which 2048 to \d+ .*: bootsplice restore {disk}"
    with pytest.raises(InputError, match=why):
        payload.put(disk, 1, "new")
    assert disk.read_bytes() == before
    into.restore(disk)
    payload.put(disk, 1, "new")
    assert boots(disk.read_bytes()) == "new"


def test_what_restore_would_boot_is_kept(
    payload: Payload, blank: dict[str, bytes], disk: Path
) -> None:
    disk.write_bytes(blank["mbr"])
    patch(disk, 0, 0, GRUB[:0x5C] + (9000).to_bytes(8, "little") + GRUB[0x64:])
    payload.put(disk, 6, "new")
    with pytest.raises(InputError, match=r"partition 2 has GRUB's core.img in sector 9000, .*"):
        payload.put(disk, 2, "newer")


def test_restore_refused(payload: Payload, blank: dict[str, bytes], disk: Path) -> None:
    disk.write_bytes(blank["mbr"])
    assert refusal("restore", disk) == (
        f"{disk}: sector 0 is not bootsplice's: there is nothing to put back"
    )
    payload.put(disk, 2, "new")
    for offset in range(0, SECTOR, 37):
        good = disk.read_bytes()[8192 * SECTOR + offset]
        patch(disk, 8192, offset, bytes([good ^ 0x10]))
        before = disk.read_bytes()
        with pytest.raises(InputError, match=r"the saved boot sector is damaged: sector 8192 .*"):
            into.restore(disk)
        with pytest.raises(
            InputError, match=r"sector 0 is bootsplice's, but sector 8192 .* first 44"
        ):
            payload.put(disk, 2, "newer")
        assert disk.read_bytes() == before
        patch(disk, 8192, offset, bytes([good]))
    patch(disk, 0, 8, b"\xff" * 8)
    with pytest.raises(InputError, match=r"the saved boot sector is damaged: sector .* is none of"):
        into.restore(disk)


@given(
    st.binary(min_size=SECTOR, max_size=SECTOR), st.integers(1, 1 << 40), st.integers(1, 1 << 40)
)
@examples(50)
def test_what_is_saved_is_read_back(sector: bytes, lba: int, size: int) -> None:
    it = Saved(sector, Region("payload", lba, lba + size), Region("payloads", lba, lba + 2 * size))
    back = saved.decode(it.encode(), lba)
    assert back.sector == sector[: OWN.start] + bytes(70) + sector[OWN.stop :]
    assert (back.own, back.claimed) == (it.own, it.claimed)
    with pytest.raises(saved.DamagedError):
        saved.decode(it.encode(), lba + 1)


# Block devices.


@pytest.fixture
def loop(disk: Path) -> Iterator[Callable[..., Path]]:
    """Makes a block device of the disk image."""
    devices = []

    def attach(*options: str) -> Path:
        line = [tool("losetup"), "--find", "--show", *options, str(disk)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"no loop device: {done.stderr.strip()}")
        devices.append(done.stdout.strip())
        return Path(devices[-1])

    yield attach
    for device in devices:
        subprocess.run([tool("losetup"), "--detach", device], check=True)


def test_a_block_device(
    payload: Payload, blank: dict[str, bytes], disk: Path, loop: Callable[..., Path]
) -> None:
    disk.write_bytes(blank["gpt"])
    device = loop()
    payload.put(device, 2, "new")
    payload.put(device, 2, "newer")
    assert boots(device.read_bytes()) == "newer"
    holder = os.open(device, os.O_RDONLY | os.O_EXCL)  # as a mount holds it
    try:
        with pytest.raises(InputError, match=f"^{device}: in use: .*mounted.*"):
            payload.put(device, 2, "newest")
        with pytest.raises(InputError, match=f"^{device}: in use: .*mounted.*"):
            into.restore(device)
    finally:
        os.close(holder)
    into.restore(device)
    assert device.read_bytes()[:SECTOR] == blank["gpt"][:SECTOR]


def test_a_block_device_with_large_sectors(
    payload: Payload, blank: dict[str, bytes], disk: Path, loop: Callable[..., Path]
) -> None:
    disk.write_bytes(blank["gpt"])
    device = loop("--sector-size", "4096")
    with pytest.raises(InputError, match=f"^{device}: has sectors of 4096 bytes, expected 512"):
        payload.put(device, 2, "new")
