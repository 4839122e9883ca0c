"""The form of a contract: what is read from a header comment, and what is refused."""

import re
from pathlib import Path

import pytest

from pybuild import contract
from pybuild.contract import Contract, Read, evaluate
from pybuild.errors import BuildError
from pybuild.flat import FlatBinary, Relocation

WHOLE = """\
; SPDX-License-Identifier: MIT
;
; whole.asm - every keyword, one at least
;
; enter     real16 0x7c00           by the BIOS
; in        esi                     boot_params, physical address
; in        edx
; reads     src  address 0..0xffffffff  where it is
; reads     len  bytes   1..512     its size
; reads     mode value   -1..7
; needs     src <= 0x1000 or src >= len    both are fine
; needs     len > 0
; writes    src..src+len            the copy
; writes    $$..$$+4
; moves     src..src+len src-len    as memmove() does
; stores    $$..$$+4 src
; preserves esp ebp
; preserves edi
; clobbers  eax ecx
; leaves    src:0  ebx=0 ds=ds df=0
; limit     0x40
;
; Prose.

bits 16
; limit     7
"""


def read(tmp_path: Path, text: str) -> Contract:
    source = tmp_path / "some.asm"
    source.write_text(text)
    return contract.read(source)


def test_every_keyword(tmp_path: Path) -> None:
    assert read(tmp_path, WHOLE) == Contract(
        source=tmp_path / "some.asm",
        enter="real16",
        address=0x7C00,
        inputs={"esi": "boot_params, physical address", "edx": ""},
        reads=[
            Read("src", "address", 0, 0xFFFFFFFF),
            Read("len", "bytes", 1, 512),
            Read("mode", "value", -1, 7),
        ],
        needs=["src <= 0x1000 or src >= len", "len > 0"],
        writes=[("src", "src+len"), ("$$", "$$+4")],
        moves=[("src", "src+len", "src-len")],
        stores=[("$$", "$$+4", "src")],
        preserves=["esp", "ebp", "edi"],
        clobbers=["eax", "ecx"],
        leaves="src:0",
        state={"ebx": "0", "ds": "ds", "df": "0"},
        limit=0x40,
    )


def test_where_each_keyword_stands(tmp_path: Path) -> None:
    numbers = read(tmp_path, WHOLE).numbers
    assert (numbers["enter"], numbers["preserves"]) == ([5], [17, 18])
    assert numbers.keys() == set(contract.KEYWORDS)


@pytest.mark.parametrize("mode", ["real16", "protected32", "long64"])
def test_without_an_address_what_follows_the_mode_is_prose(tmp_path: Path, mode: str) -> None:
    terms = read(tmp_path, WHOLE.replace("real16 0x7c00           by", f"{mode}  anywhere, by"))
    assert (terms.enter, terms.address) == (mode, None)


def test_only_the_first_comment_block_counts(tmp_path: Path) -> None:
    assert read(tmp_path, WHOLE).limit == 0x40
    with pytest.raises(BuildError, match="has no `enter` line"):
        read(tmp_path, "\n" + WHOLE)


@pytest.mark.parametrize(
    "prose",
    [
        "; enter here when the BIOS is done",
        "; in protected mode it goes on",
        "; reads like a novel",
        "; limits are not what they seem",
        "; limit 7",
        ";  limit    7",
        ";limit      7",
        "; Limit     7",
        "; limit    7",
        "; limit      7",
        "; writes to nothing .. at all",
        "; leaves    ",
        "; limit     ",
        "; the limit 7",
    ],
)
def test_prose_that_begins_like_a_keyword(tmp_path: Path, prose: str) -> None:
    plain = read(tmp_path, WHOLE)
    assert read(tmp_path, WHOLE.replace("; Prose.", prose)) == plain


@pytest.mark.parametrize("keyword", ["enter", "leaves", "limit"])
def test_what_must_be_there(tmp_path: Path, keyword: str) -> None:
    text = re.sub(rf"^; {keyword} .*\n", "", WHOLE, flags=re.M)
    with pytest.raises(BuildError, match=rf"some\.asm: .* no `{keyword}` line"):
        read(tmp_path, text)


