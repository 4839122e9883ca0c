"""That the contract tests can fail: faults put into the sources, one at a time, are all found."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from held import (
    SOURCES,
    TREE,
    EarlyLayout,
    hold_bootsect,
    hold_early,
    hold_relocator,
)

from pybuild import assembler, contract
from pybuild.assembler import Tree
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.layouts import Layout

RELOCATOR_FAULTS = {
    "df stays set": ("rep movsd\n    cld", "rep movsd", "leaves with df=0x1"),
    "edi lost": ("mov edi, edx", "", "leaves with edi="),
    "ebp spoilt": ("mov ebx, esi", "mov ebx, esi\n    inc ebp", "leaves with ebp="),
    "esp spoilt": ("mov ebx, esi", "mov ebx, esi\n    inc esp", "leaves with esp="),
    "ebx not cleared": ("xor ebx, ebx", "", "leaves with ebx="),
    "interrupts on": ("xor ebx, ebx", "xor ebx, ebx\n    sti", "leaves with if=0x1"),
    "wrong tail": ("and ecx, 3", "and ecx, 1", "memmove"),
    "wrong order": ("jb .downwards", "ja .downwards", "memmove"),
    "only upwards": ("jb .downwards", "", "memmove"),
    "code32_start not put back": (
        "mov [esi + boot_params.code32_start], eax",
        "",
        "code32_start",
    ),
    "esi not restored": ("mov esi, ebx", "", "leaves with esi=|WRITES"),
    "ss not loaded": ("mov ss, eax", "", "leaves with ss="),
    "ss loaded with another": ("mov ss, eax", "mov cx, 0x20\n    mov ss, cx", "leaves with ss="),
    "null in fs": ("mov fs, eax", "xor ecx, ecx\n    mov fs, cx", "leaves with fs="),
    "ds not loaded": ("mov ds, eax", "", "touches 0x157b"),
    "one byte too many": (
        "mov ecx, strict dword len",
        "mov ecx, strict dword len\n    inc ecx",
        "WRITES",
    ),
    "uses the stack": ("mov ebx, esi", "mov ebx, esi\n    push ebx\n    pop ebx", "WRITES"),
    "writes zeros": ("xor ebx, ebx", "xor ebx, ebx\n    mov [esi + 4], ebx", "WRITES"),
    "changes itself": (
        "xor ebx, ebx",
        "xor ebx, ebx\n    mov [dword $$], ebx",
        "WRITES",
    ),
    "reads elsewhere": ("xor ebx, ebx", "xor ebx, ebx\n    mov ecx, [ebx]", "touches 0x0,"),
    "goes elsewhere": ("jmp eax", "inc eax\n    jmp eax", "executes 0x"),
    "goes where nothing is": ("jmp eax", "jmp ebx", "touches 0x0,"),
    "falls off the end": ("jmp eax", "", "executes 0x"),
    "never ends": ("jmp eax", "jmp $", "took more than"),
    "breakpoint": ("xor ebx, ebx", "xor ebx, ebx\n    int3", "interrupt or exception 0x3"),
    "no such instruction": ("xor ebx, ebx", "ud2", "Invalid instruction"),
    "no such selector": ("mov gs, eax", "mov cx, 0x100\n    mov gs, cx", "exception 0xd"),
    "paging on": (
        "xor ebx, ebx",
        "mov ecx, cr0\n    or ecx, 0x80000000\n    mov cr0, ecx",
        "exception 0xe",
    ),
}
EARLY_FAULTS = {
    "limits stay 4 GiB": ("mov gs, eax\n    mov ss, eax", "mov gs, eax", "leaves with ss as"),
    "fs and gs swapped": ("pop gs\n    pop fs", "pop fs\n    pop gs", "leaves with fs="),
    "ss lost": ("mov ss, di", "mov bp, di", "leaves with e.x="),
    "registers lost": ("popad", "add sp, 32", "leaves with e.x="),
    "interrupts on": ("popad", "popad\n    sti", "leaves with if="),
    "interrupts on in protected mode": ("jmp eax\n", "sti\n    jmp eax\n", "entered with IF set"),
    "a20 test leaves its mark": ("mov [A20_OFFSET], al                ;", ";", "memory: 0x500 "),
    "wrong way in": ("jmp eax\n", "inc eax\n    jmp eax\n", "executes 0x"),
    "stays in protected mode": ("and al, ~CR0_PE & 0xff", "", "exception 0xd"),
    "enters setup one byte late": ("dw 0\n    dw setup_cs", "dw 1\n    dw setup_cs", "executes 0x"),
    "setup's cs wrong": ("dw 0\n    dw setup_cs", "dw 16\n    dw setup_cs - 1", "leaves to"),
}
BOOTSECT_FAULTS = {
    "cld": ("cld", "", "leaves with df=0x1"),
    "cli": ("cli", "", "leaves with if=0x1"),
    "ds and ss swapped": ("mov ss, ax", "mov ds, ax", "leaves with ss="),
    "cs and ip swapped": ("dw ip\n    dw seg_cs", "dw seg_cs\n    dw ip", "(executes|touches) 0x"),
}


def with_fault(root: Path, name: str, old: str, new: str) -> Tree:
    """Sources with a fault in one of them, or in what it includes, assembled."""
    shutil.copytree(TREE.asm / "include", root / "asm/include")
    for arch in ("real", "i386", "x86_64"):
        only_it = shutil.ignore_patterns("*.asm")
        shutil.copytree(TREE.asm / arch, root / "asm" / arch, ignore=only_it)
    for needed in {name} if name.startswith("x86_64/") else {name, "i386/relocator"}:
        shutil.copy(SOURCES[needed].path, root / f"asm/{needed}.asm")
    changed = 0
    for path in (root / f"asm/{name}.asm", *root.glob("asm/*/*.inc")):
        text = path.read_text()
        changed += text.count(f"    {old}")
        path.write_text(text.replace(f"    {old}", f"    {new}"))
    assert changed, f"{old!r} is gone from {name}: this fault needs another place"
    tree = Tree(root, root / "build")
    assembler.build(tree)
    return tree


def hold_moves_of_all_kinds(tree: Tree, trace: bool) -> None:
    """Apart, overlapping so that it must be copied downwards, and overlapping the other way."""
    apart = Layout(0x203000, 0x200000, 0x0FFF, 0x205000, 0x206000, 0x200000)
    downwards = replace(apart, dst=0x203801, len=0x1002)
    upwards = replace(apart, src=0x200801, len=0x1003)
    for layout in (apart, downwards, upwards):
        hold_relocator("i386/relocator", layout, trace, tree, {"esp": 0x206100})


@pytest.mark.parametrize("trace", [True, False], ids=["traced", "untraced"])
def test_without_a_fault_none_is_found(trace: bool) -> None:
    hold_moves_of_all_kinds(TREE, trace)


@pytest.mark.parametrize("fault", RELOCATOR_FAULTS)
def test_a_fault_in_the_relocator_is_found(tmp_path: Path, fault: str) -> None:
    old, new, reason = RELOCATOR_FAULTS[fault]
    tree = with_fault(tmp_path, "i386/relocator", old, new)
    for trace, write in ((True, "writes 0x.*outside"), (False, "changed 0x.*outside")):
        with pytest.raises(ContractError, match=reason.replace("WRITES", write)):
            hold_moves_of_all_kinds(tree, trace)


@pytest.mark.parametrize("fault", EARLY_FAULTS)
def test_a_fault_in_the_early_stage_is_found(tmp_path: Path, fault: str) -> None:
    old, new, reason = EARLY_FAULTS[fault]
    tree = with_fault(tmp_path, "real/early", old, new)
    layout = EarlyLayout(
        early=0x99010,
        setup_cs=0x9020,
        ss=0x9000,
        sp=0x8FF0,
        relocator=0x201000,
        src=0x200000,
        dst=0x10000,
        len=0x0FFF,
    )
    with pytest.raises(ContractError, match=reason):
        hold_early(layout, tree)


@pytest.mark.parametrize("fault", BOOTSECT_FAULTS)
def test_a_fault_in_the_boot_sector_is_found(tmp_path: Path, fault: str) -> None:
    old, new, reason = BOOTSECT_FAULTS[fault]
    tree = with_fault(tmp_path, "real/bootsect", old, new)
    terms = contract.read(SOURCES["real/bootsect"].path)
    symbols = {read.symbol: 0x1BCD + 257 * i for i, read in enumerate(terms.reads)}
    with pytest.raises(ContractError, match=reason):
        hold_bootsect(symbols, 0, tree)
