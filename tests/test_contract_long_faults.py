"""That the contract tests can fail in long mode: faults in x86_64/ and its tables are found."""

from dataclasses import replace
from pathlib import Path

import pytest
from held import TREE, hold_relocator
from test_contract_faults import with_fault

from pybuild.assembler import Tree
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.layouts import GDT, LongLayout
from pybuild.longmode import TABLE, tables_size

GIB = 1 << 30
UNMAPPED = "page tables: 0x.* is not mapped"
TOUCHES = "touches 0x.*, which is not mapped"
CLEAR_RBX = "xor ebx, ebx"

MOVE_FAULTS = {
    "df stays set": ("rep movsq\n    cld", "rep movsq", "leaves with df=0x1"),
    "rdi lost": ("mov rdi, rdx", "", "leaves with rdi="),
    "rsi not restored": ("mov rsi, rbx", "", f"leaves with rsi=|WRITES|{TOUCHES}"),
    "rbp spoilt": ("mov rbx, rsi", "mov rbx, rsi\n    inc rbp", "leaves with rbp="),
    "rsp spoilt": ("mov rbx, rsi", "mov rbx, rsi\n    inc rsp", "leaves with rsp="),
    "upper half of rbp lost": ("mov rbx, rsi", "mov rbx, rsi\n    mov ebp, ebp", "with rbp="),
    "rbx not cleared": (CLEAR_RBX, "", "leaves with rbx="),
    "only bl cleared": (CLEAR_RBX, "xor bl, bl", "leaves with rbx="),
    "interrupts on": (CLEAR_RBX, f"{CLEAR_RBX}\n    sti", "leaves with if=0x1"),
    "uses the stack": ("mov rbx, rsi", "mov rbx, rsi\n    push rbx\n    pop rbx", "touches|raises"),
    "wrong tail": ("and ecx, 7", "and ecx, 3", "memmove"),
    "wrong order": ("jb .downwards", "ja .downwards", "memmove"),
    "only upwards": ("jb .downwards", "", "memmove"),
    "downwards from a qword's second byte": ("sub rsi, 7", "sub rsi, 6", "memmove"),
    "one byte too many": (
        "mov rcx, strict qword len",
        "mov rcx, strict qword len\n    inc rcx",
        f"WRITES|{TOUCHES}",
    ),
    "writes zeros": (CLEAR_RBX, f"{CLEAR_RBX}\n    mov [rsi + 4], ebx", "WRITES"),
    "changes itself": (CLEAR_RBX, f"{CLEAR_RBX}\n    mov [rel relocator], ebx", "WRITES"),
    "code32_start not put back": (
        "mov dword [rsi + boot_params.code32_start], strict dword code32_start",
        "mov eax, strict dword code32_start",
        "code32_start",
    ),
    "code32_start as a qword": (
        "mov dword [rsi + boot_params.code32_start], strict dword code32_start",
        "mov qword [rsi + boot_params.code32_start], 0\n    mov eax, strict dword code32_start\n"
        "    mov [rsi + boot_params.code32_start], eax",
        "WRITES",
    ),
    "enters one byte late": ("jmp rax", "inc rax\n    jmp rax", "executes 0x"),
    "enters where its low half points": ("jmp rax", "mov eax, eax\n    jmp rax", "touches 0x"),
    "falls off the end": ("jmp rax", "jmp identity_end", "executes 0x"),
    "never ends": ("jmp rax", "jmp $", "took more than"),
    "breakpoint": (CLEAR_RBX, "int3", "interrupt or exception 0x3"),
    "ss not loaded": ("mov ss, eax", "", "leaves with ss="),
    "ds not loaded": ("mov ds, eax", "", "leaves with ds="),
    "null in fs": ("mov fs, eax", "xor ecx, ecx\n    mov fs, cx", "leaves with fs="),
    "no such selector": ("mov gs, eax", "mov cx, 0x100\n    mov gs, cx", "exception 0xd"),
}
TABLE_FAULTS = {
    "not cleared": ("mov qword [r9], 0", "", f"{TOUCHES}|page tables|no memory is|WRITES|raises"),
    "half cleared": (
        "test r9d, IDENTITY_TABLE - 1\n    jnz .clear",
        "test r9d, IDENTITY_TABLE / 2 - 1\n    jnz .clear\n    add r9, IDENTITY_TABLE / 2",
        f"{TOUCHES}|page tables|no memory is|WRITES|raises",
    ),
    "the GDTR stays": ("mov [r8 + IDENTITY_SGDT], rcx", "", "page tables"),
    "LA57 not looked at": ("jnc .low", "jmp .low", "touches|page tables|raises"),
    "LA57 always": ("jnc .low", "", "touches|page tables|raises"),
    "only 3 GiB": ("mov rdx, IDENTITY_LOW_END", "mov rdx, 0xc0000000", UNMAPPED),
    "not to the end": ("cmp rax, rdx", "lea r12, [rax + 1]\n    cmp r12, rdx", UNMAPPED),
    "a page too few": (
        "cmp rax, rdx",
        "lea r12, [rax + IDENTITY_PAGE]\n    cmp r12, rdx",
        f"{UNMAPPED}|{TOUCHES}",
    ),
    "not from a page's start": ("and rax, -IDENTITY_PAGE", "", "touches|page tables|raises"),
    "not writable": ("lea r12, [rax + IDENTITY_MAPPED]", "lea r12, [rax + 0x81]", TOUCHES),
    "dst not mapped": ("mov rax, strict qword dst", "xor eax, eax", TOUCHES),
    "src not mapped": (
        "mov rdx, strict qword len\n    add rdx, rax\n",
        "mov rdx, strict qword len\n    xor edx, edx\n",
        TOUCHES,
    ),
    "init_size not mapped": ("mov rdx, rcx", "", UNMAPPED),
    "only init_size mapped": ("jae .longer", "", f"{TOUCHES}|{UNMAPPED}"),
    "itself not mapped": ("lea rdx, [rel identity_end]", "xor edx, edx", TOUCHES),
    "its first page mapped": ("lea rdx, [rel identity_end]", "lea rdx, [rax + 1]", TOUCHES),
    "tables not mapped": ("mov rdx, r10", "xor edx, edx", UNMAPPED),
    "boot_params not mapped": ("lea rdx, [rsi + BOOT_PARAMS_SIZE]", "xor edx, edx", TOUCHES),
    "one byte of boot_params": (
        "lea rdx, [rsi + BOOT_PARAMS_SIZE]",
        "lea rdx, [rsi + 1]",
        UNMAPPED,
    ),
    "command line not mapped": ("lea rdx, [rax + IDENTITY_CMD_LINE]", "xor edx, edx", UNMAPPED),
    "command line below 4 GiB": ("or rax, rcx", "", UNMAPPED),
    "32 KiB of the command line": (
        "lea rdx, [rax + IDENTITY_CMD_LINE]",
        "lea rdx, [rax + IDENTITY_CMD_LINE / 2]",
        UNMAPPED,
    ),
    "GDT not mapped": ("lea rdx, [rax + rdx + 1]", "xor edx, edx", UNMAPPED),
    "GDT but for a byte": ("lea rdx, [rax + rdx + 1]", "lea rdx, [rax + rdx]", UNMAPPED),
    "not used": ("mov cr3, r8", "", "touches|leaves with Control"),
    "CR4 spoilt": ("mov cr4, rcx", "", "leaves with Control"),
    "no end": ("jae identity_full", "", f"WRITES|{TOUCHES}"),
    "one too many": ("jae identity_full", "ja identity_full", f"WRITES|{TOUCHES}"),
}

