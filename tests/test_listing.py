"""The listing of a flat binary: each byte once, in order, as bind() has it, beside its source."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from held import SOURCES, TREE
from hypothesis import given
from hypothesis import strategies as st
from nasm import ARCH, make_tree

from pybuild import assembler, contract, listing, numbers, paths
from pybuild.errors import BuildError, InputError
from pybuild.flat import FlatBinary, Relocation
from pybuild.lines import Line, Lines

_PIECE = r"(?:<[^>]*>|[0-9a-f]{2}(?: \* \d+)?)"
_ROW = re.compile(rf"([0-9a-f]{{4,}})  (?:([0-9a-f]{{8,}})  )?((?:{_PIECE} )*{_PIECE})(?:  .*)?")


def text_of(name: str, symbols: Mapping[str, int], base: int | None) -> list[str]:
    shown = listing.of_source(TREE, name, symbols, base)
    return ["".join(text for text, _ in parts) for parts in shown]


def read_back(text: list[str], base: int | None) -> bytes:
    """The bytes of a listing, read as a person would; it says of each row where it is."""
    found = b""
    for row in filter(None, map(_ROW.fullmatch, text)):
        offset, address, pieces = row.groups()
        assert int(offset, 16) == len(found)
        assert address == (None if base is None else f"{base + len(found):08x}")
        for piece in re.findall(_PIECE, pieces):
            data, _, times = piece.strip("<>").rpartition("=")[2].partition(" * ")
            found += bytes.fromhex(data) * int(times or 1)
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_the_bytes_are_those_that_bind_makes(name: str) -> None:
    binary = TREE.load(name)
    reads = contract.read(TREE.asm / f"{name}.asm").reads
    for base, end in ((0x1000, "low"), (0x2000, "high")):
        symbols = {read.symbol: getattr(read, end) for read in reads}
        expected = binary.bind(symbols, base)
        assert read_back(text_of(name, symbols, base), base) == expected


@pytest.mark.parametrize("name", SOURCES)
def test_open_fields_have_their_names(name: str) -> None:
    binary = TREE.load(name)
    rows = filter(None, map(_ROW.fullmatch, text_of(name, {}, None)))
    fields = [field for row in rows for field in re.findall(r"<([^>]*)>", row.group(3))]
    names = [re.split(r"[+-]0x", field)[0] for field in fields]
    assert names == [r.symbol for r in binary.relocations]


def test_a_row_has_the_line_that_it_is_of() -> None:
    text = text_of("i386/relocator", {"src": 0x200000}, None)
    size = len(TREE.load("i386/relocator").code)
    assert text[0] == f"asm/i386/relocator.asm: {size} bytes, limit 128"
    source = (TREE.asm / "i386/relocator.asm").read_text().splitlines()
    for statement, field in (("src", "be <src=00 00 20 00>"), ("dst", "bf <dst>")):
        number = next(n for n, line in enumerate(source, 1) if f"strict dword {statement}" in line)
        (row,) = (line for line in text if field in line)
        assert re.fullmatch(rf"00.. +{field} +{number} +mov e.i, strict dword {statement}", row)
    # Labels and comments from the first instruction on are there, each line once.
    first = source.index("    cld") + 1
    for number, line in enumerate(text[1:], first):
        assert re.search(rf" {number}(?:  {re.escape(source[number - 1])})?$", line)
    assert len(text) == 1 + len(source) - first + 1


def test_include_files_and_exported_symbols_are_marked() -> None:
    text = text_of("real/early", {}, 0x9000)
    place = next(n for n, line in enumerate(text) if line.strip() == "global moved")
    assert text[place + 1].startswith(f"{TREE.load('real/early').symbols['moved']:04x}  ")
    include = next(n for n, line in enumerate(text) if '%include "a20.inc"' in line)
    after = [line for line in text[include:] if "a20_enable:" in line]
    assert re.match(r" +a20\.inc:\d+  ", after[0])


def test_long_runs_of_a_byte_are_one_row() -> None:
    text = text_of("real/bootsect", {}, None)
    assert [line for line in text if re.search(r"  00 \* \d{3} +bootsector\.inc:", line)]
    assert len(text) < 60


@given(st.data())
def test_every_byte_is_there_once_whatever_the_lines_say(data: st.DataObject) -> None:
    code = data.draw(st.binary(max_size=80) | st.integers(1, 80).map(bytes))
    offsets = st.integers(0, max(len(code) - 4, 0))
    fields: list[Relocation] = []
    for at in sorted(data.draw(st.sets(offsets, max_size=6))):
        if at + 4 <= len(code) and (not fields or fields[-1].offset + 4 <= at):
            fields.append(Relocation(at, "R_386_32", f"s{at % 3}", at % 2))
    binary = FlatBinary("a/b", code, tuple(fields), {"here": len(code) // 2, "end": len(code)})
    texts = {"a": "one\n\ntwo: nop\n", "b": "; x\ny\n"}
    line = st.builds(Line, st.integers(0, 80), st.sampled_from("ab"), st.integers(1, 5))
    table = Lines(tuple(sorted(data.draw(st.lists(line, max_size=8)))))
    known = sorted(binary.undefined)
    symbols = dict.fromkeys(data.draw(st.sets(st.sampled_from(known))) if known else (), 7)
    at = 0
    rows = listing.make(binary, table, texts, symbols, None)
    assert sorted(row.text for row in rows if row.text.startswith("global")) == [
        "global end",
        "global here",
    ]
    for row in rows:
        assert row.offset == at or not row.pieces
        for piece in row.pieces:
            symbol = piece.symbol.partition("+")[0]
            assert symbol == next((field.symbol for field in fields if field.offset == at), "")
            if symbol:
                assert piece.bound == (symbol in symbols)
            else:
                assert piece.data * piece.times == code[at : at + piece.size]
            at += piece.size
    assert at == len(code)


def test_a_source_is_found_by_its_end(tmp_path: Path) -> None:
    assert text_of("relocator_seed", {}, None) == text_of("i386/relocator_seed", {}, None)
    with pytest.raises(InputError, match="'relocator' is i386/relocator or x86_64/relocator: say"):
        text_of("relocator", {}, None)
    with pytest.raises(InputError, match="'locator' is no source; there are i386/head, "):
        text_of("locator", {}, None)
    with pytest.raises(InputError, match="i386/relocator has no symbol 'a' to set; it has: code"):
        text_of("i386/relocator", {"a": 1}, None)
    with pytest.raises(BuildError, match=r"symbol 'src'.*does not fit"):
        text_of("i386/relocator", {"src": 1 << 32}, None)
    files = {"i386/arch.toml": ARCH[32], "i386/x.asm": "bits 32\nnop\n"}
    tree = make_tree(tmp_path, files)
    assembler.build(tree)
    head, *_, row = listing.of_source(tree, "x", {}, None)
    assert head == [("asm/i386/x.asm: 1 bytes, limit 4096", "bold")]
    assert "".join(text for text, _ in row).split() == ["0000", "90", "5", "nop"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("0x1F", 31),
        ("0XfF", 255),
        ("8M", 8 << 20),
        ("0X1k", 1024),
        ("2g", 2 << 30),
    ],
)
def test_numbers(text: str, value: int) -> None:
    assert numbers.parse(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "0x", "x", "1T", "1 M", "1_0", "0b1", "٣"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number, as 4096, 0x1000 or 4K"):
        numbers.parse(text)
    with pytest.raises(InputError, match="--base: found"):
        listing.address(text)
    with pytest.raises(InputError, match=r"--set a=.*; the form is NAME=NUMBER$"):
        numbers.settings([f"a={text}"])


def test_settings() -> None:
    assert numbers.settings(["src=0x200000", "len=8M", "n=010"]) == {
        "src": 0x200000,
        "len": 8 << 20,
        "n": 10,
    }
    with pytest.raises(InputError, match=r"^--set src: found '', expected a number, as 4096,"):
        numbers.settings(["src"])
    with pytest.raises(InputError, match=r"^--set =1: there is no name; the form is NAME=NUMBER"):
        numbers.settings(["=1"])
    with pytest.raises(InputError, match=r"^--set a=2: 'a' is set already"):
        numbers.settings(["a=1", "a=2"])


def test_the_task() -> None:
    command = [sys.executable, "-m", "invoke", "listing", "relocator_seed", "--set", "len=4K"]
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    outputs = []
    for extra in ({}, {"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        run = subprocess.run(
            command, cwd=paths.ROOT, env={**plain, **extra}, check=True, stdout=subprocess.PIPE
        )
        outputs.append(run.stdout.decode())
    without, coloured, no_colour = outputs
    assert "81 fa <len=00 10 00 00>" in without
    assert "\x1b" not in without
    assert "\x1b[1;32m<len=00 10 00 00>\x1b[0m" in coloured
    assert "\x1b[1;32m" not in no_colour
