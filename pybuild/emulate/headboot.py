"""A kernel image with a head, as a loader leaves it, and what the kernel must find when it runs."""

import random
from dataclasses import dataclass, field, replace
from typing import Final

from pybuild import headplan
from pybuild.contract import Contract
from pybuild.emulate.activation import Placed
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.headimage import Made
from pybuild.emulate.machine import Hardware, Start
from pybuild.emulate.memory import PAGE, TOP, Memory
from pybuild.emulate.paging import Paging, Range, hold_mapped
from pybuild.emulate.run import Outcome
from pybuild.flat import FlatBinary
from pybuild.headplan import ENTRY_64, HEAD_RELOCATOR, STACK_SIZE, Places
from pybuild.kernel import Kernel
from pybuild.splice import HEAD_32, HEAD_64, RELOCATOR, RELOCATOR_64

HEADER: Final = 0x1F1  # of boot_params and of a kernel file: where a loader copies from
GDT: Final = 0x48  # bytes of the harness's
SCRATCH: Final = range(0x1E4, 0x1E8)
E820_ENTRIES: Final = 0x1E8
E820_TABLE: Final = 0x2D0
EXT: Final = {"ramdisk_image": 0xC0, "ramdisk_size": 0xC4, "cmd_line_ptr": 0xC8}
RAM: Final = 1

_OWN_GDT: Final = 32  # bytes of the head's

Source = tuple[Contract, FlatBinary]
Entry = tuple[int, int, int]  # of the E820 map: address, length, type


