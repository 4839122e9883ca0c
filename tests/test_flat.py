import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasm import assemble, assemble_file, gnu_ld, sections, with_constants

from pybuild import assembler, contract, linker
from pybuild.errors import BuildError
from pybuild.flat import BASE_SYMBOL, FlatBinary, Relocation, binary_path, load, table_path
from pybuild.paths import BUILD, ROOT
from pybuild.relocations import BY_NAME

with_nasm = settings(max_examples=25)
UP = 255  # bytes by which a binary is moved, at most


def flat(*relocations: Relocation, code: bytes = bytes(16)) -> FlatBinary:
    return FlatBinary("t/t", code, relocations)


SRC = Relocation(1, "R_386_32", "src", 4)
JUMP = Relocation(6, "R_386_PC32", "out", -4)
HERE = Relocation(10, "R_386_16", BASE_SYMBOL, 8)


def test_bind_fills_every_field_and_nothing_else() -> None:
    binary = flat(SRC, JUMP, HERE, code=b"\xbe\0\0\0\0\xe9" + bytes(4) + b"\0\0\x90\x90")
    assert binary.undefined == {"src", "out"}
    assert binary.needs_base
    bound = binary.bind({"src": 0x11223340, "out": 0x1000}, 0x7C00)
    jump = (0x1000 - 0x7C0A) % 2**32
    assert bound == (
        b"\xbe\x44\x33\x22\x11\xe9" + jump.to_bytes(4, "little") + b"\x08\x7c" + b"\x90\x90"
    )


@pytest.mark.parametrize(
    ("relocations", "symbols", "base", "message"),
    [
        ([SRC], {}, None, r"t/t: offset 0x1: symbol 'src' is left open, .*R_386_32.*0xffffffff"),
        ([SRC, JUMP], {"src": 0}, 0, r"t/t: offset 0x6: symbol 'out' is left open"),
        ([SRC], {"src": 0, "dst": 7}, 0, r"symbol 'dst' \(value 0x7\) is given but never .*: src$"),
        ([HERE], {"dst": 0}, 0, r"symbol 'dst' .* is given but never used; .* for: none$"),
        ([HERE], {BASE_SYMBOL: 0}, 0, r"symbol '\$\$' .* is given but never used"),
        ([HERE], {}, None, r"t/t: its bytes depend on its load address; none was given"),
        ([JUMP], {"out": 0}, None, r"t/t: its bytes depend on its load address; none was given"),
        ([HERE], {}, 0x10000, r"t/t: offset 0xa: symbol '\$\$': R_386_16 value 0x10008 does not f"),
        ([SRC], {"src": 2**32}, None, r"offset 0x1: symbol 'src': R_386_32 value 0x100000004 does"),
        ([SRC], {"src": -(2**31) - 5}, None, r"value -0x80000001 .* -0x80000000\.\.0xffffffff$"),
    ],
)
def test_bind_refuses(
    relocations: list[Relocation], symbols: Mapping[str, int], base: int | None, message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        flat(*relocations).bind(symbols, base)


def test_no_base_is_needed_where_nothing_depends_on_it() -> None:
    assert flat(SRC, code=bytes(5)).bind({"src": 1}) == b"\0\x05\0\0\0"
    assert flat(SRC, code=bytes(5)).bind({"src": 1}, 0x1000) == b"\0\x05\0\0\0"


@st.composite
def binaries(draw: st.DrawFn) -> FlatBinary:
    names = st.text(min_size=1, max_size=8) | st.just(BASE_SYMBOL)
    kinds = st.sampled_from(sorted(BY_NAME))
    entry = st.tuples(st.integers(0, 9), kinds, names, st.integers(-(2**63), 2**63))
    size = 0
    relocations = []
    for gap, kind, symbol, addend in draw(st.lists(entry, max_size=6)):
        relocations.append(Relocation(size + gap, kind, symbol, addend))
        size += gap + BY_NAME[kind].size
    code = draw(st.binary(min_size=size, max_size=size + 9))
    symbols = draw(st.dictionaries(names, st.integers(0, len(code))))
    return FlatBinary("t/t", code, tuple(relocations), symbols)


@settings(max_examples=40)
@given(binary=binaries())
def test_load_gives_back_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, binary: FlatBinary
) -> None:
    stem = tmp_path_factory.getbasetemp() / "round.trip"
    binary.save(stem)
    assert load("t/t", stem) == binary


def test_saved_form(tmp_path: Path) -> None:
    FlatBinary("t/t", b"\xbe\0\0\0\0", (SRC,), {"z": 5, "a": 0}).save(tmp_path / "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.bin", "t.rel.json"]
    assert (tmp_path / "t.bin").read_bytes() == b"\xbe\0\0\0\0"
    text = (tmp_path / "t.rel.json").read_text()
    entry = {"offset": 1, "type": "R_386_32", "symbol": "src", "addend": 4}
    table = {"relocations": [entry], "symbols": {"a": 0, "z": 5}}
    assert json.dumps(json.loads(text)) == json.dumps(table)  # the order of the keys, too
    assert text.endswith("}\n")


