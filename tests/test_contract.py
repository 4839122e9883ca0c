"""Every source in asm/ is run and held to what its own header comment says."""

import itertools
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from emulator import GENERAL, MODES, SEGMENTS, TOP, ContractError, Memory, Outcome, Placed, run
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pybuild import assembler, contract, paths
from pybuild.assembler import Tree
from pybuild.contract import Contract

pytestmark = pytest.mark.contract

TREE = Tree(paths.ROOT, paths.BUILD)
SOURCES = {source.name: source for source in TREE.sources()}
RELOCATORS = [name for name in SOURCES if Path(name).name.startswith("relocator")]
WIDE = tuple(f"r{i}" for i in (*range(8, 16), "ax", "cx", "dx", "bx", "sp", "bp", "si", "di"))
CODE32_START_AT = 0x214  # in boot_params
KIB, MIB = 1 << 10, 1 << 20

every_source = pytest.mark.parametrize("name", SOURCES)
every_relocator = pytest.mark.parametrize("name", RELOCATORS)


def examples(count: int) -> settings:
    """The same examples on every run; how long one takes doesn't matter."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[
            HealthCheck.data_too_large,
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,  # a name that stays the same
        ],
    )


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    assembler.build(TREE)


def placed(name: str, base: int, symbols: Mapping[str, int], tree: Tree = TREE) -> Placed:
    source = tree.asm / f"{name}.asm"
    return Placed(contract.read(source), tree.load(name), base, symbols)


# Every source


@every_source
def test_within_limit_and_reads_what_it_declares(name: str) -> None:
    terms, binary = contract.read(SOURCES[name].path), TREE.load(name)
    terms.check(binary)
    assert len(binary.code) <= terms.limit
    assert {read.symbol for read in terms.reads} == binary.undefined


@every_source
def test_the_code_can_hold_the_ranges_that_it_declares(name: str) -> None:
    terms, binary = contract.read(SOURCES[name].path), TREE.load(name)
    for read in terms.reads:
        assert read.low <= read.high
        for relocation in binary.relocations:
            if relocation.symbol == read.symbol and not relocation.kind.pc_relative:
                low, high = relocation.kind.bounds()
                assert low <= read.low + relocation.addend, read
                assert read.high + relocation.addend <= high, read


@every_source
def test_names_in_the_contract_exist(name: str) -> None:
    terms = contract.read(SOURCES[name].path)
    registers = {*GENERAL, *SEGMENTS, *(WIDE if terms.enter == "long64" else ())}
    assert {*terms.inputs, *terms.preserves, *terms.clobbers} <= registers
    assert terms.state.keys() <= registers | {"df", "if"}
    assert not set(terms.preserves) & {*terms.clobbers, *terms.state}
    one = Placed(terms, TREE.load(name), 0x1000, {read.symbol: read.low for read in terms.reads})
    ones = dict.fromkeys(registers, 1)
    one.writes(ones)
    one.target(ones)
    for expression in (*terms.needs, *terms.state.values()):
        one.evaluate(expression, ones)


@every_source
def test_what_it_needs_can_be_had(name: str) -> None:
    terms = contract.read(SOURCES[name].path)
    used = [r for r in terms.reads if any(r.symbol in need for need in terms.needs)]
    symbols = [r.symbol for r in used]
    registers = dict.fromkeys((*GENERAL, *SEGMENTS), 0x1000)
    values = [(r.low, r.low + 1, (r.low + r.high) // 2, r.high) for r in used]
    assert any(
        meets_needs(terms, {**registers, **dict(zip(symbols, chosen, strict=True))})
        for chosen in itertools.product(*values)
    )


def meets_needs(terms: Contract, names: Mapping[str, int]) -> bool:
    ranges = (r.low <= names[r.symbol] <= r.high for r in terms.reads if r.symbol in names)
    return all(ranges) and all(contract.evaluate(need, names) for need in terms.needs)


# The relocators


@dataclass(frozen=True)
class Layout:
    """Where everything lies for one run of a relocator; `noise` seeds what memory holds."""

    src: int
    dst: int
    len: int
    base: int
    boot_params: int
    code32_start: int
    noise: int = 0

    @property
    def field(self) -> int:
        """The address of boot_params' code32_start."""
        return self.boot_params + CODE32_START_AT

    def memory(self, size: int) -> Memory:
        """Noise wherever something lies, and a little around it: `size` is the binary's."""
        low = min(self.src, self.dst, self.base, self.field)
        high = max(self.src + self.len, self.dst + self.len, self.base + size, self.field + 4)
        low, high = low & -0x1000, (high + 0xFFF) & -0x1000
        return Memory([(low, random.Random(self.noise).randbytes(high - low))])