@dataclass(frozen=True)
class Boot:
    """What a loader does with an image.

    Attributes:
        bits: of the entry, 32 or 64.
        made: the image.
        address: where its protected-mode part is loaded.
        boot_params: where they are.
        gdt: where the loader's is.
        cmdline: where the loader's command line is, and what it says, without its NUL.
        initrd: where the loader's is, and its size.
        e820: the map in boot_params.
        alignment: kernel_alignment, if the loader lowers it.
        la57: whether paging has five levels.
        noise: seeds what else memory holds.
        registers: others that matter on entry.
        trace: whether each write is to be looked at.
    """

    bits: int
    made: Made
    address: int
    boot_params: int = 0x90000
    gdt: int = 0x80000
    cmdline: tuple[int, bytes] | None = None
    initrd: tuple[int, int] | None = None
    e820: tuple[Entry, ...] = ()
    alignment: int | None = None
    la57: bool = False
    noise: int = 0
    registers: dict[str, int] = field(default_factory=dict)
    trace: bool = True

    @property
    def pointer(self) -> str:
        """The register that has boot_params."""
        return "rsi" if self.bits == 64 else "esi"

    @property
    def places(self) -> Places:
        """Where the head puts everything."""
        return headplan.places(
            self.made.plan, self.address, initrd=self.initrd is None, alignment=self.alignment
        )

    @property
    def loaded(self) -> Range:
        """All that the loader keeps free for the image."""
        return self.address, self.address + self.made.memory

    @property
    def destination(self) -> int:
        """Where the kernel is moved."""
        return self.address if self.made.plan.follows else self.made.plan.dst

    @property
    def own(self) -> tuple[Range, Range]:
        """What the head has its variables and its stack in."""
        plan, kernel = self.made.plan, self.address + self.made.plan.head_size
        return (self.address, self.address + plan.code_size), (kernel - STACK_SIZE, kernel)

    @property
    def window(self) -> Range:
        """Where the kernel unpacks itself and runs."""
        end = self.places.kernel.end
        return end - self.made.plan.init_size, end

    @property
    def entry(self) -> int:
        """Where the kernel is entered."""
        return self.destination + (ENTRY_64 if self.bits == 64 else self.made.plan.entry32)

    @property
    def loaders(self) -> list[Range]:
        """What the loader leaves for the kernel."""
        found = [(self.boot_params, self.boot_params + PAGE)]
        if self.cmdline:
            found.append((self.cmdline[0], self.cmdline[0] + len(self.cmdline[1]) + 1))
        if self.initrd:
            found.append((self.initrd[0], self.initrd[0] + self.initrd[1]))
        return found

    @property
    def tables(self) -> list[Range]:
        """Where page tables may be made to show something on the screen, when all is over."""
        if self.bits == 32:
            return []
        start = self.address + self.made.plan.head_size
        if self.made.plan.len >= self.made.plan.work_size:
            return [(start, start + self.made.plan.len)]
        return [(self.places.work.start, self.places.work.end)]

    def page(self) -> bytearray:
        """boot_params, as the loader makes it: noise wherever the protocol says nothing."""
        page = bytearray(random.Random(self.noise).randbytes(PAGE))
        setup = self.made.image.setup
        header_end = self.made.image.header_end
        page[HEADER:header_end] = setup[HEADER:header_end]
        values = {
            "cmd_line_ptr": self.cmdline[0] if self.cmdline else 0,
            "ramdisk_image": self.initrd[0] if self.initrd else 0,
            "ramdisk_size": self.initrd[1] if self.initrd else 0,
            "type_of_loader": 0xFF,
        }
        if self.alignment:
            values["kernel_alignment"] = self.alignment
        for name, value in values.items():
            put(self.made.image, page, name, value)
        page[E820_ENTRIES] = len(self.e820)
        for i, entry in enumerate(self.e820):
            at = E820_TABLE + 20 * i
            for (offset, size), value in zip(((0, 8), (8, 8), (16, 4)), entry, strict=True):
                page[at + offset : at + offset + size] = value.to_bytes(size, "little")
        return page

    def memory(self) -> Memory:
        """Noise, and in it what the loader has put there."""
        noise = random.Random(self.noise + 1)
        ranges = [self.loaded, *self.loaders, (self.destination, self.window[1]), self.window]
        whole = [(low & -PAGE, (high + PAGE - 1) & -PAGE) for low, high in ranges]
        parts = [(low, noise.randbytes(high - low)) for low, high in whole]
        # A GDT in memory that the kernel gets is fine; one in the image itself is not.
        parts.append((self.address, self.made.image.protected))
        parts.append((self.boot_params, bytes(self.page())))
        if self.cmdline:
            parts.append((self.cmdline[0], self.cmdline[1] + b"\0"))
        return Memory(parts)

    @property
    def sources(self) -> tuple[str, str]:
        """The head's, and the relocator's that it uses."""
        return (HEAD_64, RELOCATOR_64) if self.bits == 64 else (HEAD_32, RELOCATOR)

    def placed(self, head: Source, relocator: Source) -> tuple[Placed, Placed]:
        """The head and the relocator; the image has them, and the head copies the second."""
        plan, at = self.made.plan, self.places
        offset = self.made.places[self.sources[0]]
        names = ("image_size", "len", "dst", "run", "init_size", "entry32", "work_size")
        symbols = {name: getattr(plan, name) for name in (*names, "initrd_size")}
        symbols |= {"start": offset, "follows": int(plan.follows), "entry64": ENTRY_64}
        way_in = self.address + ENTRY_64 if self.bits == 64 else None
        base = self.address + offset
        entered = Placed(
            *head,
            base,
            symbols,
            also=[self.loaded],  # and hold() looks closer
            there=True,
            through=True,
            way_in=way_in,
        )
        moved = {
            "src": self.address + plan.head_size,
            "dst": self.destination,
            "len": plan.len,
            "init_size": plan.init_size,
            "entry": self.destination + ENTRY_64,
            "code32_start": self.destination + plan.entry32 & 0xFFFF_FFFF,
            "tables": at.work.start + plan.work_tables,
            "tables_size": plan.tables_size,
        }
        base = at.work.start + HEAD_RELOCATOR
        return entered, Placed(*relocator, base, moved, there=True)

    def start(self, placed: tuple[Placed, Placed], hardware: Hardware | None = None) -> Start:
        """How it runs; what is wrong the head may say in the memory of the hardware."""
        head, relocator = placed
        if hardware:
            head = replace(head, also=[*head.also, *hardware.writes])
        promised = [self.loaded, *self.loaders[: 1 + bool(self.cmdline)]]
        return Start(
            (head, relocator),
            self.memory(),
            {self.pointer: self.boot_params, **self.registers},
            hardware,
            Paging(promised, self.gdt, self.la57),
        )


