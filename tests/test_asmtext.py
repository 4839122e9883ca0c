"""NASM sources as statements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybuild.lint import asmlint, asmtext


@given(st.text() | st.text(alphabet="[]()'\"`;:,%.$ \tax0equ\n\\"))
def test_any_text_has_a_reading(text: str) -> None:
    statements = asmtext.parse(text)
    lines = text.split("\n")
    assert [s.number for s in statements] == list(range(1, len(lines) + 1))
    for statement in statements:
        line = "\n".join(lines[statement.number - 1 :])
        if not line.startswith(";"):
            line = line.replace("\\\n", "")
        line = line.split("\n")[0]
        assert all(part in line for part in (statement.label, statement.comment))
        assert all(operand in line for operand in statement.operands)
    asmlint.check({"asm/i386/a.asm": text, "kernels/b.inc": text}, {})


@pytest.mark.parametrize(
    ("line", "label", "mnemonic", "operands", "comment"),
    [
        ("a: mov ax, [es:bx + 4] ; x, y", "a", "mov", ("ax", "[es:bx + 4]"), "; x, y"),
        ("SIZE equ 4 * (2 + 1)", "SIZE", "equ", ("4 * (2 + 1)",), ""),
        ("    .lba resq 1", ".lba", "resq", ("1",), ""),
        ("    db 'a;b', \"c,d\", `e\\`f`", "", "db", ("'a;b'", '"c,d"', "`e\\`f`"), ""),
        ("    rep movsd", "", "movsd", (), ""),
        ("%define at(label) xbp + label", "", "%define", ("at(label) xbp + label",), ""),
        ("    jmp __BOOT_CS:.x", "", "jmp", ("__BOOT_CS:.x",), ""),
        ("%error the loader's; too late", "", "%error", ("the loader's",), "; too late"),
        ("; only", "", "", (), "; only"),
        ("", "", "", (), ""),
    ],
)
def test_the_parts_of_a_line(
    line: str, label: str, mnemonic: str, operands: tuple[str, ...], comment: str
) -> None:
    (found,) = asmtext.parse(line)
    assert (found.label, found.mnemonic, found.operands, found.comment) == (
        label,
        mnemonic,
        operands,
        comment,
    )


def test_lines_that_are_joined_are_one_statement() -> None:
    """As NASM joins them: in a comment, too."""
    text = "    dd one, \\\n  two, \\\n  three ; and \\\n four\n    nop\n    hlt\\"
    first, *blank, after, last = asmtext.parse(text)
    assert (first.mnemonic, first.operands) == ("dd", ("one", "two", "three"))
    assert first.comment == "; and  four"
    assert blank == [asmtext.Statement(number) for number in (2, 3, 4)]
    assert (after.number, after.mnemonic) == (5, "nop")
    assert last.number == 6


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("0x1F", 31),
        ("1fh", 31),
        ("$0f", 15),
        ("1_000", 1000),
        ("7d", 7),
        ("eax", None),
        ("_", None),
    ],
)
def test_numbers_as_nasm_has_them(word: str, value: int | None) -> None:
    assert asmtext.value(word) == value