def hold_relocator(
    name: str,
    layout: Layout,
    trace: bool = True,
    tree: Tree = TREE,
    registers: Mapping[str, int] | None = None,
) -> Outcome:
    """Runs a relocator; raises ContractError unless memory is then what memmove would make it."""
    terms, binary = contract.read(tree.asm / f"{name}.asm"), tree.load(name)
    symbols = {read.symbol: getattr(layout, read.symbol) for read in terms.reads}
    it = Placed(terms, binary, layout.base, symbols)
    outcome = run(
        it,
        memory=layout.memory(len(binary.code)),
        registers={"esi": layout.boot_params, **(registers or {})},
        trace=trace,
        budget=1000 + 8 * layout.len,
    )
    expected = outcome.before.take(outcome.before, [])
    expected.write(layout.dst, outcome.before.read(layout.src, layout.len))
    if (layout.field, layout.field + 4) in it.writes({"esi": layout.boot_params}):
        expected.write(layout.field, layout.code32_start.to_bytes(4, "little"))
    wrong = expected.first_difference(outcome.after)
    if wrong is not None:
        what = "code32_start" if 0 <= wrong - layout.field < 4 else "memmove"
        raise ContractError(f"{what}: {wrong:#x} is not as expected, of {layout}")
    return outcome


@st.composite
def layouts(draw: st.DrawFn, lengths: st.SearchStrategy[int], size: int) -> Layout:
    """The copy, the binary and boot_params' field, in any order, close together, anywhere."""
    length = draw(lengths)
    distance = draw(
        st.one_of(
            st.just(0),
            st.integers(1, 8),
            st.integers(1, max(length, 1)),
            st.integers(max(length - 4, 0), length + 4),
            st.integers(length, length + 5000),
        )
    )
    span = {"copy": length + distance, "code": size, "field": 4}
    gaps = {name: draw(st.integers(0, 40)) for name in span}
    total = sum(span.values()) + sum(gaps.values())
    at = draw(st.one_of(st.integers(CODE32_START_AT, TOP - total), st.just(TOP - total)))
    places = {}
    for name in draw(st.permutations(list(span))):
        places[name] = at + gaps[name]
        at = places[name] + span[name]
    upwards = draw(st.booleans())
    code32_start = draw(st.one_of(st.just(places["copy"]), st.integers(0, TOP - 1)))
    assume(not 0 <= code32_start - places["code"] < size)
    return Layout(
        src=places["copy"] + (distance if upwards else 0),
        dst=places["copy"] + (0 if upwards else distance),
        len=length,
        base=places["code"],
        boot_params=places["field"] - CODE32_START_AT,
        code32_start=code32_start,
        noise=draw(st.integers(0, 1 << 32)),
    )


def draw_layout(name: str, data: st.DataObject, lengths: st.SearchStrategy[int]) -> Layout:
    layout = data.draw(layouts(lengths, len(TREE.load(name).code)))
    terms = contract.read(SOURCES[name].path)
    assume(meets_needs(terms, {r.symbol: getattr(layout, r.symbol) for r in terms.reads}))
    return layout


@pytest.fixture
def relocator(name: str) -> str:
    mode = contract.read(SOURCES[name].path).enter
    if mode not in MODES:
        pytest.skip(f"the harness has no {mode}")
    return name