@pytest.mark.parametrize("keyword", ["in", "reads", "needs", "writes", "preserves", "clobbers"])
def test_what_may_be_left_out(tmp_path: Path, keyword: str) -> None:
    terms = read(tmp_path, re.sub(rf"^; {keyword} .*\n", "", WHOLE, flags=re.M))
    assert not getattr(terms, "inputs" if keyword == "in" else keyword)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("; enter     real32", "found 'real32', expected one of real16, protected32, long64"),
        ("; enter     real16 0xhere", "expected a number, as"),
        ("; reads     src", "expected SYMBOL UNIT LOW..HIGH, found 'src'"),
        ("; reads     src address", "expected SYMBOL UNIT LOW..HIGH"),
        ("; reads     src pages 0..1", "found 'pages', expected one of address, bytes, value"),
        ("; reads     src address 0-1", "expected LOW..HIGH, found '0-1'"),
        ("; reads     src address ..1", "expected LOW..HIGH"),
        ("; reads     src address 0..len", "expected a number, as"),
        ("; writes    src", "expected LOW..HIGH, found 'src'"),
        ("; writes    src..  nothing behind it", "expected LOW..HIGH, found 'src..'"),
        ("; moves     src..src+len", "expected START..END TO, found 'src..src+len'"),
        ("; moves     src dst", "expected LOW..HIGH, found 'src'"),
        ("; moves     src..src+len dst len", "expected START..END TO"),
        ("; stores    $$..$$+4  prose", "expected START..END VALUE"),
        ("; leaves    dst ebx", "expected REGISTER=VALUE, found 'ebx'"),
        ("; leaves    dst ebx=", "expected REGISTER=VALUE, found 'ebx='"),
        ("; leaves    dst =0", "expected REGISTER=VALUE, found '=0'"),
        ("; limit     many", "expected a number, as"),
        ("; limit     012", "expected a number, as"),
    ],
)
def test_a_line_that_cannot_be_read(tmp_path: Path, line: str, problem: str) -> None:
    lines = WHOLE.splitlines()
    lines.insert(4, line)
    with pytest.raises(BuildError) as caught:
        read(tmp_path, "\n".join(lines))
    keyword = line.split()[1]
    assert str(caught.value).startswith(f"{tmp_path}/some.asm:5: contract line `{keyword}`: ")
    assert problem in str(caught.value)


