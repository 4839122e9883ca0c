"""Disks and int 13h for the simulated PC of bios.py, with the faults that real ones have."""

import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pybuild.emulate.cpu import ContractError
from pybuild.emulate.registers import Registers

SECTOR: Final = 512
OK: Final = 0x00
INVALID: Final = 0x01
NOT_FOUND: Final = 0x04
DMA_BOUNDARY: Final = 0x09
CRC_ERROR: Final = 0x10
TIMEOUT: Final = 0x80
FOR_EVER: Final = 1 << 30  # failures
FLOPPY: Final = (80, 2, 18)  # cylinders, heads, sectors a track

_RESET, _READ, _GEOMETRY = 0x00, 0x02, 0x08
_EDD_CHECK, _EDD_READ, _EDD_PARAMETERS = 0x41, 0x42, 0x48
_EDD_ASKED, _EDD_ANSWER = 0x55AA, 0xAA55
_PACKET: Final = struct.Struct("<BBHHHQ")
_PARAMETERS: Final = struct.Struct("<HHIIIQH")
_DMA_PAGE: Final = 0x10000


class Image:
    """What a disk holds: pieces, and on every other sector a pattern of that sector's number."""

    def __init__(self, sectors: int) -> None:
        self.sectors = sectors  # of 512 bytes
        self._written: dict[int, bytes] = {}

    @staticmethod
    def _pattern(lba: int) -> bytes:
        return struct.pack("<Q", (lba + 1) * 0x9E37_79B9_7F4A_7C15 % (1 << 64)) * (SECTOR // 8)

    def put(self, lba: int, data: bytes) -> None:
        """Whole sectors change; what the data leaves of the last keeps the pattern."""
        for at in range(0, len(data), SECTOR):
            piece = data[at : at + SECTOR]
            number = lba + at // SECTOR
            self._written[number] = piece + self._pattern(number)[len(piece) :]

    def flip(self, lba: int, offset: int, bit: int) -> None:
        """Changes one bit of a sector."""
        sector = bytearray(self.read(lba, 1))
        sector[offset] ^= 1 << bit
        self._written[lba] = bytes(sector)

    def read(self, lba: int, sectors: int) -> bytes:
        """The bytes of so many sectors of 512."""
        return b"".join(self._written.get(i) or self._pattern(i) for i in range(lba, lba + sectors))


class Call(NamedTuple):
    """An int 13h, its sectors in the drive's own size, and the status that it had."""

    function: int
    lba: int
    sectors: int
    status: int


@dataclass
class Disk:
    """A drive, as its BIOS presents it.

    Attributes:
        image: what is on it.
        sector: bytes of its own sectors; whatever counts sectors below counts these.
        geometry: cylinders, heads, sectors a track; None = AH=02 and AH=08 fail, as on a CD.
        edd: "yes", "no" (AH=41h fails), "no reads" (its bit 0 is clear), "ignored" (AH=41h is an
            unknown function that sets nothing, not even CF).
        most: sectors that one call takes.
        most_says: what the packet's count is set to if more are asked for; None = it stays.
        dma_boundary: a transfer that crosses 64 KiB fails, as by floppies' DMA.
        across_tracks: AH=02 goes on behind a track's end.
        failures: how often a read of that sector fails before it succeeds.
        transfers_before: what of a failing read is transferred: the sectors before the bad one.
        cut: a call transfers at most this many sectors, says how many, and CF stays clear.
        resets_needed: a failed read goes on failing until a reset.
    """

    image: Image
    sector: int = SECTOR
    geometry: tuple[int, int, int] | None = (1024, 255, 63)
    edd: str = "yes"
    most: int = 127
    most_says: int | None = None
    dma_boundary: bool = False
    across_tracks: bool = False
    failures: dict[int, int] = field(default_factory=dict)
    failure: int = CRC_ERROR
    transfers_before: bool = False
    cut: int | None = None
    resets_needed: bool = False
    calls: list[Call] = field(default_factory=list)
    _stuck: bool = False

    def count(self, function: int) -> int:
        """How often a function, by its AH, was called."""
        return sum(call.function == function for call in self.calls)

    def reads(self) -> list[Call]:
        """The calls that were to read."""
        return [call for call in self.calls if call.function in (_READ, _EDD_READ)]

    def serve(self, registers: Registers) -> None:
        """Serves one int 13h."""
        function = registers["ah"]
        lba = sectors = 0
        if function == _READ:
            lba, sectors, status = self._read_chs(registers)
        elif function == _EDD_READ and self.edd == "yes":
            lba, sectors, status = self._read_edd(registers)
        elif function == _EDD_CHECK and self.edd == "ignored":
            return
        elif function == _EDD_CHECK and self.edd != "no":
            status = self._check_edd(registers)
        elif function == _EDD_PARAMETERS and self.edd == "yes":
            status = self._parameters(registers)
        elif function == _GEOMETRY:
            status = self._tell_geometry(registers)
        else:
            status = OK if function == _RESET else INVALID
            self._stuck = self._stuck and function != _RESET
        self.calls.append(Call(function, lba, sectors, status))
        if function != _EDD_CHECK or status != OK:
            registers["ah"] = status
        registers.carry = status != OK

    def _check_edd(self, registers: Registers) -> int:
        if registers["bx"] != _EDD_ASKED:
            return INVALID
        registers["bx"] = _EDD_ANSWER
        registers["ah"] = 0x30
        registers["cx"] = 7 if self.edd == "yes" else 6
        return OK

    def _parameters(self, registers: Registers) -> int:
        at = registers.linear("ds", "si")
        (size,) = struct.unpack("<H", registers.read(at, 2))
        if size < _PARAMETERS.size:
            return INVALID
        total = self.image.sectors * SECTOR // self.sector
        parameters = _PARAMETERS.pack(_PARAMETERS.size, 0, 0, 0, 0, total, self.sector)
        registers.write(at, parameters)
        return OK

    def _tell_geometry(self, registers: Registers) -> int:
        if self.geometry is None:
            return INVALID
        cylinders, heads, sectors = self.geometry
        last = min(cylinders, 1024) - 1
        registers["cx"] = (last & 0xFF) << 8 | last >> 8 << 6 | sectors
        registers["dx"] = heads - 1 << 8 | 1
        registers["bl"] = 4
        registers["es"], registers["di"] = 0xF000, 0xEFC7  # the drive's parameter table
        return OK

    def _read_chs(self, registers: Registers) -> tuple[int, int, int]:
        count, cx, head = registers["al"], registers["cx"], registers["dh"]
        cylinder, sector = cx >> 8 | (cx & 0xC0) << 2, cx & 0x3F
        if self.geometry is None:
            return 0, count, INVALID
        cylinders, heads, track = self.geometry
        if not (cylinder < cylinders and head < heads and 1 <= sector <= track and count):
            return 0, count, NOT_FOUND
        lba = (cylinder * heads + head) * track + sector - 1
        if not self.across_tracks and sector - 1 + count > track:
            return lba, count, NOT_FOUND
        done, status = self._transfer(registers, "es", registers["bx"], lba, count)
        registers["al"] = done
        return lba, count, status

    def _read_edd(self, registers: Registers) -> tuple[int, int, int]:
        at = registers.linear("ds", "si")
        size, zero, count, offset, segment, lba = _PACKET.unpack(registers.read(at, 16))
        if size != _PACKET.size or zero:
            raise ContractError(f"int 13h AH=42h with a packet of {size} bytes, byte 1 = {zero}")
        if count > self.most:
            if self.most_says is not None:
                registers.write(at + 2, struct.pack("<H", self.most_says))
            return lba, count, INVALID
        done, status = self._transfer(registers, segment, offset, lba, count)
        registers.write(at + 2, struct.pack("<H", done))
        return lba, count, status

    def _transfer(
        self, registers: Registers, segment: int | str, offset: int, lba: int, count: int
    ) -> tuple[int, int]:
        """Reads to memory; how many sectors were, and the status."""
        start = 16 * (registers[segment] if isinstance(segment, str) else segment) + offset
        size = count * self.sector
        if offset + size > 0x10000:
            raise ContractError(f"int 13h reads {size:#x} bytes to offset {offset:#x} of a segment")
        crosses = start // _DMA_PAGE != (start + size - 1) // _DMA_PAGE
        if count > self.most or not count:
            return 0, INVALID
        if self.dma_boundary and crosses:
            return 0, DMA_BOUNDARY
        if (lba + count) * self.sector > self.image.sectors * SECTOR:
            return 0, NOT_FOUND
        status = OK
        done = count if self.cut is None else min(self.cut, count)
        if self._stuck:
            return 0, self.failure
        for bad in sorted(self.failures):
            if lba <= bad < lba + done and self.failures[bad]:
                self.failures[bad] -= 1
                done, status = bad - lba if self.transfers_before else 0, self.failure
                self._stuck = self.resets_needed
        scale = self.sector // SECTOR
        registers.write(start, self.image.read(lba * scale, done * scale))
        return done, status
