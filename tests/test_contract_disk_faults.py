"""That the tests of the disk loader's stages can fail: faults put into them are all found."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from held import MIB, TREE
from loading import disk_of, hold_diskboot, hold_loader, run_diskboot, run_loader
from test_contract_faults import with_fault
from unicorn import x86_const as x86

from pybuild.assembler import Tree
from pybuild.emulate.bios import DISK_SPOILS, SPOILS, Bios
from pybuild.emulate.biosdisk import FLOPPY, FOR_EVER, Disk, Image
from pybuild.emulate.biosram import RESERVED, Ram, Range, usual
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.stages import DRIVE, Part, noise, plenty, with_parts
from pybuild.loader import diskboot_symbols
from pybuild.loadtable import Entry

FLOPPY_MOTORS_OFF = 0x0C

DISKBOOT_FAULTS = {
    "ss not loaded": ("mov ss, ax", "", "writes 0x.*outside"),
    "bios leaves df": ("cld\n    push ss", "push ss", "with DF set"),
    "bios leaves if": ("sti\n    cld\n    push ss", "cld\n    push ss", "if=0x0"),
    "bios leaves ds": ("push ss\n    pop ds", "", "writes 0x.*outside"),
    "bios leaves es": ("push ss\n    pop es", "", "leaves with es="),
    "stack too deep": (
        "mov sp, LOADER_STACK",
        "mov sp, LOADER_STACK - 0x380",
        "changed 0x6b",
    ),
    "drive lost": ("popad\n    pushad\n    mov ah, DISK_RESET", "mov ah, DISK_RESET", "gives up"),
    "one try": ("mov byte [at(tries)], TRIES", "mov byte [at(tries)], 1", "gives up"),
    "tries for ever": ("jnz .again\n    stc", "jmp .again\n    stc", "calls int 13h more than"),
    "no reset": ("mov ah, DISK_RESET\n    call bios_disk", "", "gives up"),
    "sum not looked at": ("jne .wrong", "", "something else than the loader"),
    "sum of another size": ("shr cx, 2", "shr cx, 3", "gives up"),
    "head not told": ("mov dh, dl\n", "mov dh, 0\n", "gives up"),
    "sectors from 0": ("inc cx ", "", "gives up"),
    "one head less": ("inc di ", "", "gives up"),
    "cylinders below 256": ("or cl, ah", "", "gives up"),
    "cylinders modulo 256": ("shl ah, 6", "shl ah, 5", "gives up"),
    "one sector over and over": ("inc ebp", "", "gives up"),
    "one place over and over": ("add bx, SECTOR_SIZE", "add bx, 0", "calls int 13h more than"),
    "one sector too many": ("jb .sector", "jbe .sector", "changed 0x5000"),
    "enters late": ("jmp 0:LOADER_ADDRESS", "jmp 0:LOADER_ADDRESS + 1", "executes 0x1001"),
    "shift not told": ("mov cl, [at(id.sector_shift)]", "", "enters the loader with"),
    "drive not told": ("jmp 0:LOADER_ADDRESS", "inc dx\n    jmp 0:LOADER_ADDRESS", "enters"),
    "no second drive": ("mov dl, FIRST_HARD_DISK", "", "gives up"),
    "no word on COM1": (
        "mov dl, COM1_DATA & 0xff\n    out dx, al\n    popad",
        "popad",
        "and COM1",
    ),
    "no word on the screen": ("int 0x10", "", "screen and COM1"),
}
LOADER_FAULTS = {
    "stack in 16 bits": ("mov esp, LOADER_STACK", "mov sp, LOADER_STACK", "where no memory is"),
    "stack elsewhere": (
        "mov esp, LOADER_STACK",
        "mov esp, LOADER_STACK - 0x400",
        "writes 0x6b.*outside",
    ),
    "bios leaves df": ("cld\n    push word 0", "push word 0", "with DF set"),
    "bios leaves if": ("sti                                 ; no", "; no", "IF clear"),
    "bios leaves ds": ("push word 0\n    pop ds", "", "writes 0x.*outside"),
    "limits stay 4 GiB": (
        "mov ds, eax\n    mov es, eax\n    mov ss, eax\n    jmp",
        "jmp",
        "with es",
    ),
    "interrupts on": (
        "cli                                 ; the BIOS's",
        "; ",
        "but no other interrupts",
    ),
    "nmi masked": ("out PMODE_CMOS_INDEX, al\n    in al, PMODE_CMOS_DATA\n    sti", "sti", "NMI"),
    "drive lost": ("mov [drive], dl", "mov byte [drive], 0x80", "gives up"),
    "shift lost": ("mov [sector_shift], cl", "mov byte [sector_shift], 9", "gives up"),
    "gate not opened": ("call a20_enable", "or al, 1", "changed 0x0,"),
    "gate not looked at": ("jz stop", "", "goes on"),
    "memory not looked at": ("call check_memory", "", "goes on"),
    "cpu not looked at": ("call check_cpu", "", "goes on"),
    "checksum not looked at": (
        "je .done\n    call back_to_bios",
        "jmp .done\n    call back_to_bios",
        "goes on",
    ),
    "wrong prime": ("imul eax, eax, XXH32_PRIME_3", "imul eax, eax, XXH32_PRIME_2", "damaged"),
    "tail lost": ("movzx ebx, byte [esi]", "movzx ebx, byte [edi]", "kernel is damaged"),
    "whole dwords at the end": (
        "and ecx, SECTOR_SIZE - 1",
        "and ecx, SECTOR_SIZE - 4",
        "kernel is damaged",
    ),
    "one sector less": ("shr eax, SECTOR_SHIFT", "shr eax, SECTOR_SHIFT + 1", "kernel is damaged"),
    "cd's sectors taken whole": ("and si, [bios_lba]", "and si, 0", "is damaged"),
    "shift of the lba": ("shrd eax, edx, cl", "", "cannot be read"),
    "no reset": ("mov ah, DISK_RESET", "mov ah, 1", "cannot be read"),
    "tries for ever": ("dec bp\n    jz .give_up", "", "calls int 13h more than"),
    "track's end crossed": ("mov [bios_count], cx", "", "asks for"),
    "sectors from 0": ("inc cx ", "", "the disk cannot be read"),
    "one head less": ("inc dx ", "", "kernel is damaged"),
    "upper half of the cylinder": ("or cl, bh", "", "kernel is damaged"),
    "moves in words": (
        "and ecx, 3\n    rep movsb",
        "and ecx, 1\n    rep movsb",
        "kernel is damaged",
    ),
    "motor on": ("out dx, al\n    mov dl, [drive]", "mov dl, [drive]", "floppy's motor"),
    "drive not told": ("mov dl, [drive]\n.enter", "mov dl, 1\n.enter", "enters the boot sector"),
    "enters elsewhere": (
        "jmp 0:BOOT_SECTOR_ADDRESS",
        "jmp 0:BOOT_SECTOR_ADDRESS + 2",
        "executes 0x7c02",
    ),
    "e820 without its entry": ("mov di, memmap_e820", "xor di, di", "changed 0x0,"),
    "e820 in bx": ("test ebx, ebx", "test bx, bx", "too little memory"),
    "no e801": ("mov ax, E801", "mov ax, 0", "too little memory"),
    "reserved is RAM": (
        "cmp dword [si + memmap.type], E820_RAM\n    je .no_claim",
        "jmp .no_claim",
        "goes on",
    ),
    "chatter": (
        "call console_open",
        "call console_open\n    mov al, 65\n    call console_char",
        "all is well",
    ),
    "no progress": ("call progress", "", "progress"),
    "progress for ever": ("cmp ecx, QUIET_TICKS", "cmp ecx, 0", "all is well"),
}


def spoiling(drives: Mapping[int, Disk], ram: Ram | None = None) -> Bios:
    return Bios(drives, ram or plenty(), spoils=SPOILS, disk_spoils=DISK_SPOILS)


def hold_diskboot_to_all(tree: Tree) -> None:
    """By EDD and by CHS, on BIOSes with and without faults, with a loader and without."""
    lba = 400 * 16 * 63 + 1007

    def hold(make: Callable[[], Disk], loader: bytes, at: int = lba, dl: int = DRIVE) -> None:
        for machine in (Bios, spoiling):
            bios = machine({DRIVE: make(), 0x81: Disk(Image(MIB))})
            hold_diskboot(loader, at, bios, dl=dl, tree=tree)

    loader = noise(0x1400)
    hold(lambda: disk_of(lba, loader), loader)
    for any_size in (loader, noise(0x4000)):
        chs = functools.partial(disk_of, lba, any_size, edd="no", geometry=(1024, 16, 63))
        hold(chs, any_size)
    hold(lambda: disk_of(lba, loader, failures={lba: 3}, resets_needed=True), loader)
    floppy = functools.partial(disk_of, 30, loader, edd="no", geometry=FLOPPY)
    hold(lambda: floppy(failures={31: 2, 40: 3}), loader, at=30)
    hold(lambda: disk_of(lba, loader, cut=3), loader)
    hold(lambda: disk_of(lba, loader), loader, dl=0x81)

    broken = disk_of(lba, loader)
    broken.image.flip(lba + 1, 7, 7)
    bios = spoiling({DRIVE: broken})
    if not run_diskboot(bios, diskboot_symbols(loader, lba, 9), tree=tree).stopped:
        raise ContractError("real/diskboot enters something else than the loader")
    check_message(bios, "bad loader")


def hold_loader_to_all(tree: Tree) -> None:
    """From each kind of drive, on BIOSes with and without faults; and what it must refuse."""
    kernel = Part(300 * 255 * 63 + 7, 2 * MIB, noise(0x3003))
    initrd = Part(1003, 5 * MIB + 4, noise(0x2407), "initrd")
    parts = [kernel, initrd]

    def hold(*parts: Part, number: int = DRIVE, **more: object) -> None:
        for machine in (Bios, spoiling):  # each with a disk of its own: failures are used up
            drive = with_parts(Disk(Image(MIB * 8), **more), *parts)  # type: ignore[arg-type]
            bios = machine({number: drive}, plenty())
            hold_loader(parts, bios, drive=number, tree=tree)
            if "failures" not in more and any(call.status for call in drive.reads()):
                raise ContractError(f"real/loader asks for what this drive has not: {drive.calls}")
            if number < DRIVE and bios.floppy_output != FLOPPY_MOTORS_OFF:
                raise ContractError("real/loader leaves a floppy's motor on")

    def refuse(why: str, bios: Bios, needs: Sequence[Entry] = (), *, long: bool = False) -> None:
        with_parts(bios.drives[DRIVE], initrd)
        entries = [*needs, initrd.entry]
        if not run_loader(bios, entries, long_mode=long, tree=tree)[1].stopped:
            raise ContractError(f"real/loader goes on: {why}")
        check_message(bios, why)

    hold(*parts)
    hold(*parts, sector=2048, geometry=None)
    hold(*parts, edd="no", failures={kernel.lba: 1, kernel.lba + 2: 2}, resets_needed=True)
    hold(initrd, number=0, edd="no", geometry=FLOPPY)
    hold(*parts, failures={kernel.lba: 1, kernel.lba + 2: 2}, resets_needed=True)
    slow = Bios({DRIVE: with_parts(Disk(Image(MIB * 8)), *parts)}, plenty(), seconds_a_read=0.6)
    hold_loader(parts, slow, quiet=False, tree=tree)
    if not re.fullmatch(r"(\rbootsplice: loading \d+%)+\r\n", slow.screen):
        raise ContractError(f"progress is {slow.screen!r}")
    high = Part(3, MIB, noise(0x800))
    shut = Bios({DRIVE: with_parts(Disk(Image(MIB)), high)}, plenty(), a20="keyboard")
    hold_loader([high], shut, tree=tree)
    older = Bios({DRIVE: with_parts(Disk(Image(MIB)), high)}, Ram(e820=None, e801=(0, 0, 1024, 0)))
    hold_loader([high], older, tree=tree)

    def drive(**faults: object) -> dict[int, Disk]:
        return {DRIVE: Disk(Image(MIB), **faults)}  # type: ignore[arg-type]

    failing = drive(failures={initrd.lba + 3: FOR_EVER})
    refuse("initrd cannot be read", spoiling(failing))
    refuse("A20", Bios(drive(), plenty(), a20="nothing"))
    refuse("64-bit", Bios(drive(), plenty(), cpu=x86.UC_CPU_X86_486), long=True)
    refuse("too little memory", Bios(drive(), Ram(e820=usual(2 * MIB))))
    hole = (Range(0, 0x9FC00), Range(MIB, 63 * MIB), Range(6 * MIB, 1, RESERVED))
    need = Entry("init_size", 0, 9 * MIB, MIB)
    refuse("too little memory", Bios(drive(), Ram(e820=hole)), [need])
    damaged = Entry("kernel", initrd.lba, len(initrd.data), 2 * MIB, initrd.entry.checksum ^ 1)
    refuse("kernel is damaged", Bios(drive(), plenty()), [damaged])


def check_message(bios: Bios, why: str) -> None:
    if bios.screen != bios.serial or why not in bios.screen or bios.screen[-2:] != "\r\n":
        raise ContractError(f"screen and COM1 do not say {why}: {bios.screen!r}, {bios.serial!r}")


@pytest.mark.parametrize("hold", [hold_diskboot_to_all, hold_loader_to_all])
def test_without_a_fault_none_is_found(hold: Callable[[Tree], None]) -> None:
    hold(TREE)


@pytest.mark.parametrize("fault", DISKBOOT_FAULTS)
def test_a_fault_in_diskboot_is_found(tmp_path: Path, fault: str) -> None:
    old, new, reason = DISKBOOT_FAULTS[fault]
    tree = with_fault(tmp_path, "real/diskboot", old, new)
    with pytest.raises(ContractError, match=reason):
        hold_diskboot_to_all(tree)


@pytest.mark.parametrize("fault", LOADER_FAULTS)
def test_a_fault_in_the_loader_is_found(tmp_path: Path, fault: str) -> None:
    old, new, reason = LOADER_FAULTS[fault]
    tree = with_fault(tmp_path, "real/loader", old, new)
    with pytest.raises(ContractError, match=reason):
        hold_loader_to_all(tree)
