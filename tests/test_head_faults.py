"""That the tests of the heads can fail: faults put into them, one at a time, are all found."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from headed import HOME, header, make, with_dst
from heading import hold_head
from held import TREE
from speaking import message

from pybuild import assembler
from pybuild.assembler import Tree
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.headboot import RAM, Boot
from pybuild.emulate.memory import PAGE, TOP

INC = "include/head.inc"
BOTH = (32, 64)

# By name: the file, what is there, what is there instead, and in which bits it is found.
FAULTS = {
    "no page_up": (INC, "add xax, HEAD_PAGE - 1\n    and xax, -HEAD_PAGE", "", BOTH),
    "page_up by one too many": (INC, "add xax, HEAD_PAGE - 1", "add xax, HEAD_PAGE", BOTH),
    "kernel ends where it starts": (INC, "add xcx, xdx\n    mov [at(kernel_end)], xcx",
                                    "mov [at(kernel_end)], xdx", BOTH),
    "init_size ignored": (INC, "mov ecx, strict dword init_size\n    add xcx, xdx",
                          "mov ecx, strict dword len\n    add xcx, xdx", BOTH),
    "step_past looks the other way": (INC, "cmp xdi, xbx\n    jae .clear",
                                      "cmp xdi, xbx\n    jb .clear", BOTH),
    "step_past goes back to what is below": (INC, "cmp xax, xdx\n    jae .clear", "", BOTH),
    "initrd copied upwards": (INC, "std\n    lea xsi, [xsi + xcx - 1]\n"
                              "    lea xdi, [xdi + xcx - 1]", "rep movsb\n    jmp .moved", BOTH),
    "initrd one byte short": (INC, "mov xdx, xcx\n    and ecx, xword_size - 1\n    rep movsb",
                              "mov xdx, xcx\n    and ecx, xword_size - 2\n    rep movsb", BOTH),
    "initrd's size not told": (INC, "mov [xsi + boot_params.ramdisk_size], ecx", "", BOTH),
    "initrd over the loader's": (INC, "jne .initrd_placed", "", BOTH),
    "no blank": (INC, "mov byte [xdi], ' '\n    inc xdi", "", BOTH),
    "a blank behind the last": (INC, "xor ecx, ecx                        ; an", "; an", BOTH),
    "no NUL": (INC, "mov byte [xdi], 0", "", BOTH),
    "loader's command line appended anyway": (INC, "jnz .measured", "", BOTH),
    "command line may be one too long": (INC, "inc eax                             ; a", "; a",
                                         BOTH),
    "saved table one short": (INC, "mov ecx, strict dword saved_count",
                              "mov ecx, strict dword saved_count\n    dec ecx", BOTH),
    "saved fields not put back": (INC, "mov [xsi + xdx], al", "", BOTH),
    "GDT not copied": (INC, "mov ecx, gdt.end - gdt\n    rep movsb",
                       "mov ecx, gdt.end - gdt\n    add xdi, xcx", BOTH),
    "GDT stays the loader's": (INC, "lgdt [at(gdt_register)]", "", BOTH),
    "GDT one byte short": (INC, "dw gdt.end - gdt - 1", "dw gdt.end - gdt - 2", BOTH),
    "selector": (INC, "push __BOOT_CS", "push __BOOT_DS", BOTH),
    "relocator one byte short": (INC, "mov ecx, strict dword relocator_size",
                                 "mov ecx, strict dword relocator_size\n    dec ecx", (32,)),
    "a fixup is skipped": (INC, "mov ecx, strict dword fixup_count",
                           "mov ecx, strict dword fixup_count\n    dec ecx", BOTH),
    "dst not told": (INC, "mov [at(values.dst)], xax", "", BOTH),
    "code32_start not told": (INC, "mov [at(values.code32_start)], ecx", "", BOTH),
    "stack pointer not put back": (INC, "mov xsp, [at(kernel_sp)]", "", BOTH),
    "edi not cleared": (INC, "xor edi, edi\n    xor ebp, ebp", "xor ebp, ebp", BOTH),
    "ebp not cleared": (INC, "xor ebp, ebp\n    jmp xdx", "jmp xdx", BOTH),
    "kernel_alignment ignored": (INC, "lea xdx, [xbx + xcx - 1]\n    neg xcx\n    and xdx, xcx",
                                 "mov xdx, xbx", BOTH),
    "kernel_alignment not lowered": (INC, "mov ecx, [xsi + boot_params.kernel_alignment]",
                                     "mov ecx, 0x2000", BOTH),
    "pref_address ignored": (INC, "cmp xdx, xcx\n    jae .placed", "jmp .placed", BOTH),
    "run window not looked at": (INC, "mov ecx, strict dword init_size\n    call check_free", "",
                                 BOTH),
    "work area not looked at": (INC, "mov ecx, strict dword work_size\n    call check_free", "",
                                BOTH),
    "initrd's place not looked at": (INC, "mov ecx, strict dword initrd_size\n    call check_free",
                                     "", BOTH),
    "E820 not read to its end": (INC, "dec eax\n    jnz .entry", "dec eax\n    jz .done", BOTH),
    "E820 in one pass": (INC, "jne .pass ", "nop ;", BOTH),
    "E820 types ignored": (INC, "cmp dword [xsi + E820_TYPE], E820_TYPE_RAM", "cmp eax, eax", BOTH),
    "E820 above 4 GiB taken for below": (INC, "jne .next                           ; above", "; ",
                                         (32,)),
    "check_apart takes touching for in the way": (INC, "cmp xdi, [at(range.end)]\n    jae .apart",
                                                  "cmp xdi, [at(range.end)]\n    ja .apart", BOTH),
    "check_apart off by one": (INC, "dec xcx                             ; its", "; its", BOTH),
    "halts": (INC, ".wait:\n    pause\n    jmp .wait", "hlt", BOTH),
    "does not wait for COM1": (INC, "loopz .wait", "nop", BOTH),
    "screen not mapped": (INC, "call map_screen\n", "nop\n", (64,)),
    "upper half of a pointer not written": (INC, "shr rax, 32\n    mov [xsi + %2], eax",
                                            "shr rax, 32", (64,)),
    "upper half of a pointer not read": (INC, "shl r11, 32", "shr r11, 32", (64,)),
    "code32_start of 64 bits": (INC, "add ecx, eax                        ; the field has 32 bits, "
                                "also above 4 GiB\n    mov [at(values.code32_start)], ecx",
                                "add xcx, xax\n    mov [at(values.code32_start)], xcx", (64,)),
    "dst's region not looked at": (INC, "mov ecx, strict dword len\n    call check_free",
                                   "mov ecx, strict dword len", BOTH),
    "tables over the relocator": (INC, "mov ecx, strict dword work_tables",
                                  "mov ecx, strict dword work_tables\n    sub ecx, 0x1000", (64,)),
    "64: the jump misses": ("i386/head.asm", "jmp strict near head64", "jmp strict near head64 + 1",
                            (64,)),
    "entry": (INC, "mov [at(values.entry)], xcx", "mov [at(values.entry)], xax", (64,)),
    "ss not loaded": ("i386/head.asm", "mov ss, eax", "", (32,)),
    "df stays set": ("i386/head.asm", "cld\n", "", (32,)),
    "64: df stays set": ("x86_64/head.asm", "cld\n", "", (64,)),
    "stack in the kernel": ("i386/head.asm", "add esp, ebp", "lea esp, [esp + ebp + 64]", (32,)),
    "64: stack in the kernel": ("x86_64/head.asm", "mov rsp, rdi", "lea rsp, [rdi + 64]", (64,)),
    "scratch elsewhere": ("i386/head.asm", "SCRATCH + 4]", "SCRATCH]", (32,)),
    "64: reachable whatever it is": ("x86_64/head.asm", "jnz fail", "", (64,)),
}  # fmt: skip


def with_fault(root: Path, where: str, old: str, new: str) -> Tree:
    """The heads and what they need, with a fault, assembled."""
    shutil.copytree(TREE.asm / "include", root / "asm/include")
    for folder in ("i386", "x86_64"):
        (root / "asm" / folder).mkdir()
        for path in (TREE.asm / folder).iterdir():
            if path.suffix != ".asm" or path.stem in ("head", "relocator"):
                shutil.copy(path, root / "asm" / folder)
    path = root / "asm" / where
    text = path.read_text()
    assert old in text, f"{old!r} is gone from {where}: this fault needs another place"
    path.write_text(text.replace(old, new))
    tree = Tree(root, root / "build")
    assembler.build(tree)
    return tree


def hold_all(bits: int, tree: Tree) -> None:
    """A few boots of every kind, and a few that must fail."""
    whole = header(init_size=0x8000, cmdline_size=20, root_flags=0x1234)
    moved = make(0x2345, whole, text="quiet", initrd=0x1235, tree=tree)
    line = (0x70000, b"x" * 14)
    near = Boot(bits, moved, HOME, cmdline=line, trace=False)
    hold_head(near, tree)
    ram = ((HOME + 0x2000, 0x100000, RAM), (0, HOME + 0x2001, RAM), (TOP + HOME, PAGE, 2))
    hold_head(dataclasses.replace(near, cmdline=(1, b""), e820=ram, boot_params=0xFF000), tree)
    hold_head(dataclasses.replace(near, cmdline=None, initrd=(0x60000, 5)), tree)
    hold_head(dataclasses.replace(near, gdt=HOME + 0x8000 - 0x48, address=0x400000), tree)
    touching = {"boot_params": HOME + 0x8000, "cmdline": (HOME - 3, b"ab")}
    hold_head(dataclasses.replace(near, address=0x400000, **touching), tree)  # type: ignore[arg-type]
    if bits == 64:
        hold_head(dataclasses.replace(near, cmdline=(6 << 30, b"ab")), tree)
    above = with_dst(moved, HOME + 0x5001, HOME, tree)
    hold_head(Boot(bits, above, HOME, trace=False), tree)
    fields = {**whole, "relocatable_kernel": 1, "kernel_alignment": 0x4000}
    for more in ({"pref_address": HOME + 0x11000}, {"init_size": 0xB345}):
        made = make(0x2345, {**fields, **more}, text="a", replace=True, initrd=0x1235, tree=tree)
        hold_head(Boot(bits, made, HOME, cmdline=line, trace=False), tree)
        hold_head(Boot(bits, made, HOME + 0x4C00, alignment=0x400, trace=False), tree)
        hold_head(Boot(bits, made, made.image["pref_address"], trace=False), tree)
        if bits == 64:
            hold_head(Boot(bits, made, 5 << 30, trace=False), tree)
    made = make(0x2345, {**fields, "init_size": 0x2345}, initrd=0xBF1, tree=tree)
    hold_head(Boot(bits, made, HOME + 0x4C00, alignment=0x400, trace=False), tree)
    expect_messages(Boot(bits, moved, 0x400000, trace=False), tree)


def expect_messages(boot: Boot, tree: Tree) -> None:
    """That it stops, and says why."""
    places = boot.places
    assert places.initrd
    needs = "lie in memory that this kernel needs: "
    changes = [
        ({"boot_params": HOME + 1 - PAGE}, needs + "0x100000 to 0x102344"),
        ({"cmdline": (HOME + 0x7FFF, b"")}, "lies in memory that this kernel needs: 0x100000 to"),
        ({"cmdline": (places.initrd.start, b"")}, f"kernel needs: {places.initrd.start:#x} to"),
        ({"boot_params": places.work.end - 1}, needs + f"{places.work.start:#x} to"),
        ({"e820": ((0, HOME, RAM), (HOME, TOP - HOME, 7))}, "no RAM where this kernel needs it"),
        ({"cmdline": (0x70000, b"x" * 15)}, "are too long for this kernel"),
    ]
    if boot.bits == 64:
        flags = header(xloadflags=1)
        high = dataclasses.replace(boot, made=make(9, flags, tree=tree), boot_params=TOP)
        assert "out of this kernel's reach" in message(high, tree, early=False)
    for change, expected in changes:
        said = message(dataclasses.replace(boot, **change), tree)  # type: ignore[arg-type]
        if expected not in said:
            raise ContractError(f"says {said!r}, expected {expected!r}")


@pytest.mark.parametrize("bits", BOTH)
def test_without_a_fault_none_is_found(bits: int) -> None:
    hold_all(bits, TREE)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(tmp_path: Path, fault: str) -> None:
    where, old, new, found = FAULTS[fault]
    tree = with_fault(tmp_path, where, old, new)
    for bits in found:
        with pytest.raises(AssertionError):
            hold_all(bits, tree)
