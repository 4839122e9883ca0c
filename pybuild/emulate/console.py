"""COM1 and a VGA's screen, for code in protected or long mode that has something to say."""

from collections.abc import Sequence
from typing import Final, NoReturn

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc

from pybuild import vga
from pybuild.emulate.bios import COM1, LINE_STATUS
from pybuild.emulate.cpu import ContractError, State
from pybuild.emulate.memory import PAGE

SCREEN: Final = vga.ADDRESS
SCREEN_SIZE: Final = 4000  # bytes: 25 rows of 80 characters
_EMPTY: Final = 0x60
_NOT_YET: Final = 3  # how often it finds COM1 still sending


class Console:
    """A machine's hardware, if that is all it needs; it goes no further when a line was said.

    Attributes:
        said: what COM1 has got.
    """

    cpu: int | None = None
    writes: Sequence[tuple[int, int]] = ((SCREEN, SCREEN + SCREEN_SIZE),)

    def __init__(self) -> None:
        self.stopped = ""
        self.said = b""
        self._busy = 0

    def attach(self, uc: Uc) -> None:
        """Adds COM1, and the screen's memory."""
        uc.hook_add(uc_const.UC_HOOK_INSN, self._in, None, 1, 0, x86_const.UC_X86_INS_IN)
        uc.hook_add(uc_const.UC_HOOK_INSN, self._out, None, 1, 0, x86_const.UC_X86_INS_OUT)
        uc.mem_map(SCREEN, PAGE)
        self.uc = uc

    def interrupt(self, number: int, _now: State) -> NoReturn:
        """There is no BIOS in these modes."""
        raise ContractError(f"raises interrupt or exception {number:#x}")

    def halted(self, _now: State) -> NoReturn:
        """Nothing here ends a HLT."""
        raise ContractError("halts")

    def detach(self) -> None:
        """The screen stays where it is."""

    def line_said(self) -> None:
        """What happens behind a line feed."""
        self.stopped = f"says {self.said.decode(errors='replace').rstrip()!r}"
        self.uc.emu_stop()

    def _in(self, _uc: Uc, port: int, _size: int, _data: object) -> int:
        if port != LINE_STATUS:
            raise ContractError(f"reads port {port:#x}")
        self._busy = (self._busy + 1) % _NOT_YET
        return 0 if self._busy else _EMPTY

    def _out(self, _uc: Uc, port: int, size: int, value: int, _data: object) -> None:
        if (port, size) != (COM1, 1):
            raise ContractError(f"writes {size} bytes to port {port:#x}")
        if self._busy:
            raise ContractError("writes to COM1 while that is still sending")
        self.said += bytes([value])
        if self.said.endswith(b"\n"):
            self.line_said()
