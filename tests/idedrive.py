"""A PCI IDE controller with disks and CD drives for the simulated PC of bios.py; faults of each.

Strict where real hardware is not: whoever calls the BIOS before everything is as the BIOS left it,
writes to a drive that is busy, or makes a table for DMA that some controller would not take, fails.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from idechannel import READY, Channel, Drive
from unicorn.unicorn_py3.unicorn import Uc

from pybuild.emulate.bios import Bios
from pybuild.emulate.biosdisk import SECTOR
from pybuild.emulate.cpu import ContractError

INTEL: Final = 0x8086
_LBA_48: Final = 0x0400  # of word 83 of a disk's identity

ERROR, DATA, BUSY = 0x01, 0x08, 0x80  # status
_FEATURES, _COUNT, _DEVICE, _COMMAND = 1, 2, 6, 7
_PARAMETERS: Final = range(2, 6)
_PACKET, _IDENTIFY_PACKET, _READ_10 = 0xA0, 0xA1, 0x28
_IDENTIFY, _READ_DMA, _READ_DMA_EXT = 0xEC, 0xC8, 0x25
_CONTROL_QUIET, _CONTROL_RESET = 0x02, 0x04
_START, _TO_MEMORY = 0x01, 0x08  # bus master command
_ACTIVE, _FAILED, _INTERRUPT = 0x01, 0x02, 0x04  # bus master status
_BASES: Final = {0x1F0: 0, 0x170: 1}
_CONTROLS: Final = {0x3F6: 0, 0x376: 1}
_MASTER: Final = 0xC000
_PCI_ADDRESS, _PCI_DATA = 0xCF8, 0xCFC
_FUNCTION: Final = 0x8000_0900  # device 1, function 1, as in PIIX3
_PCI_BIOS_PRESENT: Final = 0xB101
_LOOKS: Final = 12  # at the status until something is done
_SECONDS_A_PORT: Final = 1e-6
_LONGEST: Final = 60  # seconds, whatever fails


@dataclass
class IdeBios(Bios):
    """The machine with the controller, in legacy mode.

    Attributes:
        channels: primary and secondary.
        vendor: the controller's maker.
        interface: its PCI programming interface.
        command: its PCI command register.
        pci: whether the BIOS knows PCI.
    """

    channels: tuple[Channel, Channel] = field(default_factory=lambda: (Channel({}), Channel({})))
    vendor: int = INTEL
    interface: int = 0x80
    command: int = 0x0001
    pci: bool = True
    _address: int = 0
    _found: tuple[object, ...] = ()

    def attach(self, uc: Uc) -> None:
        super().attach(uc)
        self._found = self.as_left()

    def as_left(self) -> tuple[object, ...]:
        return tuple((c.left(), c.table) for c in self.channels)

    def check_untouched(self, when: str, *, command: bool = False) -> None:
        if (now := self.as_left()) != self._found:
            raise ContractError(f"{when} with the channels as {now}, not {self._found}")
        if command and self.command & 0x0004:
            raise ContractError(f"{when} with the bus master on")
        for drive in (drive for c in self.channels for drive in c.drives.values()):
            if drive.status & (BUSY | DATA) and drive.fault != "dead":
                raise ContractError(f"{when} with a drive that is busy")

    def _on_look(self, uc: Uc, *more: object) -> None:
        super()._on_look(uc, *more)
        if self._seconds > _LONGEST:
            raise ContractError("waits for ever")

    def _serve(self, number: int) -> None:
        registers = self._registers
        if number == 0x13:
            self.check_untouched("calls int 13h")
        if number == 0x1A and registers["ax"] == _PCI_BIOS_PRESENT and self.pci:
            registers["edx"] = int.from_bytes(b"PCI ", "little")
            registers["ax"], registers["bx"], registers["cx"] = 0x0001, 0x0210, 0
            registers.carry = False
        else:
            super()._serve(number)

    # Ports

    def _in(self, uc: Uc, port: int, size: int, data: object) -> int:
        self._pass(_SECONDS_A_PORT)
        if port == _PCI_ADDRESS and size == 4:
            return self._address
        if port == _PCI_DATA and size == 4:
            return self._configuration()
        if (number := _BASES.get(port & ~7)) is not None:
            return self._read_register(self.channels[number], port & 7, size)
        if (number := _CONTROLS.get(port)) is not None:
            return self._status(self.channels[number])
        if port in range(_MASTER, _MASTER + 16):
            return self._read_master(self.channels[port >> 3 & 1], port & 7)
        return super()._in(uc, port, size, data)

    def _out(self, uc: Uc, port: int, size: int, value: int, data: object) -> None:
        self._pass(_SECONDS_A_PORT)
        if port == _PCI_ADDRESS and size == 4:
            self._address = value
        elif port == _PCI_DATA:
            if (self._address, size) != (_FUNCTION | 4, 2):
                raise ContractError(f"writes {size} bytes to PCI {self._address:#x}")
            self.command = value
        elif (number := _BASES.get(port & ~7)) is not None:
            self._write_register(self.channels[number], port & 7, size, value)
        elif (number := _CONTROLS.get(port)) is not None:
            self._write_control(self.channels[number], value)
        elif port in range(_MASTER, _MASTER + 16):
            self._write_master(self.channels[port >> 3 & 1], port & 7, size, value)
        else:
            super()._out(uc, port, size, value, data)

    def _configuration(self) -> int:
        if self._address & ~0xFF == 0x8000_0800:  # the ISA bridge, with more than function 0
            bridge = {0x00: 0x7000_8086, 0x08: 0x0601_0000, 0x0C: 0x0080_0000}
            return bridge.get(self._address & 0xFC, 0)
        if self._address & ~0xFF != _FUNCTION:
            return 0xFFFF_FFFF
        registers = {
            0x00: 0x7010 << 16 | self.vendor,
            0x04: 0x0280 << 16 | self.command,
            0x08: 0x0101 << 16 | self.interface << 8,
            0x0C: 0x0080_0000,
            0x20: _MASTER | 1,
        }
        return registers.get(self._address & 0xFC, 0)

    # A channel

    @staticmethod
    def _status(channel: Channel) -> int:
        if channel.drive is None:
            return 0
        if channel.looks:
            channel.looks -= 1
            return BUSY
        return channel.drive.status

    def _read_register(self, channel: Channel, register: int, size: int) -> int:
        if register == 0:
            if size != 2 or len(channel.data) < 2:
                raise ContractError("reads data that the drive does not have")
            word, channel.data = channel.data[:2], channel.data[2:]
            if not channel.data and channel.drive:
                channel.drive.status &= ~DATA
            return int.from_bytes(word, "little")
        if register == _COMMAND:
            return self._status(channel)
        if register == _DEVICE:
            return channel.selected
        return channel.parameters.get(register, (0, 0))[0]

    def _write_register(self, channel: Channel, register: int, size: int, value: int) -> None:
        drive = channel.drive
        if register == 0:
            if channel.packet is None or size != 2:
                raise ContractError("sends data that no drive waits for")
            channel.packet += value.to_bytes(2, "little")
            if len(channel.packet) == 12:
                self._execute(channel, channel.packet)
            return
        if drive and (channel.looks or drive.status & (BUSY | DATA)) and drive.fault != "dead":
            raise ContractError(f"writes to register {register} of a drive that is busy")
        if register == _FEATURES:
            channel.features = value
        elif register in _PARAMETERS:
            channel.parameters[register] = (value, channel.parameters.get(register, (0, 0))[0])
        elif register == _DEVICE:
            channel.selected = value | 0xA0
        elif register == _COMMAND and drive:
            self._command(channel, drive, value)

    def _command(self, channel: Channel, drive: Drive, command: int) -> None:
        if not channel.control & _CONTROL_QUIET:
            raise ContractError("gives a command whose interrupt the BIOS gets")
        channel.looks, drive.status = _LOOKS, READY
        if command == (_IDENTIFY if drive.is_disk else _IDENTIFY_PACKET):
            words = [drive.identity.get(i, 0) for i in range(SECTOR // 2)]
            channel.data = struct.pack(f"<{len(words)}H", *words)
            drive.status |= DATA
        elif command == _PACKET and not drive.is_disk and not drive.has_fault("refuses"):
            bytes_at_once = [channel.parameters[register][0] for register in (4, 5)]
            if channel.features != 1 or not any(bytes_at_once):
                raise ContractError("sends a packet without DMA, or for 0 bytes")
            channel.packet = None if drive.has_fault("wants data") else b""
            channel.parameters[_COUNT] = (1 if channel.packet is not None else 3, 0)
            drive.status |= DATA
            drive.commands += channel.packet is None
        elif command in (_READ_DMA, _READ_DMA_EXT) and drive.is_disk:
            self._read_disk(channel, drive, command)
        elif command in (_PACKET, _IDENTIFY_PACKET, _IDENTIFY):
            drive.status |= ERROR
            drive.commands += command == _PACKET
        else:
            raise ContractError(f"gives command {command:#x}")

    def _read_disk(self, channel: Channel, drive: Drive, command: int) -> None:
        now, before = ([channel.parameters[i][depth] for i in _PARAMETERS] for depth in (0, 1))
        lba = int.from_bytes(bytes(now[1:]), "little")
        if command == _READ_DMA:
            self._give(channel, drive, lba | (channel.selected & 0x0F) << 24, now[0] or 0x100)
        elif not drive.identity[83] & _LBA_48:
            raise ContractError("reads with an LBA of 48 bits that the drive does not have")
        else:
            lba |= int.from_bytes(bytes(before[1:]), "little") << 24
            self._give(channel, drive, lba, before[0] << 8 | now[0] or 0x10000)

    def _execute(self, channel: Channel, packet: bytes) -> None:
        drive = channel.drive
        assert drive
        operation, flags, lba, group, sectors, rest = struct.unpack(">BBIBH3s", packet)
        if operation != _READ_10 or flags or group or any(rest):
            raise ContractError(f"sends the packet {packet.hex()}")
        channel.packet, channel.looks, drive.status = None, _LOOKS, READY
        self._give(channel, drive, lba, sectors)

    @staticmethod
    def _give(channel: Channel, drive: Drive, lba: int, sectors: int) -> None:
        """Has the drive read for the bus master."""
        drive.reads.append((lba, sectors))
        if (
            drive.image is None
            or drive.has_fault("check")
            or (lba + sectors) * drive.sector > drive.image.sectors * SECTOR
        ):
            drive.status |= ERROR
        elif drive.has_fault("busy", "dead"):
            drive.status = BUSY
        else:
            scale = drive.sector // SECTOR
            data = bytearray(drive.image.read(lba * scale, sectors * scale))
            if drive.has_fault("garbage", "late"):
                data[77::SECTOR] = bytes(byte ^ 4 for byte in data[77::SECTOR])
            channel.silent = drive.has_fault("silent")
            channel.dma = bytes(data[: -drive.sector] if drive.has_fault("short") else data)
            drive.status |= ERROR if drive.has_fault("late") else 0
        if drive.has_fault("bus"):
            channel.dma = None
            channel.master_status |= _FAILED
        drive.commands += 1

    def _write_control(self, channel: Channel, value: int) -> None:
        if value & _CONTROL_RESET:
            channel.looks, channel.data, channel.packet, channel.dma = _LOOKS, b"", None, None
            for drive in channel.drives.values():
                drive.status = drive.status if drive.fault == "dead" else READY
        channel.control = value

    # The bus master

    @staticmethod
    def _read_master(channel: Channel, register: int) -> int:
        return {0: channel.master, 2: channel.master_status, 4: channel.table}[register]

    def _write_master(self, channel: Channel, register: int, size: int, value: int) -> None:
        if register == 4 and size == 4:
            channel.table = value
        elif register == 2:
            clears = value & (_FAILED | _INTERRUPT)
            channel.master_status = channel.master_status & ~clears & 0x07 | value & 0x60
        elif register == 0:
            channel.master = value
            channel.master_status &= ~_ACTIVE
            if value & _START:
                self._start(channel, value)
        else:
            raise ContractError(f"writes to register {register} of the bus master")

    def _start(self, channel: Channel, value: int) -> None:
        if not self.command & 0x0004 or not value & _TO_MEMORY:
            raise ContractError("starts the bus master, which is off or to read memory")
        channel.master_status |= _ACTIVE
        if channel.dma is None:
            return
        data, channel.dma, room, at, last = channel.dma, None, 0, channel.table, 0
        while not last:
            address, size, last = struct.unpack("<IHxB", self._registers.read(at, 8))
            if (address | size) & 1 or not size or address >> 16 != address + size - 1 >> 16:
                raise ContractError(f"makes a table for DMA with {size:#x} bytes at {address:#x}")
            if not channel.silent:
                self._registers.write(address, data[room : room + size])
            at, room = at + 8, room + size
        if room < len(data):
            raise ContractError(f"has room for {room} bytes where the drive has {len(data)}")
        if room == len(data):
            channel.master_status &= ~_ACTIVE
