import json
import struct
from pathlib import Path
from typing import NamedTuple

import pytest
from nasm import assemble, by_elftools, by_lief, gnu_ld, link, patch_relocation

from pybuild import assembler, linker
from pybuild.errors import BuildError
from pybuild.flat import BASE_SYMBOL, Relocation, table_path
from pybuild.paths import ROOT

BASE = 0x100000


class Case(NamedTuple):
    """A relocation type: a statement for which NASM emits it, and what its field takes."""

    type: str
    format: str
    bits: int
    statement: str
    offset: int  # of the field
    size: int
    addend: int
    low: int | None  # the ends of the range, by the ABI; None if it wraps
    high: int | None

    @property
    def source(self) -> str:
        return f"bits {self.bits}\nextern s\nsection .text\n    {self.statement}\n"

    @property
    def pc_relative(self) -> bool:
        return "PC" in self.type

    def symbol(self, value: int) -> int:
        """What the symbol must be for the field to get this value."""
        place = BASE + self.offset if self.pc_relative else 0
        return value - self.addend + place


# NASM 2.16 emits every type that the linker knows: no object needs to be forged for them.
CASES = [
    Case("R_386_8", "elf32", 32, "db s + 1", 0, 1, 1, -0x80, 0xFF),
    Case("R_386_16", "elf32", 16, "mov si, strict word s", 1, 2, 0, -0x8000, 0xFFFF),
    Case("R_386_32", "elf32", 32, "mov esi, strict dword s - 3", 1, 4, -3, -(2**31), 2**32 - 1),
    Case("R_386_PC8", "elf32", 32, "jmp short s", 1, 1, -1, -0x80, 0x7F),
    Case("R_386_PC16", "elf32", 16, "jmp near s", 1, 2, -2, -0x8000, 0xFFFF),
    Case("R_386_PC32", "elf32", 32, "call s", 1, 4, -4, None, None),
    Case("R_X86_64_8", "elf64", 64, "db s + 1", 0, 1, 1, -0x80, 0xFF),
    Case("R_X86_64_16", "elf64", 64, "dw s", 0, 2, 0, -0x8000, 0xFFFF),
    Case("R_X86_64_32", "elf64", 64, "mov esi, strict dword s + 5", 1, 4, 5, 0, 2**32 - 1),
    Case("R_X86_64_32S", "elf64", 64, "mov rsi, strict dword s", 3, 4, 0, -(2**31), 2**31 - 1),
    Case("R_X86_64_64", "elf64", 64, "mov rsi, strict qword s", 2, 8, 0, -(2**63), 2**64 - 1),
    Case("R_X86_64_PC8", "elf64", 64, "jmp short s", 1, 1, -1, -0x80, 0x7F),
    Case("R_X86_64_PC16", "elf64", 16, "jmp near s", 1, 2, -2, -0x8000, 0xFFFF),
    Case("R_X86_64_PC32", "elf64", 64, "lea rax, [rel s]", 3, 4, -4, -(2**31), 2**31 - 1),
    Case("R_X86_64_PC64", "elf64", 64, "dq s - $", 0, 8, 0, None, None),
]
each_type = pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
both_formats = pytest.mark.parametrize("output_format", ["elf32", "elf64"])


@each_type
def test_every_type_is_bound_up_to_the_ends_of_its_range(case: Case, tmp_path: Path) -> None:
    binary = link(tmp_path, case.source, case.format)
    expected = Relocation(case.offset, case.type, "s", case.addend)
    assert binary.relocations == (expected,)
    field = slice(case.offset, case.offset + case.size)
    assert binary.code[field] == bytes(case.size)
    bits = 8 * case.size
    low = -(2 ** (bits - 1)) if case.low is None else case.low
    high = 2 ** (bits - 1) - 1 if case.high is None else case.high
    for value in (low, low + 1, -1 if low else 1, 0, 0x12, high - 1, high):
        code = binary.bind({"s": case.symbol(value)}, BASE)
        assert code[field] == (value % 2**bits).to_bytes(case.size, "little")
        assert code[: case.offset] + code[field.stop :] == (
            binary.code[: case.offset] + binary.code[field.stop :]
        )


@each_type
def test_every_type_refuses_what_lies_beyond(case: Case, tmp_path: Path) -> None:
    binary = link(tmp_path, case.source, case.format)
    if case.low is None or case.high is None:
        # It wraps as addresses do; but no symbol of that machine is as large as this.
        beyond = [case.symbol(2 ** (8 * case.size) + 1), case.symbol(-(2 ** (8 * case.size)) - 1)]
    else:
        beyond = [case.symbol(case.low - 1), case.symbol(case.high + 1)]
        ends = rf"expected {case.low:#x}\.\.{case.high:#x}$"
    for symbol in beyond:
        with pytest.raises(BuildError) as raised:
            binary.bind({"s": symbol}, BASE)
        place = 0 if not case.pc_relative else BASE + case.offset
        assert (
            f"t/t: offset {case.offset:#x}: symbol 's': {case.type} value "
            f"{symbol + case.addend - place:#x} does not fit, expected " in str(raised.value)
        )
        if case.low is not None:
            assert raised.match(ends)


