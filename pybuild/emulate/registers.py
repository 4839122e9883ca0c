"""What a BIOS function sees of the machine: registers by name, CF, memory."""

from typing import Final

from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc, UcError

from pybuild.emulate.cpu import ContractError

_CF: Final = 1


class Registers:
    """A unicorn's registers and memory, for code that serves its interrupts."""

    def __init__(self, uc: Uc) -> None:
        self._uc = uc
        self.wrote: list[tuple[int, int]] = []  # the ranges of memory, in their order

    @staticmethod
    def _number(name: str) -> int:
        return int(getattr(x86_const, f"UC_X86_REG_{name.upper()}"))

    def __getitem__(self, name: str) -> int:
        return int(self._uc.reg_read(self._number(name)))

    def __setitem__(self, name: str, value: int) -> None:
        self._uc.reg_write(self._number(name), value)

    def set_flags(self, mask: int, value: int) -> None:
        """Changes the flags in the mask."""
        self["eflags"] = self["eflags"] & ~mask | value

    @property
    def carry(self) -> bool:
        """CF."""
        return bool(self["eflags"] & _CF)

    @carry.setter
    def carry(self, value: bool) -> None:
        self.set_flags(_CF, _CF if value else 0)

    def linear(self, segment: str, offset: str) -> int:
        """The real-mode address in two registers."""
        return 16 * self[segment] + self[offset]

    def read(self, address: int, size: int) -> bytes:
        """What is there; raises ContractError if no memory is."""
        try:
            return bytes(self._uc.mem_read(address, size))
        except UcError as error:
            raise ContractError(f"has the BIOS read {size:#x} bytes at {address:#x}") from error

    def write(self, address: int, data: bytes) -> None:
        """Unlike a write of the binary's own no hook sees it: the comparison afterwards does."""
        self.wrote.append((address, address + len(data)))
        try:
            self._uc.mem_write(address, data)
        except UcError as error:
            raise ContractError(f"has the BIOS write {len(data):#x} to {address:#x}") from error
