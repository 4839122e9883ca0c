"""The results of a run as data: JSON, tables and chart are all made from it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Final

from bench import building, inputs, loaders
from bench.timing import Sample

FLOOR: Final = "firmware alone"
KERNEL: Final = "kernel"
WITH_INITRD: Final = "kernel + initrd"
NO_DEVICE: Final = ""
_OVER_FIRMWARE: Final = 0.5  # seconds, over IDE with the initrd
_FASTER_OVER_IDE: Final = 20.0
_TIMES_CAT: Final = 2.0


def size_text(size: int) -> str:
    """Bytes for a person: 64 MiB, 14 MB."""
    return f"{size >> 20} MiB" if size % (1 << 20) == 0 else f"{size / 1_000_000:.0f} MB"


@dataclass(frozen=True, slots=True)
class Boot:
    """A time from QEMU's start to the kernel's entry.

    Attributes:
        loader: the row's name.
        device: one of qemu.DEVICES, or NO_DEVICE.
        payload: KERNEL or WITH_INITRD.
        is_peer: somebody else's loader.
        seconds: the times.
    """

    loader: str
    device: str
    payload: str
    is_peer: bool
    seconds: Sample


@dataclass(frozen=True, slots=True)
class Results:
    """All of a run.

    Attributes:
        machine: what it ran on.
        versions: of all that took part.
        sizes: bytes of "kernel", "initrd" and "checksum".
        boots: times to the kernel's entry.
        builds: seconds to build an image of the kernel and the initrd, by row.
        checksums: seconds of a guest that sums so much memory, by candidate.
        left_out: what was not measured, with the Debian packages to install.
    """

    machine: dict[str, str]
    versions: dict[str, str]
    sizes: dict[str, int]
    boots: list[Boot]
    builds: dict[str, Sample]
    checksums: dict[str, Sample]
    left_out: dict[str, list[str]]

    def to_json(self) -> str:
        fields = dataclasses.asdict(self)
        fields["aims"] = [dataclasses.asdict(aim) for aim in self.aims()]
        return json.dumps(fields, indent=1) + "\n"

    def median(self, loader: str, device: str, payload: str) -> float | None:
        """Seconds; None if that was not measured."""
        for boot in self.boots:
            if (boot.loader, boot.device, boot.payload) == (loader, device, payload):
                return boot.seconds.median
        return None

    def aims(self) -> list["Aim"]:
        """What bootsplice is meant to reach, as far as it was measured; of the full sizes only."""
        full = inputs.FULL
        if (self.sizes["kernel"], self.sizes["initrd"]) != (full.kernel, full.initrd):
            return []
        aims = []
        ours = self.median(loaders.DISK.name, "IDE", WITH_INITRD)
        floor = self.median(FLOOR, "IDE", KERNEL)
        if ours is not None and floor is not None:
            over = ours - floor
            what = "seconds over the firmware, IDE, with the initrd"
            aims.append(Aim(what, over, _OVER_FIRMWARE, over <= _OVER_FIRMWARE, "at most"))
        for device in ("IDE", "virtio", "AHCI"):
            for payload in (KERNEL, WITH_INITRD):
                aims += self._against_peers(device, payload)
        return aims + self._building()

    def _building(self) -> list["Aim"]:
        """Against `cat`, and against the peers that make an image of the same kind."""
        aims = []
        disk = self.builds.get(loaders.DISK.name)
        if disk is not None:
            plain = self.builds[building.CAT].median + self.builds[building.INTERPRETER].median
            ratio = disk.median / plain
            what = "times as long to build a disk as `cat` and the interpreter's start"
            aims.append(Aim(what, ratio, _TIMES_CAT, ratio <= _TIMES_CAT, "at most"))
        for loader in building.LOADERS:
            ours = self.builds.get((loaders.ISO if loader.medium == "cd" else loaders.DISK).name)
            peer = self.builds.get(loader.name)
            if loader.is_peer and ours is not None and peer is not None:
                faster = peer.median / ours.median
                what = f"times faster to build than {loader.name}"
                aims.append(Aim(what, faster, 1.0, faster > 1.0))
        return aims

    def _against_peers(self, device: str, payload: str) -> list["Aim"]:
        """Against the fastest peer that boots a disk; over IDE with the initrd, each of them."""
        ours = self.median(loaders.DISK.name, device, payload)
        peers = {
            loader.name: seconds
            for loader in loaders.ALL
            if loader.is_peer
            and loader.medium == "disk"
            and (seconds := self.median(loader.name, device, payload)) is not None
        }
        if ours is None or not peers:
            return []
        least = _FASTER_OVER_IDE
        if (device, payload) != ("IDE", WITH_INITRD):
            fastest = min(peers, key=lambda name: peers[name])
            peers = {fastest: peers[fastest]}
            least = 1.0
        return [
            Aim(f"times faster than {name}, {device}, {payload}", faster, least, faster > least)
            for name, seconds in peers.items()
            for faster in [seconds / ours]
        ]


@dataclass(frozen=True, slots=True)
class Aim:
    """Something that bootsplice is meant to reach.

    Attributes:
        what: in words, behind the number.
        found: the number.
        limit: what it was to be.
        reached: whether it is.
        bound: "at least" or "at most" the limit.
    """

    what: str
    found: float
    limit: float
    reached: bool
    bound: str = "at least"
