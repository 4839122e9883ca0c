"""`build --into` and `restore`: what changes on a disk, what never does, and when it is killed."""

import fcntl
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from booting import boot, report
from disks import MIB, OWN, Space, boots, differing, dump, make, patch, tool
from fakekernel import probe
from held import examples
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from missing import missing

from pybuild import build, into, saved, targets
from pybuild.build import Order
from pybuild.errors import InputError
from pybuild.loadtable import SECTOR
from pybuild.regions import Region
from pybuild.saved import Saved

NOISE_SEED = 3
GRUB = b"\xeb\x63" + bytes(0x5A) + (34).to_bytes(8, "little") + bytes(0x11C)
GRUB += b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n"

# Each has a partition of 4 MiB for the payload, named below, and others with noise.
LAYOUTS = {
    "mbr": (
        "label: dos\nlabel-id: 0x12345678\nstart=4096, size=2048, bootable\n"
        "start=8192, size=8192, type=da\nstart=16384, size=24576, type=5\n"
        "start=18432, size=2048\nstart=22528, size=8192, type=da\n"
    ),
    "gpt": (
        "label: gpt\nlabel-id: 12345678-1234-1234-1234-123456789ABC\nfirst-lba: 34\n"
        "start=4096, size=2048\nstart=8192, size=8192, "
        "type=21686148-6449-6E6F-744E-656564454649\n"
    ),
}
NOISE = {"mbr": {4096: 2048, 18432: 2048, 45056: 1000}, "gpt": {4096: 2048, 20000: 1000}}
PLACES = {  # scheme, partition, what may change
    "mbr-gap": ("mbr", None, Space(1, 4096)),
    "mbr-primary": ("mbr", 2, Space(8192, 16384)),
    "mbr-logical": ("mbr", 6, Space(22528, 30720)),
    "gpt-gap": ("gpt", None, Space(34, 4096)),
    "gpt-partition": ("gpt", 2, Space(8192, 16384)),
}


@dataclass(frozen=True)
class Payload:
    """What to build from; the command line tells one from another."""

    kernel: Path
    initrd: Path

    def order(self, cmdline: str, *, initrds: bool = True) -> Order:
        return Order(self.kernel, (self.initrd,) * initrds, cmdline)

    def put(self, disk: Path, number: int | None, cmdline: str, *, initrds: bool = True) -> None:
        build.build_into(self.order(cmdline, initrds=initrds), disk, number)


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    folder = tmp_path_factory.mktemp("payload")
    initrd = folder / "initrd"
    initrd.write_bytes(random.Random(NOISE_SEED).randbytes(300_001))
    return Payload(probe("2.10", folder), initrd)


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The disks of LAYOUTS; their boot code is somebody else's."""
    found = {}
    for name, script in LAYOUTS.items():
        path = tmp_path_factory.mktemp("blank") / "disk.img"
        make(path, script, NOISE[name])
        patch(path, 0, 0, random.Random(name).randbytes(OWN.start))
        found[name] = path.read_bytes()
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk.img"


def command(*arguments: str | Path | int) -> list[str]:
    return [sys.executable, "-m", "pybuild.cli", *map(str, arguments)]


def run(*arguments: str | Path | int) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refusal(*arguments: str | Path | int) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("bootsplice: ")


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
    subprocess.run([tool("sfdisk"), "-q", "--no-reread", "--delete", disk, "1"], check=True)
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


# Where nothing may be changed.


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


# Cut short.


@dataclass
class Power:
    """Every write to the disk, and where it was flushed; it can fail at any of them."""

    writes: list[tuple[int, bytes]] = field(default_factory=list)
    flushed: list[int] = field(default_factory=list)  # how many writes were before each flush
    left: int | None = None

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        if self.left is not None:
            if self.left == 0:
                raise CutError
            self.left -= 1
        self.writes.append((offset, bytes(data)))
        return REAL_PWRITE(descriptor, data, offset)

    def fsync(self, descriptor: int) -> None:
        if self.left != 0:
            self.flushed.append(len(self.writes))
            REAL_FSYNC(descriptor)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Power":
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "copy_file_range", no_copy)
        return self


class CutError(BaseException):
    """The power is gone."""


REAL_PWRITE, REAL_FSYNC = os.pwrite, os.fsync


def no_copy(*_: Any, **__: Any) -> int:
    raise OSError(18, "no copy_file_range, so that every write is seen")


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power().install(monkeypatch)


def test_cut_after_each_write(
    payload: Payload, blank: dict[str, bytes], disk: Path, power: Power
) -> None:
    """Every write may be the last one; the next run then finds its way."""
    disk.write_bytes(blank["mbr"])
    payload.put(disk, None, "old")
    old = disk.read_bytes()
    power.writes.clear()
    payload.put(disk, None, "new")
    total = len(power.writes)
    assert total > 5
    for left in range(total):
        disk.write_bytes(old)
        power.left = left
        with pytest.raises(CutError):
            payload.put(disk, None, "new")
        power.left = None
        assert boots(disk.read_bytes()) == "old"
        payload.put(disk, None, "newer")
        assert boots(disk.read_bytes()) == "newer"
        into.restore(disk)
        assert disk.read_bytes()[:SECTOR] == blank["mbr"][:SECTOR]


