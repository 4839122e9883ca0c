"""A PC round unicorn's CPU: BIOS services and ports, with the faults that real machines have.

It is strict where real BIOSes are not: they serve who calls them with DF set, with segments that
are no real-mode ones or with an interrupt table elsewhere, most of the time. It uses the caller's
stack and spoils registers as the worst of them do. Time passes only by what is done here.
"""

import ctypes
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc

from pybuild.contract import GENERAL, SEGMENTS
from pybuild.emulate.biosdisk import Disk
from pybuild.emulate.biosram import Ram
from pybuild.emulate.cpu import FLAGS, ContractError, Segment, State
from pybuild.emulate.machine import REAL_MODE_VECTORS
from pybuild.emulate.registers import Registers

# What the worst BIOSes leave of the registers, all functions taken together.
SPOILS: Final = frozenset(GENERAL) - {"esp"}
DISK_SPOILS: Final = frozenset({"ds", "es", "fs", "gs", "df", "if"})
STACK: Final = 256  # bytes of its caller's stack that the BIOS uses
TICKS_AT: Final = 0x46C
TICKS_A_DAY: Final = 0x1800B0
TICKS_A_SECOND: Final = 18.2065
_FOR_GOOD: Final = 400  # HLTs in a row, with nothing asked of the BIOS: longer than any wait

_GATE_SIZE: Final = 0x10000
_HIGH: Final = 0x100000
_NMI_MASKED: Final = 0x80
_PORT_92, _PORT_92_RESET, _A20_BIT = 0x92, 1, 2
_KBC_STATUS, _KBC_DATA = 0x64, 0x60
COM1: Final = 0x3F8
_LINE_CONTROL, LINE_STATUS, _DIVISOR_LATCH = COM1 + 3, COM1 + 5, 0x80
_PCI_ADDRESS, _PCI_DATA = 0xCF8, range(0xCFC, 0xD00)
_FLOPPY_OUTPUT, _DELAY, _CMOS = 0x3F2, 0x80, (0x70, 0x71)
_STUCK_CHARACTERS: Final = 2
_MOST_LOOKS: Final = 0x10000  # at COM1's line status, for each character
_SECONDS_A_LOOK: Final = 0.001  # what passes from one look at the tick counter to the next

# The registers in which a function answers, by its interrupt and AH; a BIOS may spoil all others.
_ANSWERS: Final[Mapping[tuple[int, int], frozenset[str]]] = {
    (0x10, 0x0E): frozenset(),
    (0x13, 0x08): frozenset({"eax", "ecx", "edx", "ebx"}),
    (0x13, 0x41): frozenset({"eax", "ecx", "ebx"}),
    (0x15, 0xE8): frozenset({"eax", "ecx", "ebx"}),
    (0x15, 0x88): frozenset({"eax"}),
    (0x1A, 0x00): frozenset({"eax", "ecx", "edx"}),
}
_ANSWERS_OF_OTHERS: Final = frozenset({"eax"})
_E801: Final = 0xE801
_SERVED: Final = (0x10, 0x12, 0x13, 0x15, 0x16, 0x1A)