def test_binding_needs_only_the_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "bits 32\nextern src\n    mov esi, strict dword src\n    jmp src\n"
    linker.link(assemble(tmp_path, source), "t/t").save(tmp_path / "saved")
    room = tmp_path / "room"
    room.mkdir()
    for path in (binary_path(tmp_path / "saved"), table_path(tmp_path / "saved")):
        path.rename(room / path.name)
    monkeypatch.setenv("PATH", str(room))
    bound = load("t/t", room / "saved").bind({"src": 0x2000}, 0x1000)
    assert bound == b"\xbe\0\x20\0\0\xe9" + (0x2000 - 0x100A).to_bytes(4, "little")


GOOD: dict[str, Any] = {"offset": 1, "type": "R_386_32", "symbol": "src", "addend": 4}
BAD_ENTRIES: list[Any] = [
    *({**GOOD, "offset": value} for value in (-1, 2, 2**70, "1", 1.0, True, None, [1])),
    *({**GOOD, "type": value} for value in ("R_386_GOT32", "", 1, None, ["R_386_32"])),
    *({**GOOD, "symbol": value} for value in ("", 1, None, ["src"])),
    *({**GOOD, "addend": value} for value in ("4", 4.5, True, None, [4])),
    *({k: v for k, v in GOOD.items() if k != key} for key in GOOD),
    [1, "R_386_32", "src", 4],
    "src",
    None,
]
NO_ENTRIES: dict[str, Any] = {}
BAD_TABLES: list[Any] = [
    *({"relocations": [entry], "symbols": {}} for entry in BAD_ENTRIES),
    *({"relocations": [], "symbols": {"a": value}} for value in (-1, 6, "0", 0.0, None, True)),
    *({"relocations": [], "symbols": symbols} for symbols in (None, 3, [], [["a", 0]])),
    *({"relocations": entries, "symbols": {}} for entries in (None, 3, "", NO_ENTRIES)),
    {"relocations": [GOOD, {**GOOD, "offset": 0}], "symbols": {}},  # one lies over the other
    {"relocations": []},
    {"symbols": {}},
    [],
    None,
]


@pytest.mark.parametrize("table", BAD_TABLES, ids=json.dumps)
def test_damaged_table(tmp_path: Path, table: object) -> None:
    (tmp_path / "t.bin").write_bytes(bytes(5))
    (tmp_path / "t.rel.json").write_text(json.dumps(table))
    with pytest.raises(BuildError, match=r"t\.rel\.json: "):
        load("t/t", tmp_path / "t")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff{}", b"[" * 100_000])
def test_table_is_not_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "t.bin").write_bytes(b"")
    (tmp_path / "t.rel.json").write_bytes(text)
    with pytest.raises(BuildError, match=r"t\.rel\.json: .* run `invoke build`"):
        load("t/t", tmp_path / "t")


@pytest.mark.parametrize("missing", ["t.bin", "t.rel.json"])
def test_missing_file(tmp_path: Path, missing: str) -> None:
    flat(SRC).save(tmp_path / "t")
    (tmp_path / missing).unlink()
    with pytest.raises(BuildError, match=rf"/{missing}: No such file.*; run `invoke build`"):
        load("t/t", tmp_path / "t")


@dataclass(frozen=True)
class Program:
    """A source, and values that its symbols can take."""

    source: Path | str  # a file, or the text; a failure shows this
    format: str
    values: dict[str, int]
    base: int

    @property
    def text(self) -> str:
        return self.source if isinstance(self.source, str) else self.source.read_text()

    @property
    def include(self) -> list[Path]:
        own = [] if isinstance(self.source, str) else [self.source.parent]
        return [*own, ROOT / "asm" / "include"]