@given(data=st.data())
@settings(examples(40), phases=[Phase.generate])  # to shrink one of these takes minutes
def test_any_sequence(
    data: st.DataObject, payload: Payload, blank: dict[str, bytes], tmp_path: Path
) -> None:
    """Payloads of all sizes come and go, some half-written; nothing of ours is ever in the way."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(blank["gpt"])
    live = None
    for step in range(data.draw(st.integers(2, 12))):
        size = data.draw(st.sampled_from([0, 100_000, 400_000, 900_000, 1_500_000]))
        initrd = tmp_path / f"{size}"
        initrd.write_bytes(random.Random(size).randbytes(size))
        order = Order(payload.kernel, (initrd,), f"step {step}")
        action = data.draw(st.sampled_from(["put", "cut", "restore"]))
        if action == "restore" and live is not None:
            into.restore(disk)
            assert disk.read_bytes()[:SECTOR] == blank["gpt"][:SECTOR]
            live = None
        elif action != "restore":
            with pytest.MonkeyPatch.context() as patched:
                it = Power().install(patched)
                it.left = data.draw(st.integers(0, 6)) if action == "cut" else None
                no_room = None
                try:
                    build.build_into(order, disk, None)
                    live = order.cmdline
                except CutError:
                    pass
                except InputError as error:
                    no_room = str(error)
            if no_room is not None:
                assert live is not None, no_room
                assert re.search(r"sectors, the gap .* has 4062, of which ", no_room)
        assert boots(disk.read_bytes()) == live
    changed = differing(blank["gpt"], disk.read_bytes())
    assert all(at == 0 or 34 <= at < 4096 for at in changed)


@pytest.mark.parametrize("place", ["mbr-gap", "gpt-partition"])
def test_power_lost(
    place: str, payload: Payload, blank: dict[str, bytes], disk: Path, power: Power
) -> None:
    """Between two flushes any sectors of what was written may have reached the medium."""
    scheme, number, _ = PLACES[place]
    disk.write_bytes(blank[scheme])
    payload.put(disk, number, "old")
    old = disk.read_bytes()
    power.writes.clear()
    power.flushed.clear()
    payload.put(disk, number, "new")
    writes, flushed = [*power.writes], [*power.flushed]
    assert flushed[-2:] == [len(writes) - 1, len(writes)]
    assert [index for index, (offset, _) in enumerate(writes) if offset == 0] == [len(writes) - 1]
    rng = random.Random(place)
    for n in range(40):
        epoch = n % len(flushed)
        first, last = [0, *flushed][epoch], flushed[epoch]
        lost = bytearray(old)
        for index, (offset, data) in enumerate(writes[:last]):
            for at in range(0, len(data), SECTOR):
                if index < first or rng.random() < 0.5:
                    piece = data[at : at + SECTOR]
                    lost[offset + at : offset + at + len(piece)] = piece
        disk.write_bytes(lost)
        assert boots(lost) in ("old", "new")
        payload.put(disk, number, "newer")
        assert boots(disk.read_bytes()) == "newer"


@pytest.mark.boot
def test_killed(payload: Payload, tmp_path: Path, disk: Path) -> None:
    """Real processes, killed at moments spread over their writing."""
    script = "label: dos\nstart=2048, size=60000\nstart=70000, size=100\n"
    make(disk, script, {70000: 100}, 40 * MIB)
    payload.put(disk, 1, "old", initrds=False)
    old = disk.read_bytes()
    dumped = dump(disk)
    initrd = tmp_path / "large"
    initrd.write_bytes(random.Random(1).randbytes(16 * MIB))
    line = command(
        *("build", payload.kernel, "--initrd", initrd, "--cmdline", "new"),
        *("--into", disk, "--partition", 1),
    )
    _, record = _block(old)  # where the new one begins

    def start() -> subprocess.Popen[bytes]:
        """Returns when the first sector is written."""
        with disk.open("r+b") as stream:
            stream.write(old)
            os.fsync(stream.fileno())
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        with disk.open("rb", buffering=0) as stream:
            while process.poll() is None:
                if os.pread(stream.fileno(), SECTOR, record * SECTOR) != bytes(SECTOR):
                    break
        return process

    assert start().wait() == 0
    whole = disk.read_bytes()
    assert boots(whole) == "new"
    with start() as process:
        begun = time.monotonic()
        process.wait()
        takes = time.monotonic() - begun

    seen, example = [], {}
    moments = 22
    for n in range(moments):
        with start() as process:
            time.sleep(takes * n * 1.1 / moments)
            process.kill()
        after = disk.read_bytes()
        text = boots(after)
        assert text in ("old", "new")
        seen.append(text)
        assert after[70000 * SECTOR :] == old[70000 * SECTOR :]
        if text not in example:
            example[text] = tmp_path / f"{text}.img"
            example[text].write_bytes(after)
            assert dump(disk) == dumped
    assert seen[0] == "old"
    for text, image in example.items():
        assert report(boot(image, "^end=ok"))["cmdline"] == text


def _block(disk: bytes) -> tuple[int, int]:
    """The first sector and the end of the payload that a disk boots."""
    lba = int.from_bytes(disk[8:16], "little") - 1
    own = saved.decode(disk[lba * SECTOR : (lba + 1) * SECTOR], lba).own
    return own.start, own.end