@every_relocator
@examples(120)
@given(data=st.data())
def test_relocator_moves_and_enters(relocator: str, data: st.DataObject) -> None:
    lengths = st.one_of(
        st.sampled_from((0, 1, 2, 3)),
        st.builds(lambda n, off: 4 * n + off, st.integers(1, 40), st.sampled_from((-1, 0, 1))),
        st.integers(0, 3 * KIB),
    )
    layout = draw_layout(relocator, data, lengths)
    spared = {r: data.draw(st.integers(0, TOP - 1), r) for r in ("esp", "ebp", "edi")}
    hold_relocator(relocator, layout, registers=spared)


@every_relocator
@examples(10)
@given(data=st.data())
def test_relocator_moves_megabytes(relocator: str, data: st.DataObject) -> None:
    layout = draw_layout(relocator, data, st.integers(64 * KIB, 3 * MIB))
    hold_relocator(relocator, layout, trace=False)


@every_relocator
def test_relocator_moves_short_ones_by_every_distance(relocator: str) -> None:
    moves = [(size, by) for size in range(10) for by in range(-size - 1, size + 2)]
    assert hold_moves(relocator, moves, trace=True)


@every_relocator
def test_relocator_moves_megabytes_by_a_little(relocator: str) -> None:
    """And from 2 MiB to 1 MiB, as the patch did."""
    moves = [(MIB + by % 4, by) for by in (-7, -4, -1, 0, 1, 2, 3, 5, MIB - 1)]
    assert hold_moves(relocator, [*moves, (3 * MIB + 1, -MIB)], trace=False)


def hold_moves(name: str, moves: list[tuple[int, int]], trace: bool) -> int:
    """Runs those moves, of a size and by a distance, that the contract allows; says how many."""
    terms = contract.read(SOURCES[name].path)
    done = 0
    for size, distance in moves:
        dst = 0x200005 + distance
        layout = Layout(0x200005, dst, size, 0x100000 - 0x200, 0xFF000, dst, noise=size)
        if meets_needs(terms, {r.symbol: getattr(layout, r.symbol) for r in terms.reads}):
            hold_relocator(name, layout, trace)
            done += 1
    return done


# The boot sector


@examples(120)
@given(data=st.data())
def test_bootsect_loads_the_register_state(data: st.DataObject) -> None:
    terms = contract.read(SOURCES["real/bootsect"].path)
    symbols = {r.symbol: data.draw(st.integers(r.low, r.high), r.symbol) for r in terms.reads}
    assume(not 0x7C00 <= 16 * symbols["seg_cs"] + symbols["ip"] < 0x7E00)
    hold_bootsect(symbols, data.draw(st.sampled_from((0, 0x7C0)), "cs that the BIOS enters with"))


def hold_bootsect(symbols: Mapping[str, int], cs: int, tree: Tree = TREE) -> None:
    outcome = run(
        placed("real/bootsect", 0x7C00, symbols, tree), memory=Memory([]), registers={"cs": cs}
    )
    sector = outcome.after.read(0x7C00, 512)
    assert sector[0x1B8:0x1FE] == bytes(0x1FE - 0x1B8)
    assert sector[0x1FE:] == b"\x55\xaa"


# The early stage with the relocator


@dataclass(frozen=True)
class EarlyLayout:
    """Where everything lies for one run of the early stage."""

    early: int
    setup_cs: int
    ss: int
    sp: int
    relocator: int
    src: int
    dst: int
    len: int
    noise: int = 0


