"""The drives at an IDE channel, and what its registers hold: data for idedrive.py."""

from dataclasses import dataclass, field
from typing import Any, Final

from pybuild.emulate.biosdisk import SECTOR, Image

CD_SECTOR: Final = 2048
FOR_EVER: Final = 1 << 30
READY: Final = 0x40  # status
SECOND: Final = 0x10  # of the device register
CONTROL_ON: Final = 0x08

# IDENTIFY PACKET DEVICE of QEMU's CD drive, by word: a CD, 12 bytes; DMA and LBA; words 64 to 70
# and 88 mean something; multiword modes 0 to 2, none set; Ultra DMA 0 to 5, 5 set.
IDENTITY: Final = {0: 0x85C0, 49: 0x0300, 53: 7, 63: 7, 88: 0x203F}
# IDENTIFY DEVICE of a disk with 48-bit LBAs, but for its size.
DISK_IDENTITY: Final = {0: 0x0040, 49: 0x0300, 53: 7, 63: 7, 83: 0x7400, 88: 0x203F, 106: 0x6000}


@dataclass
class Drive:
    """A drive at a channel.

    Attributes:
        image: its medium; None = there is none.
        identity: words of its IDENTIFY PACKET DEVICE, or, of a disk, IDENTIFY DEVICE.
        is_disk: it refuses packets, a CD drive whatever a disk does.
        fault: what happens instead of a read: "check" (error), "refuses" (the packet command
            fails), "wants data" (it asks for something else than a packet), "busy" (until reset),
            "dead" (for ever, whatever one does), "bus" (the controller's error), "short" (it gives
            a sector less), "silent" (it gives nothing, and says that it has), "late" (an error, and
            wrong bits), "garbage" (wrong bits only).
        sound: reads before the first with the fault.
        times: how many have it.
        reads: (LBA, sectors) of each, in its own sectors.
    """

    image: Image | None = None
    identity: dict[int, int] = field(default_factory=lambda: dict(IDENTITY))
    is_disk: bool = False
    fault: str = ""
    sound: int = 0
    times: int = FOR_EVER
    reads: list[tuple[int, int]] = field(default_factory=list)
    status: int = READY
    commands: int = 0

    @classmethod
    def disk(cls, image: Image, **more: Any) -> "Drive":
        """A disk, with its size in its identity."""
        words = dict(DISK_IDENTITY) | more.pop("identity", {})
        short = min(image.sectors, 0xFFF_FFFF)
        words |= {60: short & 0xFFFF, 61: short >> 16}
        words |= {100 + i: image.sectors >> 16 * i & 0xFFFF for i in range(4)}
        return cls(image, words, is_disk=True, **more)

    @property
    def sector(self) -> int:
        return SECTOR if self.is_disk else CD_SECTOR

    def has_fault(self, *which: str) -> bool:
        return self.fault in which and self.sound <= self.commands < self.sound + self.times


@dataclass
class Channel:
    drives: dict[int, Drive]
    selected: int = 0xA0  # as the BIOS's last read left it
    control: int = CONTROL_ON
    features: int = 0
    # Number of sectors, and the LBA's three registers behind that, each with what it was before.
    parameters: dict[int, tuple[int, int]] = field(default_factory=dict)
    data: bytes = b""  # for whoever reads the port
    packet: bytes | None = None  # while a drive waits for it
    dma: bytes | None = None  # what the drive has for the bus master
    silent: bool = False  # what it has never arrives
    looks: int = 0
    master: int = 0
    master_status: int = 0x60  # both drives can do DMA, says the BIOS
    table: int = 0x000F_E5A0

    @property
    def drive(self) -> Drive | None:
        return self.drives.get(1 if self.selected & SECOND else 0)

    def left(self) -> tuple[int, ...]:
        """What the BIOS relies on."""
        return (self.selected, self.control, self.features, self.master, self.master_status)