@each_type
def test_gnu_ld_gives_the_same_at_the_ends(case: Case, tmp_path: Path) -> None:
    target = assemble(tmp_path, case.source, case.format)
    binary = linker.link(target, "t/t")
    # Where the addend lies in the code, ld wants S - P to fit even before it adds that.
    before = min(case.addend, 0) if case.format == "elf32" else 0
    for value in (case.low or 0, 0x12, (case.high or 0) + before):
        values = {"s": case.symbol(value)}
        assert gnu_ld(target, values, BASE, case.format) == binary.bind(values, BASE)


def test_addresses_of_32_bits_wrap(tmp_path: Path) -> None:
    target = assemble(tmp_path, "bits 32\nextern s\nsection .text\n    call s\n")
    for base, symbol in [(0, 0xFFFFFFF0), (0xFFFFF000, 0x10), (0x7FFFFFFF, 0), (1, 0xFFFFFFFF)]:
        expected = b"\xe8" + ((symbol - base - 5) % 2**32).to_bytes(4, "little")
        assert linker.link(target, "t/t").bind({"s": symbol}, base) == expected


SECTIONS = """
bits 32
section .bss
zeros:      resb 3
section .data
global counter
counter:    dd start wrt ..sym
section .text.late progbits alloc exec nowrite align=16
global late
late:       mov eax, [zeros]
            jmp start
section .text
global start
            nop
start:      call late
            mov ecx, [table]
            mov [counter], ecx
section .rodata.more progbits alloc noexec nowrite align=8
more:       dd more - $$
section .rodata
table:      dd late, zeros + 2
section .remark progbits noalloc noexec nowrite align=1
            db "not part of the binary"
remark:     dd start
"""


def test_sections_follow_each_other_by_kind(tmp_path: Path) -> None:
    target = assemble(tmp_path, SECTIONS)
    binary = linker.link(target, "t/t")
    # Code, read-only data, data, zeros; sections of one kind as the source first has them.
    assert binary.symbols == {"late": 0x0, "start": 0x11, "counter": 0x34}
    assert [(r.offset, r.addend) for r in binary.relocations] == [
        (0x01, 0x38),  # late: zeros
        (0x18, 0x2C),  # start: table
        (0x1E, 0x34),  # start: counter
        (0x2C, 0x00),  # table: late
        (0x30, 0x3A),  # table: zeros + 2
        (0x34, 0x11),  # counter: start, by the object's first relocation table
    ]
    assert {(r.symbol, r.type) for r in binary.relocations} == {(BASE_SYMBOL, "R_386_32")}
    assert binary.code[0x34:] == bytes(4 + 3)
    assert gnu_ld(target, {}, BASE) == binary.bind({}, BASE)


def test_alignment_is_kept_with_zeros(tmp_path: Path) -> None:
    source = "bits 64\nsection .text\n    ret\nsection .data align=64\n    db 1\n"
    binary = link(tmp_path, source, "elf64")
    assert binary.code == b"\xc3" + bytes(63) + b"\x01"


@both_formats
def test_empty_object_is_an_empty_binary(tmp_path: Path, output_format: str) -> None:
    binary = link(tmp_path, "", output_format)
    assert (binary.code, binary.relocations, binary.symbols) == (b"", (), {})


@pytest.mark.parametrize("target_type", ["near", "short"])
def test_places_of_the_binary_are_resolved_at_once(tmp_path: Path, target_type: str) -> None:
    source = f"""bits 32
        section .text
        jmp {target_type} there
        section .text.b progbits alloc exec nowrite align=1
        nop
        there:
    """
    binary = link(tmp_path, source)
    expected = {"near": b"\xe9\x01\0\0\0\x90", "short": b"\xeb\x01\x90"}
    assert (binary.code, binary.relocations) == (expected[target_type], ())


def test_too_far_within_the_binary(tmp_path: Path) -> None:
    source = """bits 32
        section .text
        jmp short there
        times 126 nop
        section .text.b progbits alloc exec nowrite align=1
        nop
        there:
    """
    assert link(tmp_path, source.replace("nop\n        there", "there")).code[1] == 126
    assert link(tmp_path, source).code[1] == 127
    with pytest.raises(BuildError) as raised:
        link(tmp_path, source.replace("126", "127"))
    value = "R_386_PC8 value 0x80 does not fit, expected -0x80..0x7f"
    assert raised.match(rf"t\.o: \.text\+0x1: symbol '\.text\.b': {value}$")


