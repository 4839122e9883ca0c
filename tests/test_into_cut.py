"""`build --into`, killed or without power at any moment: the disk boots the old or the new."""

import os
import random
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from booting import boot, report
from disks import MIB, boots, differing, dump, make
from held import examples
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from intodisk import PLACES, Payload, command

from pybuild import build, into, saved
from pybuild.bootproto import SECTOR
from pybuild.build import Order
from pybuild.errors import InputError


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
@settings(examples(16), phases=[Phase.generate])  # to shrink one of these takes minutes
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
    moments = 12
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