NAMES = {"src": 0x1000, "len": 0x20, "esi": 7, "zero": 0}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0x10", 16),
        (" src ", 0x1000),
        ("src+len", 0x1020),
        ("src - len - 1", 0xFDF),
        ("src*16+len", 0x10020),
        ("src * (16 + len)", 0x30000),
        ("len-src", -0xFE0),
        ("src < len", 0),
        ("src <= 0x1000", 1),
        ("src > 0x1000", 0),
        ("src >= 0x1000", 1),
        ("src == 4096", 1),
        ("src < len or len == 32", 1),
        ("src < len or len == 33", 0),
        ("src > len and len == 32", 1),
        ("src > len and zero", 0),
        ("zero or zero or esi", 1),
        ("src + len >= esi and (zero or len*2 == 64)", 1),
    ],
)
def test_expressions(expression: str, value: int) -> None:
    assert evaluate(expression, NAMES) == value


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("dst", "unknown name 'dst'"),
        ("src + dst", "unknown name 'dst'"),
        ("src +", "not an expression"),
        ("", "not an expression"),
        ("src len", "not an expression"),
        ("src = len", "not an expression"),
        ("src / len", "not allowed"),
        ("src // len", "not allowed"),
        ("src ** len", "not allowed"),
        ("1 << 99", "not allowed"),
        ("src != len", "not allowed"),
        ("0 < src < len", "not allowed"),
        ("not src", "not allowed"),
        ("src if len else 0", "not allowed"),
        ("'src'", "not allowed"),
        ("1.5", "not allowed"),
        ("src.real", "not allowed"),
        ("src[0]", "not allowed"),
        ("[src]", "not allowed"),
        ("abs(src)", "not allowed"),
        ("__import__('os')", "not allowed"),
        ("(lambda: 1)()", "not allowed"),
        ("(src := 1)", "not allowed"),
    ],
)
def test_expressions_that_are_none(expression: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        evaluate(expression, NAMES)


def binary(size: int, *symbols: str) -> FlatBinary:
    relocations = tuple(
        Relocation(4 * i, "R_386_32", symbol, 0) for i, symbol in enumerate(symbols)
    )
    return FlatBinary("some", bytes(size), relocations)


def test_check(tmp_path: Path) -> None:
    read(tmp_path, WHOLE).check(binary(0x40, "src", "len", "mode", "$$", "src"))


@pytest.mark.parametrize(
    ("checked", "problem"),
    [
        (binary(0x40, "src", "mode"), "symbol 'len' is declared by `reads`, but the code has no"),
        (binary(0x40, "src", "len", "mode", "dst"), "symbol 'dst' is undefined in the code, but"),
        (binary(0x41, "src", "len", "mode"), "65 bytes, but its `limit` is 64"),
    ],
)
def test_check_refuses(tmp_path: Path, checked: FlatBinary, problem: str) -> None:
    terms = read(tmp_path, WHOLE)
    with pytest.raises(BuildError) as caught:
        terms.check(checked)
    assert str(caught.value).startswith(f"{tmp_path}/some.asm: {problem}")


def test_the_binarys_own_address() -> None:
    assert evaluate("$$+4 <= dst", {"$$": 0x1000, "dst": 0x1004})
    with pytest.raises(ValueError, match=r"unknown name '\$\$'"):
        evaluate("$$", {})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("; perserves esp", "found '; perserves esp', expected a contract line"),
        ("; preserves  esp", "expected a contract line"),
        ("; enter     real16", "`enter`: stands there twice"),
        ("; limit     5", "`limit`: stands there twice"),
        ("; reads     src address 0..1", "expected one line a symbol"),
        ("; reads     low value 2..1", "LOW..HIGH, found 'low value 2..1'"),
        (";\n; preserves edi", "expected no contract line behind the contract's end"),
    ],
)
def test_a_mistyped_line_is_not_taken_for_prose(tmp_path: Path, line: str, problem: str) -> None:
    source = tmp_path / "x.asm"
    source.write_text(
        "; x.asm - prose\n;\n; enter     real16\n; reads     src value 0..1\n; limit     4\n"
        f"; leaves    src\n{line}\n"
    )
    with pytest.raises(BuildError, match=r"x\.asm:\d+: ") as error:
        contract.read(source)
    assert problem in str(error.value)


@pytest.mark.parametrize("limit", ["0", "-5"])
def test_a_limit_is_above_zero(tmp_path: Path, limit: str) -> None:
    source = tmp_path / "x.asm"
    source.write_text(f"; limit     {limit}\n")
    with pytest.raises(BuildError, match=r"x\.asm:1: .*above 0"):
        contract.read(source)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("; preserves exp", "contract line `preserves`: 'exp' is no register"),
        ("; clobbers  rax", "contract line `clobbers`: 'rax' is no register"),
        ("; in        boot_params", "contract line `in`: 'boot_params' is no register"),
        ("; needs     src+lne", "contract line `needs`: 'src+lne': unknown name 'lne'"),
        ("; needs     src =< 1", "contract line `needs`: 'src =< 1': not an expression"),
        ("; writes    src..src+ln", "contract line `writes`: 'src+ln': unknown name 'ln'"),
    ],
)
def test_names_that_mean_nothing_are_found_by_the_build(
    tmp_path: Path, line: str, problem: str
) -> None:
    text = f"; enter     protected32\n; reads     src value 0..1\n{line}\n; leaves    src\n"
    terms = read(tmp_path, f"{text}; limit     9\n")
    binary = FlatBinary("x", bytes(8), (Relocation(0, "R_386_32", "src", 0),))
    with pytest.raises(BuildError) as error:
        terms.check(binary)
    assert problem in str(error.value)


def test_a_field_must_hold_the_range_that_is_declared(tmp_path: Path) -> None:
    text = "; enter     real16\n; reads     src value 0..0x10000\n; leaves    src\n; limit     9\n"
    binary = FlatBinary("x", bytes(8), (Relocation(2, "R_386_16", "src", 0),))
    with pytest.raises(BuildError, match=r"'src' may be 0x0\.\.0x10000 .* R_386_16 at offset 0x2 "):
        read(tmp_path, text).check(binary)
