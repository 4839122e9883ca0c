"""A head that stops: what it says on COM1 and on a VGA's screen, and how it waits."""

from typing import Final

from heading import start
from held import TREE
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3.unicorn import Uc

from pybuild.assembler import Tree
from pybuild.emulate.console import SCREEN, SCREEN_SIZE, Console
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.headboot import SCRATCH, Boot
from pybuild.emulate.memory import PAGE

_SPIN: Final = b"\xf3\x90\xeb\xfc"  # pause, and back to it
_TURNS: Final = 50


class Spinning(Console):
    """A console that lets the processor go on until it spins."""

    def __init__(self, boot: Boot) -> None:
        super().__init__()
        self.boot = boot
        self.shown = ""
        self._turns = 0

    def attach(self, uc: Uc) -> None:
        super().attach(uc)
        image = self.boot.made.image.protected
        at = image.find(_SPIN)
        while at >= 0:
            here = self.boot.address + at
            uc.hook_add(uc_const.UC_HOOK_CODE, self._waits, begin=here, end=here)
            at = image.find(_SPIN, at + 1)

    def detach(self) -> None:
        cells = self.uc.mem_read(SCREEN, SCREEN_SIZE)
        self.shown = bytes(cells[::2]).rstrip(b"\0").decode()
        if set(cells[1::2][: len(self.shown)]) - {0x0F}:
            raise ContractError("what is on the screen is not white")

    def line_said(self) -> None:
        pass

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
    console = Spinning(boot)
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
