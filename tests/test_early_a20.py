"""The early stage and the A20 gate: each way to open it, and what is said when none does.

Unicorn has no gate, so the test makes one: while it is shut the same host memory is mapped at 0 and
at 1 MiB.
"""

import ctypes
from dataclasses import dataclass, field

import pytest
from unicorn import UC_ARCH_X86, UC_HOOK_INSN, UC_HOOK_INTR, UC_MODE_16, UC_PROT_ALL
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import Uc

from pybuild import paths
from pybuild.assembler import Tree

pytestmark = pytest.mark.contract("real/early")

EARLY = Tree(paths.ROOT, paths.BUILD)
BASE, RELOCATOR, SETUP_CS = 0x99010, 0x200000, 0x9020
STACK_SEGMENT, STACK_POINTER = 0x9000, 0x8FF0
HIGH_MEMORY, HIGH_PAGES = 0x100000, 0x10000
PORT_92, PORT_92_A20, COM1_DATA, COM1_LINE_STATUS, READY = 0x92, 0x02, 0x3F8, 0x3FD, 0x20
COM1_LINE_CONTROL, DIVISOR_LATCH, EIGHT_BITS_NO_PARITY, BAUD_115200 = 0x3FB, 0x80, 0x03, 1
KBC_COMMAND, KBC_DATA = 0x64, 0x60
ENABLE_A20, CARRY = 0x2401, 1


@dataclass
class Machine:
    """A PC whose gate is shut, and which of the ways to open it work on it."""

    opened_by: str
    keyboard_controller: str = "ready"
    commands: list[tuple[int, int]] = field(default_factory=list)
    memory: ctypes.Array[ctypes.c_char] = field(
        default_factory=lambda: ctypes.create_string_buffer(HIGH_MEMORY + 2 * HIGH_PAGES)
    )
    tried: list[str] = field(default_factory=list)
    screen: str = ""
    serial: str = ""
    line_control: int = 0
    divisor: int = 0

    def run(self) -> int:
        """Runs the early stage up to the relocator or a halt; returns where it stands."""
        self.uc = Uc(UC_ARCH_X86, UC_MODE_16)
        start = ctypes.addressof(self.memory)
        self.uc.mem_map_ptr(0, HIGH_MEMORY, UC_PROT_ALL, start)
        self.uc.mem_map_ptr(HIGH_MEMORY, HIGH_PAGES, UC_PROT_ALL, start)
        self.uc.mem_map(RELOCATOR, 0x1000)
        early = EARLY.load("real/early")
        symbols = {"relocator": RELOCATOR, "setup_cs": SETUP_CS}
        self.uc.mem_write(BASE, early.bind(symbols, base=BASE))
        self.uc.reg_write(x86.UC_X86_REG_CS, BASE // 16)
        self.uc.reg_write(x86.UC_X86_REG_SS, STACK_SEGMENT)
        self.uc.reg_write(x86.UC_X86_REG_ESP, STACK_POINTER)
        self.uc.hook_add(UC_HOOK_INTR, self._interrupt)
        self.uc.hook_add(UC_HOOK_INSN, self._in, None, 1, 0, x86.UC_X86_INS_IN)
        self.uc.hook_add(UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)
        self.uc.emu_start(BASE, RELOCATOR, count=20_000_000)
        where: int = self.uc.reg_read(x86.UC_X86_REG_EIP)
        return where

    def _open(self, way: str) -> bool:
        self.tried.append(way)
        if way == self.opened_by:
            self.uc.mem_unmap(HIGH_MEMORY, HIGH_PAGES)
            beyond = ctypes.addressof(self.memory) + HIGH_MEMORY
            self.uc.mem_map_ptr(HIGH_MEMORY, HIGH_PAGES, UC_PROT_ALL, beyond)
        return way == self.opened_by

    def _interrupt(self, uc: Uc, number: int, _: object) -> None:
        ax = uc.reg_read(x86.UC_X86_REG_AX)
        if number == 0x15 and ax == ENABLE_A20:
            if not self._open("bios"):
                flags = uc.reg_read(x86.UC_X86_REG_EFLAGS)
                uc.reg_write(x86.UC_X86_REG_EFLAGS, flags | CARRY)
            # A BIOS may spoil what it likes.
            for register in (x86.UC_X86_REG_EBX, x86.UC_X86_REG_ESI, x86.UC_X86_REG_EDI):
                uc.reg_write(register, 0xDEADBEEF)
        elif number == 0x10 and ax >> 8 == 0x0E:
            self.screen += chr(ax & 0xFF)

    def _in(self, _: Uc, port: int, __: int, ___: object) -> int:
        if port == KBC_COMMAND:
            return {"ready": 0x14, "busy": 0x16, "none": 0xFF}[self.keyboard_controller]
        return READY if port == COM1_LINE_STATUS else 0

    def _out(self, _: Uc, port: int, __: int, value: int, ___: object) -> None:
        if port == COM1_LINE_CONTROL:
            self.line_control = value
        elif port == COM1_DATA and self.line_control & DIVISOR_LATCH:
            self.divisor = value
        elif port == COM1_DATA:
            self.serial += chr(value)
        elif port == PORT_92:
            assert value & 1 == 0, "that would reset the machine"
            if value & PORT_92_A20:
                self._open("port 92")
        elif port in (KBC_COMMAND, KBC_DATA):
            assert self.keyboard_controller == "ready"
            self.commands.append((port, value))
            if self.commands[-2:] == [(KBC_COMMAND, 0xD1), (KBC_DATA, 0xDF)]:
                self._open("keyboard controller")


@pytest.mark.parametrize(
    ("opened_by", "tried"),
    [
        ("bios", ["bios"]),
        ("port 92", ["bios", "port 92"]),
        ("keyboard controller", ["bios", "port 92", "keyboard controller"]),
    ],
)
def test_gate_is_opened(opened_by: str, tried: list[str]) -> None:
    machine = Machine(opened_by)
    assert machine.run() == RELOCATOR
    assert machine.tried == tried
    assert machine.uc.reg_read(x86.UC_X86_REG_EBX) == 0
    assert not machine.screen + machine.serial


@pytest.mark.parametrize("keyboard_controller", ["ready", "busy", "none"])
def test_gate_that_stays_shut_is_reported_on_screen_and_serial(keyboard_controller: str) -> None:
    machine = Machine("nothing", keyboard_controller)
    assert machine.run() != RELOCATOR
    tried = ["keyboard controller"] if keyboard_controller == "ready" else []
    assert machine.tried == ["bios", "port 92", *tried]
    assert machine.screen == machine.serial
    assert machine.serial == "bootsplice: the A20 gate stays shut: cannot move the kernel\r\n"
    assert (machine.line_control, machine.divisor) == (EIGHT_BITS_NO_PARITY, BAUD_115200)
