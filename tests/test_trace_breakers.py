"""What breaks the relocator's contract is found by `bootsplice trace`, with the line to blame.

The contract tests' errors have the same line.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
from command import run
from held import hold_relocator
from test_contract_faults import with_fault

from pybuild import assembler
from pybuild.assembler import Tree
from pybuild.emulate.cpu import ContractError
from pybuild.emulate.layouts import simple
from pybuild.trace import show, traces, verdicts

NAME = "i386/relocator"
UPWARDS = "    rep movsb\n    jmp .moved"


class Breaker(NamedTuple):
    """A fault, and what is said of it; `line` begins with the source line that is to blame."""

    old: str
    new: str
    wrong: str
    line: str
    title: str = "apart"


BREAKERS = {
    "edi clobbered": Breaker(
        "mov edi, edx", "mov edi, eax", "leaves with edi=", "    mov edi, eax"
    ),
    "edi not put back": Breaker("mov edi, edx", "", "leaves with edi=", UPWARDS),
    "DF left set": Breaker(
        "rep movsd\n    cld",
        "rep movsd",
        "leaves with df=0x1",
        "    std",
        "dst above src, overlapping",
    ),
    "DF left as it was": Breaker("cld\n    cli", "cli", "writes 0xff", "    rep movsd"),
    "SS not loaded": Breaker("mov ss, eax", "", "leaves with ss=", "; leaves"),
    "one byte too many": Breaker(
        "mov ecx, strict dword len",
        "mov ecx, strict dword len\n    inc ecx",
        "writes 0x101237..0x101238, outside",
        "    rep movsd",
    ),
    "one byte too few": Breaker(
        "mov ecx, strict dword len",
        "mov ecx, strict dword len\n    dec ecx",
        "leaves 0x101236 as",
        UPWARDS,
    ),
    "forward copy on a forward overlap": Breaker(
        "jb .downwards", "", "as memmove()", "    rep movsd", "dst above src, overlapping"
    ),
    "jump to src instead of dst": Breaker(
        "jmp eax",
        "mov eax, strict dword src\n    jmp eax",
        "executes 0x200000, outside",
        "    jmp eax",
    ),
    "0x10 for 0x18": Breaker(
        "mov ds, eax", "mov cx, 0x10\n    mov ds, cx", "leaves with ds=0x10", "    mov ds, cx"
    ),
    "0x10 for 0x18 in all of them": Breaker(
        "mov eax, __BOOT_DS", "mov eax, 0x10", "exception 0xd", "    mov ss, eax"
    ),
}


def blamed(tree: Tree, breaker: Breaker) -> str:
    """The line, as messages have it."""
    text = (tree.root / f"asm/{NAME}.asm").read_text()
    assert text.count(breaker.line), breaker.line
    number = text.count("\n", 0, text.index(breaker.line)) + 1
    return f"asm/{NAME}.asm:{number}"


@pytest.mark.parametrize("name", BREAKERS)
def test_trace_finds_it_and_blames_the_line(tmp_path: Path, name: str) -> None:
    breaker = BREAKERS[name]
    tree = with_fault(tmp_path, NAME, breaker.old, breaker.new)
    found = traces(tree, NAME)
    first = next(traced for traced in found if not traced.kept)
    assert first.title == breaker.title
    [promise] = [p for p in first.broken if breaker.wrong in str(p.finding.wrong)]
    where = blamed(tree, breaker)
    assert promise.line is not None
    assert f"{promise.line.file}:{promise.line.number}" == where
    shown, *_ = [line for line in show.text(found) if str(promise) in line]
    assert "BROKEN" in shown
    assert where in shown
    assert list(show.text(verdicts(tree, NAME))) == list(show.text(found))


@pytest.mark.parametrize("name", BREAKERS)
def test_the_contract_tests_blame_the_same_line(tmp_path: Path, name: str) -> None:
    breaker = BREAKERS[name]
    tree = with_fault(tmp_path, NAME, breaker.old, breaker.new)
    src, dst = {"apart": (0x200000, 0x100000)}.get(breaker.title, (0x200000, 0x200123))
    for traced in (True, False):
        with pytest.raises(ContractError) as caught:
            hold_relocator(NAME, simple("protected32", src, dst, 0x1237, 0), traced, tree)
        assert f"{blamed(tree, breaker)}" in str(caught.value)


def test_what_a_register_was_loaded_from_is_said(tmp_path: Path) -> None:
    breaker = BREAKERS["jump to src instead of dst"]
    tree = with_fault(tmp_path, NAME, breaker.old, breaker.new)
    [promise, *_] = traces(tree, NAME)[0].broken
    assert "(0x200000 is in eax since " in promise.why
    assert "mov eax, strict dword src)" in promise.why


def test_a_copy_the_wrong_way_is_put_down_to_df(tmp_path: Path) -> None:
    breaker = BREAKERS["DF left as it was"]
    tree = with_fault(tmp_path, NAME, breaker.old, breaker.new)
    assert "rep movsd, with df as it was on entry" in str(traces(tree, NAME)[0].broken)
    tree = with_fault(
        tmp_path / "other", NAME, "shr ecx, 2                  ;", "std\n    shr ecx, 2 ;"
    )
    assert "rep movsd, with df set at asm/i386/relocator.asm:" in str(traces(tree, NAME)[0].broken)


def test_a_source_that_changes_is_read_again(tmp_path: Path) -> None:
    breaker = BREAKERS["edi clobbered"]
    tree = with_fault(tmp_path, NAME, breaker.old, breaker.new)
    [promise] = traces(tree, NAME)[0].broken
    source = tree.asm / f"{NAME}.asm"
    source.write_text(source.read_text().replace("    cld\n", "    nop\n    cld\n", 1))
    assembler.build(tree)
    [moved] = traces(tree, NAME)[0].broken
    assert promise.line
    assert moved.line == promise.line._replace(number=promise.line.number + 1)


def test_one_that_never_ends_is_run_once(tmp_path: Path) -> None:
    """Each run takes a second, and would say the same."""
    tree = with_fault(tmp_path, NAME, "jmp eax", "jmp $")
    [judged] = verdicts(tree, NAME)
    assert "took more than" in str(judged.broken)


def test_the_command_ends_with_1(tmp_path: Path) -> None:
    breaker = BREAKERS["SS not loaded"]
    with_fault(tmp_path, NAME, breaker.old, breaker.new)
    done = run(tmp_path, "trace", f"asm/{NAME}.asm")
    assert (done.returncode, done.stderr) == (1, "")
    said = "BROKEN  leaves    ss=0x18: leaves with ss=0x28, expected 0x18; nothing loads it"
    assert said in done.stdout