def put(image: Kernel, page: bytearray, name: str, value: int) -> None:
    """Writes a field, with its upper half if there is one."""
    image.field(name).put(page, value % TOP if name in EXT else value)
    if name in EXT:
        page[EXT[name] : EXT[name] + 4] = (value >> 32).to_bytes(4, "little")


def hold(boot: Boot, outcome: Outcome) -> None:
    """Raises ContractError unless the kernel finds all that it should."""
    expected = expect(boot, outcome)
    wrong = expected.first_difference(outcome.after)
    if wrong is not None:
        raise ContractError(f"{_where(boot, wrong)} is not as expected", wrong)
    at = boot.places
    if outcome.gdt != (at.work.start, _OWN_GDT - 1):
        raise ContractError(f"the GDT is at {outcome.gdt[0]:#x}, expected {at.work}")
    if boot.bits == 32:
        return
    tables = at.work.start + boot.made.plan.work_tables
    if outcome.control != outcome.entered._replace(cr3=tables):
        raise ContractError(f"leaves with {outcome.control}, entered with {outcome.entered}")
    ranges = [(0, TOP), boot.window, boot.loaders[0], (at.work.start, at.work.end)]
    if boot.cmdline and not boot.made.text:
        ranges.append(boot.loaders[1])
    hold_mapped(outcome.after, outcome.control, ranges)


def expect(boot: Boot, outcome: Outcome) -> Memory:
    """Memory as it should be: unchanged, but for what the head has and puts somewhere."""
    made, at, plan = boot.made, boot.places, boot.made.plan
    work = (at.work.start, at.work.end)
    expected = outcome.before.take(outcome.after, [*boot.own, work])
    page = boot.page()
    for header_field in made.kernel.fields:
        if header_field.access == "read" and header_field.offset >= HEADER:
            header_field.put(page, made.kernel[header_field.name])
    if made.kernel.version != made.image.version:  # what the kernel's own header doesn't have
        known = {i for f in made.kernel.fields for i in range(f.offset, f.end)}
        for i in range(HEADER, made.kernel.header_end):
            if i not in known:
                page[i] = made.kernel.data[i]
    if not plan.follows and made.kernel.has("kernel_alignment"):
        put(made.kernel, page, "kernel_alignment", made.kernel["kernel_alignment"])
    put(made.kernel, page, "code32_start", boot.destination + plan.entry32 & 0xFFFF_FFFF)
    if made.text:
        line = made.text
        if boot.cmdline and boot.cmdline[1] and not made.replace:
            line += b" " + boot.cmdline[1]
        expected.write(at.work.start + plan.work_cmdline, line + b"\0")
        put(made.kernel, page, "cmd_line_ptr", at.work.start + plan.work_cmdline)
    if at.initrd:
        expected.write(at.initrd.start, made.initrd)
        put(made.kernel, page, "ramdisk_image", at.initrd.start)
        put(made.kernel, page, "ramdisk_size", len(made.initrd))
    if boot.bits == 32:
        was = outcome.after.read(boot.boot_params + SCRATCH.start, len(SCRATCH))
        page[SCRATCH.start : SCRATCH.stop] = was
    expected.write(boot.boot_params, page)
    original = made.kernel.protected
    expected.write(boot.destination, original)
    return expected


def _where(boot: Boot, address: int) -> str:
    at = boot.places
    named: dict[str, Range] = {
        "boot_params": (boot.boot_params, boot.boot_params + PAGE),
        "the kernel": (boot.destination, boot.destination + boot.made.plan.len),
        "the work area": (at.work.start, at.work.end),
        "the initrd": (at.initrd.start, at.initrd.end) if at.initrd else (0, 0),
        "the window": boot.window,
    }
    found = [f"{name}+{address - r[0]:#x}" for name, r in named.items() if r[0] <= address < r[1]]
    return f"{address:#x} ({', '.join(found)})"