ERRORS = {
    "absolute-export": (
        "global size\nsize equ 0x1234\n",
        r"t\.o: symbol 'size' \(value 0x1234\) is exported from SHN_ABS; a flat binary exports",
    ),
    "common": (
        "common pool 4\n",
        r"t\.o: symbol 'pool' \(value 0x[04]\) is exported from SHN_COMMON",
    ),
    "export-not-allocated": (
        "global there\nsection .remark progbits noalloc\nthere: db 1\n",
        r"t\.o: symbol 'there' \(value 0x0\) is exported from .*\.remark",
    ),
    "not-allocated": (
        "section .remark progbits noalloc\nthere: db 1\nsection .text\n    db 1\n    dd there\n",
        r"t\.o: \.text\+0x1: symbol '\.remark': R_386_32 against \.remark, expected an undefined",
    ),
    "plt": (
        "bits 32\nextern f\n    call f wrt ..plt\n",
        r"t\.o: \.text\+0x1: symbol 'f': unknown relocation type 4 of EM_386, expected one of "
        r"R_386_32, R_386_PC32, R_386_16",
    ),
    "absolute-target": (
        "bits 32\n    jmp 0x1000\n",
        r"t\.o: \.text\+0x1: R_386_PC32 .*absolute",
    ),
}


@pytest.mark.parametrize(("source", "message"), ERRORS.values(), ids=ERRORS)
def test_what_a_flat_binary_cannot_have(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        link(tmp_path, source)


@both_formats
def test_unknown_type(tmp_path: Path, output_format: str) -> None:
    target = assemble(tmp_path, "extern s\n    db 1\n    dd s\n", output_format)
    patch_relocation(target, kind=99)
    with pytest.raises(BuildError, match=r"t\.o: \.text\+0x1: symbol 's': unknown reloc.* 99"):
        linker.link(target, "t/t")


@both_formats
@pytest.mark.parametrize("offset", [0x2, 0x5, 0x7FFFFFFF])
def test_relocation_outside_its_section(tmp_path: Path, output_format: str, offset: int) -> None:
    source = "extern s\n    db 1\n    dd s\nsection .data\n    dq 0\n"
    target = assemble(tmp_path, source, output_format)
    patch_relocation(target, offset=offset)
    with pytest.raises(BuildError, match=rf"t\.o: \.text\+{offset:#x}: symbol 's': R_.*_32 lies o"):
        linker.link(target, "t/t")


@both_formats
def test_relocation_names_no_symbol(tmp_path: Path, output_format: str) -> None:
    target = assemble(tmp_path, "extern s\n    dd s\n", output_format)
    patch_relocation(target, symbol=1000)
    with pytest.raises(BuildError, match=r"t\.o: \.text\+0x0: .*1000"):
        linker.link(target, "t/t")


HEADERS = {
    "AArch64": (18, struct.pack("<H", 183), r"t\.o: ET_REL for EM_AARCH64, expected a reloc.*386"),
    "no machine": (18, struct.pack("<H", 0xFEED), r"t\.o: ET_REL for 65261, expected a reloc"),
    "executable": (16, struct.pack("<H", 2), r"t\.o: ET_EXEC for EM_386, expected a relocat"),
    "shared": (16, struct.pack("<H", 3), r"t\.o: ET_DYN for EM_386, expected a relocatable"),
    "magic": (0, b"\x7fELG", r"t\.o: not a readable ELF object"),
    "class": (4, b"\x07", r"t\.o: not a readable ELF object"),
}


@pytest.mark.parametrize(("at", "data", "message"), HEADERS.values(), ids=HEADERS)
def test_not_an_object_for_x86(tmp_path: Path, at: int, data: bytes, message: str) -> None:
    target = assemble(tmp_path, "    nop\n")
    code = bytearray(target.read_bytes())
    code[at : at + len(data)] = data
    target.write_bytes(code)
    with pytest.raises(BuildError, match=message):
        linker.link(target, "t/t")


@both_formats
def test_object_cut_short(tmp_path: Path, output_format: str) -> None:
    target = assemble(tmp_path, "extern s\n    nop\n    dd s\n", output_format)
    whole = target.read_bytes()
    for length in range(0, len(whole) - 16, 7):  # up to 15 zeros at its end belong to nothing
        target.write_bytes(whole[:length])
        with pytest.raises(BuildError, match=r"t\.o: not a readable ELF object"):
            linker.link(target, "t/t")


def test_object_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"gone\.o: not a readable ELF object: .*No such file"):
        linker.link(tmp_path / "gone.o", "t/t")


def objects(directory: Path) -> list[Path]:
    """The objects of all the project's sources, and one with every relocation type of each."""
    tree = assembler.Tree(ROOT, directory / "build")
    made = [tree.build / f"{name}.o" for name in assembler.build(tree)]
    for output_format in ("elf32", "elf64"):
        cases = [case for case in CASES if case.format == output_format]
        text = "".join(f"bits {case.bits}\n    {case.statement}\n" for case in cases)
        room = directory / output_format
        room.mkdir()
        target = assemble(room, f"extern s\n{text}bits 32\nhere: dd here\n", output_format)
        linker.link(target, "t/t").save(target.with_suffix(""))
        made.append(target)
    return made


def test_lief_and_pyelftools_read_the_same_relocations(tmp_path: Path) -> None:
    seen = set()
    for target in objects(tmp_path):
        rows, still_open = by_elftools(target)
        assert by_lief(target) == rows
        table = json.loads(table_path(target.with_suffix("")).read_text())
        assert [tuple(entry.values()) for entry in table["relocations"]] == still_open
        seen |= {name for _, name, _, _ in rows}
    assert seen == {case.type for case in CASES}