def hold_early(layout: EarlyLayout, tree: Tree = TREE) -> None:
    """Runs the early stage, and the relocator from it."""
    moved = layout.early + tree.load("real/early").symbols["moved"]
    early = placed(
        "real/early",
        layout.early,
        {"relocator": layout.relocator, "setup_cs": layout.setup_cs},
        tree,
    )
    move = {"src": layout.src, "dst": layout.dst, "len": layout.len, "code32_start": moved}
    relocator = placed("i386/relocator", layout.relocator, move, tree)
    noise = random.Random(layout.noise)
    low = (0, noise.randbytes(0xA0000))
    high = (0x100000, noise.randbytes(0x1000))
    copied = [(at, noise.randbytes(layout.len)) for at in (layout.dst, layout.src)]
    outcome = run(
        early,
        relocator,
        memory=Memory([low, high, *copied]),
        registers={"cs": layout.early // 16, "ss": layout.ss, "esp": layout.sp},
    )
    expected = outcome.before.take(outcome.after, early.writes({"ss": layout.ss, "esp": layout.sp}))
    expected.write(layout.dst, outcome.before.read(layout.src, layout.len))
    # It declares 512 bytes of its own, but the planner keeps no more free than there are.
    expected = expected.take(outcome.before, [(early.end, layout.early + 512), (0x500, 0x501)])
    wrong = expected.first_difference(outcome.after)
    if wrong is not None:
        raise ContractError(f"memory: {wrong:#x} is not as expected, of {layout}")


@st.composite
def early_layouts(draw: st.DrawFn) -> EarlyLayout:
    """As plans have it: early stage and stack in low memory, src and relocator far above."""
    length = draw(st.integers(0, 2 * KIB))
    src = draw(st.integers(0x200000, 0x3FFFF000))
    dst = draw(st.one_of(st.integers(0x10000, 0x6F000), st.integers(0x100000, 0x1FF000)))
    early, setup_cs = draw(st.integers(0x9000, 0x9FE0)), draw(st.integers(0x7000, 0x8FFF))
    return EarlyLayout(
        early=16 * draw(st.sampled_from((early, 0x9901))),
        setup_cs=draw(st.sampled_from((setup_cs, 0x9020))),
        ss=draw(st.integers(0x7000, 0x7FFF)),
        sp=draw(st.integers(0x80, 0xFFFF)),
        relocator=(src + length + 15) & -16,
        src=src,
        dst=dst,
        len=length,
        noise=draw(st.integers(0, 1 << 32)),
    )


@examples(60)
@given(layout=early_layouts())
def test_early_moves_the_kernel_and_enters_setup(layout: EarlyLayout) -> None:
    assume(not layout.early <= 16 * layout.setup_cs < layout.early + 512)
    hold_early(layout)


# That all of this can fail: faults put into the sources, one at a time, and what is said of them

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
    "ss lost": ("mov ss, di", "mov bp, di", "executes 0x"),
    "registers lost": ("popad", "add sp, 32", "leaves with e.x="),
    "interrupts on": ("popad", "popad\n    sti", "leaves with if="),
    "interrupts on in protected mode": ("jmp eax\n", "sti\n    jmp eax\n", "entered with IF set"),
    "a20 test leaves its mark": ("mov [A20_OFFSET], al                ;", ";", "memory: 0x500 "),
    "wrong way in": ("jmp eax\n", "inc eax\n    jmp eax\n", "executes 0x"),
    "stays in protected mode": ("and al, ~CR0_PE & 0xff", "", "exception 0xd"),
    "enters setup one byte late": ("dw 0          ", "dw 1          ", "executes 0x"),
    "setup's cs wrong": (
        "dw 0                                ; relocations, so its operand is written out\n"
        "    dw setup_cs",
        "dw 16\n    dw setup_cs - 1",
        "leaves to",
    ),
}
BOOTSECT_FAULTS = {
    "cld": ("cld", "", "leaves with df=0x1"),
    "cli": ("cli", "", "leaves with if=0x1"),
    "ds and ss swapped": ("mov ss, ax", "mov ds, ax", "leaves with ss="),
    "16 bits only": ("mov edi, strict dword gpr_edi", "mov di, gpr_edi", "leaves with edi="),
    "cs and ip swapped": ("dw ip\n    dw seg_cs", "dw seg_cs\n    dw ip", "(executes|touches) 0x"),
}


def with_fault(root: Path, name: str, old: str, new: str) -> Tree:
    """Sources with a fault in one of them, or in what it includes, assembled."""
    shutil.copytree(TREE.asm / "include", root / "asm/include")
    for path in (TREE.asm / "real", paths.ASM / "i386"):
        (root / "asm" / path.name).mkdir()
        shutil.copy(path / "arch.toml", root / "asm" / path.name)
    for needed in {name, "i386/relocator"}:
        shutil.copy(SOURCES[needed].path, root / f"asm/{needed}.asm")
    changed = 0
    for path in (root / f"asm/{name}.asm", *root.glob("asm/include/*.inc")):
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
