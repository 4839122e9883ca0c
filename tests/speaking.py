"""A head that stops: what it says on COM1 and on a VGA's screen, and how it waits."""

from collections.abc import Sequence
from typing import Final, NoReturn

from heading import start
from held import TREE
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc

from pybuild.assembler import Tree
from pybuild.emulate.cpu import ContractError, State
from pybuild.emulate.headboot import SCRATCH, Boot
from pybuild.emulate.memory import PAGE

SCREEN: Final = 0xB8000
SCREEN_SIZE: Final = 4000  # bytes: 25 rows of 80 characters
_COM1: Final = 0x3F8
_LINE_STATUS: Final = 0x3FD
_EMPTY: Final = 0x60
_NOT_YET: Final = 3  # how often it finds COM1 still sending
_SPIN: Final = b"\xf3\x90\xeb\xfc"  # pause, and back to it
_TURNS: Final = 50


class Console:
    """COM1 and a screen; a processor that spins is stopped."""

    cpu: int | None = None
    writes: Sequence[tuple[int, int]] = ((SCREEN, SCREEN + SCREEN_SIZE),)

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        self.stopped = ""
        self.said = b""
        self.shown = ""
        self._busy = self._turns = 0

    def attach(self, uc: Uc) -> None:
        uc.hook_add(uc_const.UC_HOOK_INSN, self._in, None, 1, 0, x86_const.UC_X86_INS_IN)
        uc.hook_add(uc_const.UC_HOOK_INSN, self._out, None, 1, 0, x86_const.UC_X86_INS_OUT)
        image = self.boot.made.image.protected
        at = image.find(_SPIN)
        while at >= 0:
            here = self.boot.address + at
            uc.hook_add(uc_const.UC_HOOK_CODE, self._waits, begin=here, end=here)
            at = image.find(_SPIN, at + 1)
        self._uc = uc
        uc.mem_map(SCREEN, 0x1000)

    def detach(self) -> None:
        cells = self._uc.mem_read(SCREEN, SCREEN_SIZE)
        self.shown = bytes(cells[::2]).rstrip(b"\0").decode()
        if set(cells[1::2][: len(self.shown)]) - {0x0F}:
            raise ContractError("what is on the screen is not white")

    def interrupt(self, number: int, _now: State) -> NoReturn:
        raise ContractError(f"raises interrupt or exception {number:#x}")

    def halted(self, _now: State) -> None:
        raise ContractError("halts")

    def _in(self, _uc: Uc, port: int, _size: int, _data: object) -> int:
        if port != _LINE_STATUS:
            raise ContractError(f"reads port {port:#x}")
        self._busy = (self._busy + 1) % _NOT_YET
        return 0 if self._busy else _EMPTY

    def _out(self, _uc: Uc, port: int, size: int, value: int, _data: object) -> None:
        if (port, size) != (_COM1, 1):
            raise ContractError(f"writes {size} bytes to port {port:#x}")
        if self._busy:
            raise ContractError("writes to COM1 while that is still sending")
        self.said += bytes([value])

    def _waits(self, uc: Uc, _address: int, _size: int, _data: object) -> None:
        self._turns += 1
        if self._turns == _TURNS:
            self.stopped = "spins"
            uc.emu_stop()


def message(boot: Boot, tree: Tree = TREE, *, early: bool = True) -> str:
    """What the head of this image says before it stops.

    Args:
        boot: the image, and what the loader does.
        tree: where the heads are from.
        early: whether it finds out before it changes boot_params.

    Raises:
        ContractError: it doesn't, or has changed what is not the image's own.
    """
    console = Console(boot)
    outcome = start(boot, console, tree)
    if not console.stopped:
        raise ContractError("goes on")
    params = boot.boot_params
    own = [*boot.own, *boot.tables, (params + SCRATCH.start, params + SCRATCH.stop)]
    if not early:
        own += [boot.loaded, (params, params + PAGE)]
    changed = outcome.before.take(outcome.after, own).first_difference(outcome.after)
    if changed is not None:
        raise ContractError(f"stops, but has changed {changed:#x}")
    said = console.said.decode()
    if not said.endswith("\r\n") or console.shown != said.removesuffix("\r\n"):
        raise ContractError(f"says {said!r}, but shows {console.shown!r}")
    return console.shown