# Each in a GiB of its own, above 4 GiB, and across the border of two pages.
APART = LongLayout(
    src=5 * GIB - 0x801,
    dst=6 * GIB - 0x203,
    len=0xFFF,
    base=7 * GIB - 0x80,
    boot_params=8 * GIB - 0x300,
    code32_start=0x12345678,
    entry=6 * GIB + 0x200,
    init_size=GIB + 0x1000,
    tables=9 * GIB - TABLE,
    tables_size=tables_size(0x2000, 2 * GIB),
    cmd_line=11 * GIB - 0xFFF0,
    gdt=10 * GIB - (GDT - 1),
)
LONGER = replace(APART, init_size=0, entry=APART.dst)
UPWARDS = replace(APART, dst=APART.src - 0x801, len=0x1003, init_size=0, entry=0x9000)
DOWNWARDS = replace(APART, dst=APART.src + 0x801, len=0x1002, init_size=0x100, la57=True)


def hold_moves_of_all_kinds(tree: Tree, trace: bool) -> None:
    for layout in (APART, LONGER, UPWARDS, replace(DOWNWARDS, entry=DOWNWARDS.dst + 0x200)):
        hold_relocator("x86_64/relocator", layout, trace, tree, explain=False)
    for count in range(1, 12, 3):
        hold_stop("x86_64/relocator", replace(APART, tables_size=count * TABLE), trace, tree)


def hold_stop(name: str, layout: LongLayout, trace: bool, tree: Tree = TREE) -> None:
    """Raises ContractError unless a relocator with too little memory for tables stops."""
    try:
        hold_relocator(name, layout, trace, tree, explain=False)
    except ContractError as error:
        if "took more than" in str(error):
            return
        raise
    raise ContractError(f"goes on with {layout.tables_size:#x} bytes for its tables")


@pytest.mark.parametrize("trace", [True, False], ids=["traced", "untraced"])
def test_without_a_fault_none_is_found(trace: bool) -> None:
    hold_moves_of_all_kinds(TREE, trace)


@pytest.mark.parametrize("fault", [*MOVE_FAULTS, *TABLE_FAULTS])
def test_a_fault_in_the_64_bit_relocator_is_found(tmp_path: Path, fault: str) -> None:
    old, new, reason = {**MOVE_FAULTS, **TABLE_FAULTS}[fault]
    tree = with_fault(tmp_path, "x86_64/relocator", old, new)
    for trace, write in ((True, "writes 0x.*outside"), (False, "changed 0x.*outside")):
        with pytest.raises(ContractError, match=reason.replace("WRITES", write)):
            hold_moves_of_all_kinds(tree, trace)