# By the code's size: statements with {s} for a symbol of that many bits, or {l} for a label.
STATEMENTS = {
    16: [
        "mov si, strict word {s16}",
        "mov esi, strict dword {s32} + 3",
        "mov eax, [dword edx + {s32}]",
        "jmp strict near {s16}",
        "call {l}",
        "mov ax, [{l}]",
        "dw {l} - $$, {l}, {s16}",
        "jmp dword 0x10:{l}",
        "lgdt [cs:{l}]",
        "db {s8}",
        "align 4, db 0",
    ],
    32: [
        "mov esi, strict dword {s32}",
        "mov dword [dword edi + {s32}], strict dword {s32} - 5",
        "mov ax, strict word {s16}",
        "add al, {s8}",
        "call {s32}",
        "jz strict near {s32}",
        "jz {l}",
        "jmp strict near {l}",
        "cmp eax, [{l} + 2]",
        "jmp 0x18:{l}",
        "dd {l}, {s32} - $, {l} - $, {s32} + 1",
        "dw {s16}, {l} - $$",
        "times 3 db {s8}, 0x90",
        "align 8, db 0",
    ],
    64: [
        "mov rsi, strict qword {s64}",
        "mov rax, strict dword {s31}",
        "mov eax, strict dword {s32}",
        "mov [dword rdx + {s31}], al",
        "call {s31}",
        "lea rax, [rel {l}]",
        "lea rax, [rel {l} + 9]",
        "mov rcx, [abs {l}]",
        "mov rcx, strict qword {l}",
        "jmp {l}",
        "dq {l}, {s64} - $, {s64} + 2",
        "dd {s31} - $, {s32}",
        "dw {s16}",
        "db {s8}",
        "align 16, db 0",
    ],
}
NAMES = {f"s{bits}_{i}": bits for bits in (8, 16, 31, 32, 64) for i in (0, 1)}


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A small source that mixes the forms in which a symbol can stand."""
    bits = draw(st.sampled_from(sorted(STATEMENTS)))
    length = draw(st.integers(1, 15))
    lines = []
    for i in range(length):
        symbols = {f"s{n}": f"s{n}_{draw(st.integers(0, 1))}" for n in (8, 16, 31, 32, 64)}
        statement = draw(st.sampled_from(STATEMENTS[bits]))
        label = f"label{draw(st.integers(0, length - 1))}"
        lines.append(f"label{i}: {statement.format(l=label, **symbols)}")
    text = "\n".join(lines)
    used = {name: width for name, width in NAMES.items() if name in text}
    # 10 below the top: some statements add a little.
    values = {
        name: draw(st.integers(min(10, width - 8), 2**width - 1 - min(10, width - 8)))
        for name, width in used.items()
    }
    externs = "".join(f"extern {name}\n" for name in used)
    base = 16 * draw(st.integers(0, 0x700 if bits == 16 else 0x7FFFF))
    source = f"bits {bits}\n{externs}section .text\n{text}\n"
    return Program(source, "elf64" if bits == 64 else "elf32", values, base)


TREE = assembler.Tree(ROOT, BUILD)


def bases(name: str) -> st.SearchStrategy[int]:
    """Where a source of the project can lie by its relocations, and be moved upwards a little."""
    binary = TREE.load(name)
    here = [r.kind for r in binary.relocations if r.symbol == BASE_SYMBOL]
    top = 1 << 8 * min((kind.size for kind in here), default=4)
    step = max(sections(TREE.build / f"{name}.o").alignment, 16)
    return st.integers(0, (top - len(binary.code) - UP) // step).map(lambda n: n * step)


@st.composite
def project_values(draw: st.DrawFn, source: assembler.Source) -> Program:
    """A source of the project, its symbols within what its contract says."""
    reads = contract.read(source.path).reads
    values = {read.symbol: draw(st.integers(read.low, read.high)) for read in reads}
    base = draw(bases(source.name))
    return Program(source.path, source.arch.format, values, base)


programs_of_all_kinds = pytest.mark.parametrize(
    "strategy",
    [programs(), *(project_values(source) for source in TREE.sources())],
    ids=["generated", *(source.name for source in TREE.sources())],
)


def made(program: Program, room: Path) -> tuple[FlatBinary, Path]:
    path = room / "program.asm"
    path.write_text(program.text)
    target = assemble_file(path, room, program.format, program.include)
    return linker.link(target, "t/t"), target


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("room")


@programs_of_all_kinds
@with_nasm
@given(data=st.data())
def test_nasm_gives_the_same_with_constants(
    room: Path, strategy: st.SearchStrategy[Program], data: st.DataObject
) -> None:
    program = data.draw(strategy)
    binary, target = made(program, room)
    path = room / "constants.asm"
    path.write_text(with_constants(program.text, program.values, program.base))
    expected = assemble_file(path, room, "bin", program.include).read_bytes()
    expected = expected.ljust(sections(target).size, b"\0")  # there is no .bss in such a file
    assert binary.bind(program.values, program.base) == expected


@programs_of_all_kinds
@with_nasm
@given(data=st.data())
def test_gnu_ld_gives_the_same(
    room: Path, strategy: st.SearchStrategy[Program], data: st.DataObject
) -> None:
    program = data.draw(strategy)
    binary, target = made(program, room)
    expected = gnu_ld(target, program.values, program.base, program.format)
    assert binary.bind(program.values, program.base) == expected


@programs_of_all_kinds
@with_nasm
@given(data=st.data(), up=st.integers(1, UP))
def test_only_relocations_depend_on_the_base(
    room: Path, strategy: st.SearchStrategy[Program], data: st.DataObject, up: int
) -> None:
    program = data.draw(strategy)
    binary = made(program, room)[0]
    low, high = (binary.bind(program.values, base) for base in (program.base, program.base + up))
    fields = [
        range(r.offset, r.offset + r.kind.size)
        for r in binary.relocations
        if r.kind.pc_relative or r.symbol == BASE_SYMBOL
    ]
    differ = {at for at in range(len(low)) if low[at] != high[at]}
    assert differ <= {at for field in fields for at in field}
    assert all(differ.intersection(field) for field in fields)
    assert binary.needs_base == bool(fields)
