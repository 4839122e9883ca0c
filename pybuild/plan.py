"""A plan: everything that has to happen between power-on and the kernel's setup code, as data.

Every target performs the same plan by its own means. Addresses are physical, sizes are bytes. Each
`why` is the rule that a decision follows, in a few words for a person.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from pybuild.regions import Region

Mover = Literal["hook", "early"]


@dataclass(frozen=True, slots=True)
class Load:
    """A part and the address where it must be before the boot sector jumps.

    The parts are `setup` (the real-mode part), `cmdline` (with its NUL), `kernel` (the
    protected-mode part with the relocator behind it), `initrd`, `early` (the early stage) and,
    where a loader of ours loads it and not the BIOS, `bootsect` (the register-state boot sector).
    """

    part: str
    address: int
    size: int
    why: str

    @property
    def region(self) -> Region:
        """The memory that it takes."""
        return Region(self.part, self.address, self.address + self.size, self.why)


@dataclass(frozen=True, slots=True)
class Move:
    """The protected-mode part's way from where it was loaded to where it runs.

    Attributes:
        src: where it was loaded.
        dst: where it must run.
        why: why there.
        len: its size.
        by: who enters the relocator: the setup code through code32_start (`hook`), or the early
            stage before the setup code runs (`early`).
        reason: why this one.
        relocator: the relocator's address.
        relocator_size: its size.
        code32_start: the kernel's own, where the kernel is entered.
    """

    src: int
    dst: int
    why: str
    len: int
    by: Mover
    reason: str
    relocator: int
    relocator_size: int
    code32_start: int

    @property
    def source(self) -> Region:
        """The protected-mode part where it was loaded."""
        return Region("kernel", self.src, self.src + self.len)

    @property
    def destination(self) -> Region:
        """Where it must run."""
        return Region("kernel's destination", self.dst, self.dst + self.len, self.why)

    @property
    def code(self) -> Region:
        """The relocator."""
        why = "behind the kernel, with which it is loaded, and clear of where that goes"
        return Region("relocator", self.relocator, self.relocator + self.relocator_size, why)


@dataclass(frozen=True, slots=True)
class Patch:
    """A header field to change.

    Attributes:
        field: its name.
        offset: its place in the file, bytes.
        size: bytes.
        old: what it holds.
        new: what it must hold.
        of_loader: whether it is what every loader fills in for itself (command line, initrd,
            heap ...), and not about the image: its code32_start, size and alignment.
        why: who needs it, or what it says.
    """

    field: str
    offset: int
    size: int
    old: int
    new: int
    of_loader: bool
    why: str


@dataclass(frozen=True, slots=True)
class EntryState:
    """How the setup code is entered; general registers not named are 0.

    Source: boot.rst, "Running the Kernel".
    """

    cs: int
    ip: int
    data_segments: int
    esp: int


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module.

    Attributes:
        kernel: the kernel's file name.
        machine: the machine profile's name.
        ram: bytes of RAM that the plan counts on.
        loads: what must be in memory before the boot sector jumps.
        moves: who moves what afterwards.
        patches: header fields, by offset.
        entry: how the setup code is entered.
        stack: the real-mode part with its heap and stack, up to the command line.
        runtime: where the kernel unpacks itself and runs, by init_size.
        bounce: what the loader reads into where the BIOS reads for it; None without a loader.
        long_mode: whether the kernel is a 64-bit one.
        notes: what was decided, in the words of the 2007 patch where it has words.
    """

    kernel: str
    machine: str
    ram: int
    loads: tuple[Load, ...]
    moves: tuple[Move, ...]
    patches: tuple[Patch, ...]
    entry: EntryState
    stack: Region
    runtime: Region
    bounce: Region | None
    long_mode: bool
    notes: tuple[str, ...]

    def load(self, part: str) -> Load | None:
        """The load of this part, if the plan has one."""
        return next((load for load in self.loads if load.part == part), None)

    @property
    def image_patches(self) -> tuple[Patch, ...]:
        """The patches without those that every loader makes for itself."""
        return tuple(patch for patch in self.patches if not patch.of_loader)

    def to_json(self) -> str:
        """The plan as JSON; the same plan gives the same text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"
