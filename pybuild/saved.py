"""The first sector of what we write to a disk: the boot sector that was there before, and a record.

    0x000  the saved boot sector's code
    0x1b8  the record: here the saved sector had the disk signature and the partition table, which
           are the disk's own and never put back
    0x1fe  the saved boot signature

The record also marks the sectors behind it as ours, so that a later run may use them again.
"""

import contextlib
import struct
from dataclasses import dataclass
from typing import Final

from pybuild import loadtable
from pybuild.bootproto import SECTOR
from pybuild.regions import Region
from pybuild.splice import DISK_OWN, keep_disk_own

_MAGIC: Final = b"BspSaved"
_RECORD: Final = struct.Struct("<8sIQQQ")  # magic, checksum, LBA, sectors, sectors claimed
_CHECKSUM: Final = slice(DISK_OWN.start + 8, DISK_OWN.start + 12)


class DamagedError(Exception):
    """This is no record, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved boot sector.

    Attributes:
        sector: its 512 bytes; read back, it has zeros where the disk's own would be.
        own: the LBAs of this sector and the payload behind it.
        claimed: the same, with what is left behind them of older payloads.
    """

    sector: bytes
    own: Region
    claimed: Region

    def encode(self) -> bytes:
        """The 512 bytes to write."""
        blanked = self._with_checksum(0)
        return self._with_checksum(loadtable.checksum([blanked]))

    def _with_checksum(self, checksum: int) -> bytes:
        record = bytearray(SECTOR)
        place = (self.own.start, self.own.size, self.claimed.size)
        _RECORD.pack_into(record, DISK_OWN.start, _MAGIC, checksum, *place)
        return keep_disk_own(self.sector, bytes(record))


def decode(sector: bytes, lba: int) -> Saved:
    """What a sector holds.

    Args:
        sector: its bytes.
        lba: where it was read.

    Raises:
        DamagedError: not such a record, or one that was changed.
    """
    magic, checksum, at, sectors, claimed = _RECORD.unpack_from(sector, DISK_OWN.start)
    blanked = sector[: _CHECKSUM.start] + bytes(4) + sector[_CHECKSUM.stop :]
    is_record = (magic, at) == (_MAGIC, lba) and loadtable.checksum([blanked]) == checksum
    if not (is_record and 0 < sectors <= claimed):
        raise DamagedError(f"sector {lba} holds no record, or a damaged one")
    own, ours = Region("payload", lba, lba + sectors), Region("payloads", lba, lba + claimed)
    return Saved(keep_disk_own(sector, bytes(SECTOR)), own, ours)


def search(sectors: bytes, lba: int) -> list[Saved]:
    """The intact records among sectors.

    Args:
        sectors: their bytes.
        lba: where the first was read.
    """
    found = []
    for offset in range(0, len(sectors), SECTOR):
        if sectors.startswith(_MAGIC, offset + DISK_OWN.start):
            with contextlib.suppress(DamagedError):
                sector = sectors[offset : offset + SECTOR]
                found.append(decode(sector, lba + offset // SECTOR))
    return found
