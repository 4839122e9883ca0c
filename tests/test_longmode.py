"""Page tables by identity.inc: how much memory they take; and binaries that jump to each other."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from held import TREE, examples, hold_relocator
from hypothesis import given
from hypothesis import strategies as st
from nasm import ARCH
from test_contract_long_faults import APART, hold_stop

from pybuild import assembler, contract
from pybuild.assembler import Tree
from pybuild.emulate.activation import Placed
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.layouts import CMD_LINE, GDT, PARAMS
from pybuild.emulate.memory import TOP, Memory
from pybuild.emulate.paging import Paging, Range
from pybuild.emulate.run import run
from pybuild.longmode import BELOW, TABLE, tables_size

GIB = 1 << 30
HALF_TIB = 1 << 39
GDT_MOST = 1 << 16


def used(ranges: Sequence[Range], la57: bool) -> int:
    """Bytes of tables that map the low 4 GiB and these ranges, in pages of 2 MiB."""
    tables = {0}  # the root
    for low, high in ((0, TOP), *ranges):
        for shift in (30, 39, 48) if la57 else (30, 39):
            first, last = low >> shift, (high - 1) >> shift
            tables |= {shift << 48 | index for index in range(first, last + 1)}
    return len(tables) * TABLE


def ranges_of(sizes: Sequence[int], starts: Sequence[int]) -> list[Range]:
    return [(low, low + size) for size, low in zip(sizes, starts, strict=True) if size]


def sizes_of(length: int, init_size: int) -> list[int]:
    size = tables_size(length, init_size)
    relocator = contract.read(TREE.asm / "x86_64/relocator.asm").limit
    return [relocator, size, PARAMS, CMD_LINE, GDT_MOST, length, max(length, init_size)]


lengths = st.one_of(st.integers(0, 1 << 26), st.integers(0, TOP - 1), st.integers(0, 4 * HALF_TIB))


@examples(300)
@given(data=st.data(), length=lengths, init_size=st.integers(0, TOP - 1), la57=st.booleans())
def test_tables_never_take_more_than_was_said(
    data: st.DataObject, length: int, init_size: int, la57: bool
) -> None:
    sizes = sizes_of(length, init_size)
    starts = []
    for size in sizes:
        border = data.draw(st.integers(1, 255)) * data.draw(st.sampled_from((GIB, HALF_TIB)))
        low = border - data.draw(st.one_of(st.integers(0, 2), st.integers(0, max(size, 1))))
        starts.append(min(max(low, 0), BELOW - size))
    assert used(ranges_of(sizes, starts), la57) <= tables_size(length, init_size)


@pytest.mark.parametrize("length", [0, 1, 2, 0x1000, GIB + 1, GIB + 2, HALF_TIB + 2])
@pytest.mark.parametrize("init_size", [0, 2, 1 << 26, TOP - 1])
def test_the_worst_case_takes_all_of_it(length: int, init_size: int) -> None:
    """Each range begins with the last byte before a border of 512 GiB, far from all others."""
    sizes = sizes_of(length, init_size)
    starts = [16 * (i + 1) * HALF_TIB - 1 for i in range(len(sizes))]
    ranges = ranges_of(sizes, starts)
    assert used(ranges, la57=True) == tables_size(length, init_size)
    assert used(ranges, la57=False) == tables_size(length, init_size) - TABLE


def test_tables_are_no_large_range() -> None:
    assert tables_size(1 << 26, 1 << 26) == 35 * TABLE
    with pytest.raises(ValueError, match="too large"):
        tables_size(1 << 48, 0)


@pytest.mark.contract("x86_64/relocator")
@pytest.mark.parametrize("la57", [False, True], ids=["4 levels", "5 levels"])
@pytest.mark.parametrize("border", [4 * GIB, HALF_TIB])
def test_the_relocator_takes_as_many_tables_as_it_must(la57: bool, border: int) -> None:
    """And with one table less it stops."""
    layout = replace(APART, dst=border - 0x203, entry=border, la57=la57)
    sizes = [len(TREE.load("x86_64/relocator").code), TABLE, PARAMS, CMD_LINE, GDT]
    starts = [layout.base, 9 * GIB, layout.boot_params, layout.cmd_line, layout.gdt]
    sizes += [layout.len, layout.init_size]
    ranges = ranges_of(sizes, [*starts, layout.src, layout.dst])
    exactly = replace(layout, tables=9 * GIB, tables_size=used(ranges, la57))
    hold_relocator("x86_64/relocator", exactly, trace=False)
    fewer = replace(exactly, tables_size=exactly.tables_size - TABLE)
    hold_stop("x86_64/relocator", fewer, trace=False)


HEAD = """\
; head.asm - jumps to the other
;
; enter     long64
; reads     next address 0..0xffffffff
; reads     end  address 0..0xffffffff
; clobbers  eax
; leaves    end  ebx=0 rcx=7
; limit     32
bits 64
extern next
    mov eax, strict dword next
    jmp rax
extern end
    dd end
"""
NEXT = """\
; next.asm - jumps to the end
;
; enter     long64
; reads     end address 0..0xffffffff
; clobbers  rax
; leaves    end  rbx=0 ecx=7
; limit     32
bits 64
extern end
    mov eax, strict dword end
    xor ebx, ebx
    mov ecx, 7
    jmp rax
"""


@pytest.mark.contract("x86_64/relocator")
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("", "", ""),
        ("mov ecx, 7", "mov rcx, 0x700000007", "t/head at .* leaves with rcx=0x700000007"),
        ("mov ecx, 7", "mov ecx, 8", "t/next at .* leaves with ecx=0x8.*mov ecx, 8"),
        ("mov ecx, 7", "mov ecx, 7\n    bts rbx, 40", "t/next at .* leaves with rbx=0x1"),
        ("mov ecx, 7", "mov ecx, 7\n    mov r9d, r9d", "t/next at .* leaves with r9="),
        ("mov eax, strict dword next", "inc rbp\n    mov eax, strict dword next", "t/head .* rbp="),
        (
            "mov eax, strict dword next",
            "mov eax, strict dword next\n    inc eax",
            "t/head .* executes 0x",
        ),
        ("mov ecx, 7", "mov ecx, [dword 0x5000]", "t/next at .* touches 0x5000, which is not"),
    ],
)
def test_one_that_jumps_to_another_leaves_where_that_leaves(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    folder = tmp_path / "asm/t"
    folder.mkdir(parents=True)
    (folder / "arch.toml").write_text(ARCH[64])
    for name, text in (("head", HEAD), ("next", NEXT)):
        (folder / f"{name}.asm").write_text(text.replace(old, new) if old else text)
    tree = Tree(tmp_path, tmp_path / "build")
    assembler.build(tree)
    head, after = (
        Placed(contract.read(folder / f"{name}.asm"), tree.load(f"t/{name}"), base, symbols)
        for name, base, symbols in (
            ("head", 0x1000, {"next": 0x2000, "end": 0x3000}),
            ("next", 0x2000, {"end": 0x3000}),
        )
    )
    memory = Memory([(0x5000, random.Random(0).randbytes(0x1000))])
    paging = Paging([(0x2000, 0x4000)])

    def hold() -> None:
        run(head, after, memory=memory, registers={}, paging=paging)

    if reason:
        with pytest.raises(ContractError, match=reason):
            hold()
    else:
        hold()