@dataclass
class Bios:
    """The machine.

    Attributes:
        drives: by the BIOS's number; a function for another fails.
        ram: what it says about memory.
        spoils: general registers that each function leaves as noise if it has no answer in them.
        disk_spoils: what int 13h spoils besides: segment registers, "df" (set), "if" (clear).
        seconds_a_read: what each int 13h takes.
        ticks: the tick counter at the start.
        patience: int 13h calls after which nobody can say that they are bounded.
        com1: "ready", "none", or "stuck": not ready to send, and gone after a few characters.
        a20: what opens the gate: "open" (it is), "bios", "port 92", "keyboard" or "nothing".
        keyboard_controller: "ready", "busy" or "none".
        cpu: unicorn's number of the CPU's model.
    """

    drives: Mapping[int, Disk]
    ram: Ram = field(default_factory=Ram)
    spoils: frozenset[str] = frozenset()
    disk_spoils: frozenset[str] = frozenset()
    seconds_a_read: float = 0.0
    ticks: int = 0x1000
    patience: int = 2000
    com1: str = "ready"
    a20: str = "open"
    keyboard_controller: str = "ready"
    cpu: int | None = None

    # The tick counter and its midnight flag.
    writes: Sequence[tuple[int, int]] = ((TICKS_AT, TICKS_AT + 5),)
    screen: str = ""
    serial: str = ""
    stopped: str = ""
    calls: list[tuple[int, int]] = field(default_factory=list)  # interrupt number, AX
    a20_tried: list[str] = field(default_factory=list)
    nmi_masked: bool = False
    floppy_output: int | None = None  # the controller's digital output register
    serial_setup: dict[int, int] = field(default_factory=dict)
    _seconds: float = 0.0
    _port_92: int = 0
    _keyboard_command: int = 0
    _sent: int = 0
    _looks: int = 0
    _halts: int = 0
    _noise: random.Random = field(default_factory=lambda: random.Random(15))

    # What machine.Hardware asks for

    def attach(self, uc: Uc) -> None:
        """Adds its hooks, and shuts the A20 gate if it is to be."""
        self._uc = uc
        self._registers = Registers(uc)
        uc.hook_add(uc_const.UC_HOOK_INSN, self._in, None, 1, 0, x86_const.UC_X86_INS_IN)
        uc.hook_add(uc_const.UC_HOOK_INSN, self._out, None, 1, 0, x86_const.UC_X86_INS_OUT)
        uc.hook_add(uc_const.UC_HOOK_MEM_READ, self._on_look, begin=TICKS_AT - 3, end=TICKS_AT + 4)
        self._pass(0)
        self._shut = self.a20 != "open"
        if self._shut:
            self._beyond = bytes(uc.mem_read(_HIGH, _GATE_SIZE))
            low = bytes(uc.mem_read(0, _GATE_SIZE))
            self._low = ctypes.create_string_buffer(low, _GATE_SIZE)
            for at in (0, _HIGH):
                uc.mem_unmap(at, _GATE_SIZE)
                uc.mem_map_ptr(at, _GATE_SIZE, uc_const.UC_PROT_ALL, ctypes.addressof(self._low))

    def detach(self) -> None:
        """Opens the gate, so that all of memory can be read."""
        self._open_gate()

    def halted(self, now: State) -> None:
        """A timer tick ends the HLT, if there can be one."""
        self._halts += 1
        if now.registers["if"] and not self.nmi_masked and self._halts < _FOR_GOOD:
            self._pass(1 / TICKS_A_SECOND)
        else:
            self.stopped = "halt"

    def interrupt(self, number: int, now: State) -> list[tuple[int, int]]:
        """Serves it; raises ContractError if no PC would survive how it was asked."""
        self._halts = 0
        self._registers.wrote.clear()
        self._check_caller(number, now)
        self._use_stack(now)
        registers = self._registers
        self.calls.append((number, registers["ax"]))
        if number in (0x18, 0x19):
            self.stopped = f"int {number:x}h"
            self._uc.emu_stop()
            return self._registers.wrote
        if number not in _SERVED:
            raise ContractError(f"raises interrupt or exception {number:#x}")
        answers = _ANSWERS.get((number, registers["ah"]), _ANSWERS_OF_OTHERS)
        if registers["ax"] == _E801:
            answers |= {"edx"}
        self._serve(number)
        self._spoil(number, answers)
        return self._registers.wrote

    def _check_caller(self, number: int, now: State) -> None:
        what = f"calls int {number:x}h"
        for name in SEGMENTS:
            if now.segments[name] != (real := Segment(16 * now.registers[name], 0xFFFF, False)):
                raise ContractError(f"{what} with {name} as {now.segments[name]}, not {real}")
        if now.registers["df"]:
            raise ContractError(f"{what} with DF set")
        _, table, limit, _ = self._uc.reg_read(x86_const.UC_X86_REG_IDTR)
        if table or limit < REAL_MODE_VECTORS - 1:
            raise ContractError(f"{what} with its table at {table:#x}, limit {limit:#x}")
        if self.nmi_masked:
            raise ContractError(f"{what} with the NMI masked")
        if number == 0x13 and not now.registers["if"]:
            raise ContractError(f"{what} with IF clear: some drives interrupt when they are done")
        if now.registers["esp"] & 0xFFFF < STACK:
            raise ContractError(f"{what} with esp={now.registers['esp']:#x}: no stack for it")

    def _use_stack(self, now: State) -> None:
        """Overwrites what it uses; the caller's contract says whether it may."""
        top = 16 * now.registers["ss"] + (now.registers["esp"] & 0xFFFF)
        self._registers.write(top - STACK, self._noise.randbytes(STACK))

    def _serve(self, number: int) -> None:
        registers = self._registers
        if number == 0x10 and registers["ah"] == 0x0E:
            self.screen += chr(registers["al"])
        elif number == 0x12:
            registers["ax"] = self.ram.conventional
        elif number == 0x13:
            self._disk()
        elif number == 0x15 and registers["ah"] == 0x24:
            self._int15_a20()
        elif number == 0x15:
            self.ram.serve(registers)
        elif number == 0x16:
            registers["ax"] = 0x1C0D  # Enter
        elif number == 0x1A and registers["ah"] == 0:
            registers["cx"], registers["dx"] = divmod(self._now(), 0x10000)
            registers["al"] = 0
        else:
            registers.carry = True

    def _disk(self) -> None:
        if sum(number == 0x13 for number, _ in self.calls) > self.patience:
            raise ContractError(f"calls int 13h more than {self.patience} times")
        drive = self._registers["dl"]
        self._pass(self.seconds_a_read)
        if drive in self.drives:
            self.drives[drive].serve(self._registers)
        else:
            self._registers["ah"] = 0x01
            self._registers.carry = True

    def _int15_a20(self) -> None:
        self._registers["ah"] = 0
        self._registers.carry = False
        if self._registers["al"] == 1 and not self._try("bios"):
            self._registers["ah"] = 0x86
            self._registers.carry = True

    def _spoil(self, number: int, answers: frozenset[str]) -> None:
        for name in sorted(self.spoils - answers):
            self._registers[name] = self._noise.randrange(1 << 32)
        if number != 0x13:
            return
        for name in sorted(self.disk_spoils):
            if name in FLAGS:
                self._registers.set_flags(FLAGS[name], FLAGS[name] if name == "df" else 0)
            else:
                self._registers[name] = self._noise.randrange(0x10000)

    # Time

    def _now(self) -> int:
        return (self.ticks + int(self._seconds * TICKS_A_SECOND)) % TICKS_A_DAY

    def _pass(self, seconds: float) -> None:
        before = self._now()
        self._seconds += seconds
        now = self._now()
        self._registers.write(TICKS_AT, struct.pack("<I", now))
        if now < before:
            self._registers.write(TICKS_AT + 4, b"\x01")

    def _on_look(self, uc: Uc, *_: object) -> None:
        # With interrupts off the clock stands still for who looks at it.
        if uc.reg_read(x86_const.UC_X86_REG_EFLAGS) & FLAGS["if"]:
            self._pass(_SECONDS_A_LOOK)

    # The A20 gate: while it is shut the same host memory is at 0 and at 1 MiB

    def _try(self, way: str) -> bool:
        self.a20_tried.append(way)
        if way == self.a20:
            self._open_gate()
        return not self._shut

    def _open_gate(self) -> None:
        if self._shut:
            self._uc.mem_unmap(_HIGH, _GATE_SIZE)
            self._uc.mem_map(_HIGH, _GATE_SIZE)
            self._uc.mem_write(_HIGH, self._beyond)
            self._shut = False

    # Ports

    def _in(self, _uc: Uc, port: int, size: int, _data: object) -> int:
        nothing = (1 << 8 * size) - 1
        if port == LINE_STATUS:
            return self._line_status()
        if port in range(COM1, COM1 + 8):
            return nothing if self.com1 == "none" else self.serial_setup.get(port, 0)
        if port == _KBC_STATUS:
            return {"ready": 0x14, "busy": 0x16, "none": 0xFF}[self.keyboard_controller]
        if port == _PORT_92:
            return self._port_92
        if port in (*_CMOS, _KBC_DATA, _PCI_ADDRESS, *_PCI_DATA):
            return nothing
        raise ContractError(f"reads port {port:#x}")

    def _line_status(self) -> int:
        if self.com1 != "stuck" or self._sent > _STUCK_CHARACTERS:
            return 0x60 if self.com1 == "ready" else 0xFF
        self._looks += 1
        if self._looks > _MOST_LOOKS:
            raise ContractError("waits for COM1 for ever")
        return 0

    def _out(self, _uc: Uc, port: int, _size: int, value: int, _data: object) -> None:
        if port in range(COM1, COM1 + 8):
            if port == COM1 and not self.serial_setup.get(_LINE_CONTROL, 0) & _DIVISOR_LATCH:
                self.serial += chr(value) if self.com1 == "ready" else ""
                self._sent, self._looks = self._sent + 1, 0
            else:
                self.serial_setup[port] = value
        elif port == _CMOS[0]:
            self.nmi_masked = bool(value & _NMI_MASKED)
            if self.nmi_masked and self._registers["eflags"] & FLAGS["if"]:
                raise ContractError("masks the NMI, but no other interrupts")
        elif port == _PORT_92:
            if value & _PORT_92_RESET:
                raise ContractError("resets the machine by port 0x92")
            self._port_92 = value
            if value & _A20_BIT:
                self._try("port 92")
        elif port in (_KBC_STATUS, _KBC_DATA):
            if self.keyboard_controller != "ready":
                raise ContractError("writes to a keyboard controller that takes nothing")
            if (self._keyboard_command, port, value) == (0xD1, _KBC_DATA, 0xDF):
                self._try("keyboard")
            self._keyboard_command = value if port == _KBC_STATUS else 0
        elif port == _FLOPPY_OUTPUT:
            self.floppy_output = value
        elif port not in (_DELAY, _PCI_ADDRESS):
            raise ContractError(f"writes {value:#x} to port {port:#x}")
