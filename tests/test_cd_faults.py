"""That the tests of reading CDs by DMA can fail: faults put into the driver are all found."""

from pathlib import Path

import pytest
from held import MIB, TREE
from idechannel import IDENTITY, Channel, Drive
from idedrive import IdeBios
from loading import hold_loader
from test_contract_faults import with_fault

from pybuild.assembler import Tree
from pybuild.emulate.biosdisk import Disk, Image
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.stages import Part, noise, plenty, with_parts

CD = 0xE0
PARTS = (Part(0x903, 2 * MIB, noise(0x3003)), Part(0x1105, 5 * MIB + 4, noise(0x2007), "initrd"))
PROBES = 3  # reads of the BIOS where the driver reads the rest

FAULTS = {
    "any controller": ("cmp ax, ATAPI_PCI_VENDOR\n    jne .no", "", "reads what it should not"),
    "any device": ("cmp ax, ATAPI_ID_CD\n    jne .no", "", "reads what it should not"),
    "any mode": (
        "test byte [scratch_ide + IDE_ID_ULTRA + 1], IDE_ID_ULTRA_SET\n    jz .no",
        "",
        "reads what it should not",
    ),
    "no direction": (
        "jnz .no\n    mov byte [ide_read_command], ATAPI",
        "mov byte [ide_read_command], ATAPI",
        "reads what it should not",
    ),
    "no comparison": ("je .yes\n.no:", "jmp .yes\n.no:", "reads what it should not"),
    "one sector compared": ("mov cx, 2 * SECTOR_SIZE / 4", "mov cx, SECTOR_SIZE / 4", "not"),
    "nothing spoilt before": ("not eax", "", "reads what it should not"),
    "features stay": (
        "mov al, 0                           ; BIOS's",
        "mov al, 1 ; ",
        "channels as",
    ),
    "interrupts stay off": ("mov al, IDE_CONTROL_ON", "mov al, IDE_CONTROL_OFF", "channels as"),
    "interrupts on": (
        "mov al, IDE_CONTROL_OFF\n    out dx, al\n    mov dx, [ide_commands]",
        "mov al, IDE_CONTROL_ON\n    out dx, al\n    mov dx, [ide_commands]",
        "interrupt the BIOS",
    ),
    "drive stays selected": ("mov al, [ide_device_before]", "mov al, [ide_device]", "channels as"),
    "table stays": ("mov eax, [ide_table]\n    out dx, eax", "", "channels as"),
    "bus master stays on": (
        "mov cx, [ide_command]\n    jmp pci",
        "mov cx, 5\n    jmp pci",
        "master on",
    ),
    "no dma": ("mov al, ATAPI_FEATURE_DMA", "mov al, 0", "without DMA"),
    "no bytes": ("mov eax, ATAPI_BYTE_COUNT", "xor eax, eax", "for 0 bytes"),
    "packet before its time": (
        "mov ah, IDE_STATUS_BUSY\n    mov bx, ATAPI_TICKS_PACKET\n    call ide_wait\n    jc .no",
        "",
        ".",
    ),
    "packet for who wants data": ("cmp al, ATAPI_REASON_PACKET\n    jne .no", "", "."),
    "half a packet": (
        "mov cx, atapi_packet_size / 2",
        "mov cx, atapi_packet_size / 4",
        "BIOS read",
    ),
    "lba not swapped": ("bswap eax", "", "BIOS read"),
    "count not swapped": ("xchg cl, ch", "", "."),
    "no sectors before": ("call .unasked", "", "."),
    "head in place": (
        "mov eax, strict dword bounce + BOUNCE_DRIVER",
        "mov eax, strict dword bounce",
        ".",
    ),
    "no sectors behind": ("neg ecx\n    and ecx, ATAPI", "and ecx, ATAPI", "."),
    "error not looked at": ("test al, IDE_STATUS_ERROR | IDE_STATUS_FAULT", "test al, 0", "."),
    "bus error not looked at": ("test bl, IDE_MASTER_ACTIVE | IDE_MASTER_ERROR", "test bl, 0", "."),
    "no time-out": ("dec bp\n    jnz .wait", "jmp .wait", "for ever"),
    "no reset": ("mov al, IDE_CONTROL_RESET", "mov al, IDE_CONTROL_OFF", "that is busy"),
}


def hold(tree: Tree, parts: tuple[Part, ...] = PARTS, *, dma: bool = True, **more: object) -> None:
    """Holds the loader to reading a CD, by DMA or not, and to leaving the hardware as it was."""
    disk = with_parts(Disk(Image(8 * MIB), sector=2048, geometry=None, most=31), *parts)
    controller = {name: more.pop(name) for name in ("vendor", "interface") if name in more}
    drive = Drive(more.pop("image", disk.image), **more)  # type: ignore[arg-type]
    channels = (Channel({0: Drive.disk(Image(8 * MIB))}), Channel({1: drive}))
    bios = IdeBios({CD: disk}, plenty(), channels=channels, **controller)  # type: ignore[arg-type]
    hold_loader(parts, bios, drive=CD, quiet=False, tree=tree)
    bios.check_untouched("enters the boot sector", command=True)
    if not dma and len(drive.reads) > 2:
        raise ContractError("reads what it should not")
    if dma != (len(disk.reads()) == PROBES):
        raise ContractError("lets the BIOS read, or not, where it should be otherwise")


def hold_to_all(tree: Tree) -> None:
    hold(tree)
    other = Image(8 * MIB)
    hold(tree, dma=False, image=other)
    other.put(PARTS[0].lba, noise(512))
    hold(tree, dma=False, image=other)
    hold(tree, dma=False, vendor=0x10B9)
    for word in ({0: 0x80C0}, {62: 0x8000}, {88: 0x003F}):
        hold(tree, dma=False, identity=IDENTITY | word)
    hold(tree, dma=False, fault="silent")
    for fault in ("check", "late", "wants data", "bus", "short", "busy"):
        hold(tree, fault=fault, sound=2, times=1)


def test_without_a_fault_none_is_found() -> None:
    hold_to_all(TREE)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_driver_is_found(tmp_path: Path, fault: str) -> None:
    old, new, reason = FAULTS[fault]
    tree = with_fault(tmp_path, "real/loader", old, new)
    with pytest.raises(ContractError, match=reason):
        hold_to_all(tree)
