"""The load table: what Python writes is what the loader's source reads."""

import itertools
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybuild import assembler, bootproto, loader, loadtable, lowmemory
from pybuild.loadtable import Entry
from pybuild.paths import ROOT

INCLUDE = ROOT / "asm" / "include"


def value_of(expression: str, folder: Path) -> int:
    """What NASM makes of an expression in loadtable.inc's names."""
    source, out = folder / "snippet.asm", folder / "snippet.bin"
    source.write_text(f'%include "loadtable.inc"\ndq {expression}\n')
    command = [assembler.nasm(), "-Wall", "-Werror", "-f", "bin", f"-I{INCLUDE}/"]
    subprocess.run([*command, "-o", str(out), str(source)], check=True)
    return int.from_bytes(out.read_bytes(), "little")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SECTOR_SIZE", bootproto.SECTOR),
        ("LOADER_NEEDS_LONG_MODE", loadtable.NEEDS_LONG_MODE),
        ("LOADER_ADDRESS", lowmemory.LOADER.start),
        ("LOADER_SCRATCH", loader.SCRATCH),
        ("BOOT_SECTOR_ADDRESS", lowmemory.BOOT_SECTOR.address),
        ("BOOT_SECTOR_ADDRESS", lowmemory.LOADER.end),
        ("LOADER_SUM_ROTATE", loadtable.SUM_ROTATE),
        ("LOADER_SUM_FACTOR", loadtable.SUM_FACTOR),
        ("load_table_size + 3 * load_entry_size", loadtable.size(3)),
        ("BOOT_ID_AT", loadtable.BOOT_ID_AT),
        ("BOOT_ID_MAGIC", int.from_bytes(loadtable.BOOT_ID_MAGIC, "little")),
        ("boot_id_size", loadtable.BOOT_ID.size),
        ("boot_id.loader_lba", struct.calcsize("<4s")),
        ("boot_id.loader_sum", struct.calcsize("<4sQ")),
        ("boot_id.loader_sectors", struct.calcsize("<4sQI")),
        ("boot_id.sector_shift", struct.calcsize("<4sQIH")),
    ],
)
def test_constants_are_equal(name: str, expected: int, tmp_path: Path) -> None:
    assert value_of(name, tmp_path) == expected


@pytest.mark.parametrize(
    ("field", "size", "expected"),
    [
        ("load_table.entries", 4, 2),
        ("load_table.needs", 4, 1),
        ("load_table.total", 8, 0x123456789),
        ("load_table_size + load_entry.lba", 8, 0),
        ("load_table_size + load_entry.size", 8, 7),
        ("load_table_size + load_entry_size + load_entry.lba", 8, 0x1_0000_0002),
        ("load_table_size + load_entry_size + load_entry.size", 8, 0x123456789),
        ("load_table_size + load_entry_size + load_entry.address", 8, 0xFFEEDDCCBB),
        ("load_table_size + load_entry_size + load_entry.checksum", 4, 0x87654321),
    ],
)
def test_fields_lie_where_the_loader_looks(
    field: str, size: int, expected: int, tmp_path: Path
) -> None:
    table = loadtable.encode(
        [
            Entry("memory only", 0, 7, 0x1000),
            Entry("kernel", 0x1_0000_0002, 0x123456789, 0xFFEEDDCCBB, 0x87654321),
        ],
        long_mode=True,
    )
    at = value_of(field, tmp_path)
    assert int.from_bytes(table[at : at + size], "little") == expected
    name = value_of("load_table_size + load_entry_size + load_entry.name", tmp_path)
    assert table[name : name + 12] == b"kernel".ljust(12, b"\0")


def test_names_end_with_a_zero() -> None:
    assert loadtable.encode([Entry("x" * 11, 1, 1, 1)], long_mode=False).endswith(b"x" * 11 + b"\0")
    with pytest.raises(AssertionError):
        loadtable.encode([Entry("x" * 12, 1, 1, 1)], long_mode=False)


def test_checksum_is_xxh32() -> None:
    """The algorithm's own test vectors, seed 0."""
    assert loadtable.checksum([]) == 0x02CC5D05
    assert loadtable.checksum([b"a"]) == 0x550D7456
    assert loadtable.checksum([b"abc"]) == 0x32D153FF
    assert loadtable.checksum([b"a", b"", b"bc"]) == 0x32D153FF


@given(st.lists(st.binary(min_size=512, max_size=512), min_size=2, max_size=8, unique=True))
def test_loader_sum_sees_sectors_that_changed_places(sectors: list[bytes]) -> None:
    expected = loadtable.loader_sum(b"".join(sectors))
    for first, second in itertools.combinations(range(len(sectors)), 2):
        swapped = [*sectors]
        swapped[first], swapped[second] = swapped[second], swapped[first]
        assert loadtable.loader_sum(b"".join(swapped)) != expected


def test_loader_sum_by_hand() -> None:
    words = (1, 2, 0xFFFFFFFF)
    expected = 0
    for word in words:
        bits = f"{(expected + word) % 2**32:032b}"
        expected = int(bits[13:] + bits[:13], 2) * loadtable.SUM_FACTOR % 2**32
    assert loadtable.loader_sum(struct.pack("<3I", *words)) == expected


@st.composite
def tables(draw: st.DrawFn) -> list[Entry]:
    name = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=11)
    wide, dword = st.integers(0, 2**40), st.integers(0, 2**32 - 1)
    return draw(st.lists(st.builds(Entry, name, wide, wide, wide, dword), min_size=1, max_size=9))


@given(entries=tables(), code=st.binary(max_size=64), padding=st.integers(0, 64))
def test_a_table_is_read_back_wherever_it_lies(
    entries: list[Entry], code: bytes, padding: int
) -> None:
    table = loadtable.encode(entries, long_mode=True)
    assert loadtable.decode(table + bytes(padding)) == tuple(entries)
    bound = code + bytes(-len(code) % loadtable.ALIGNMENT) + table + bytes(padding)
    assert loadtable.find(bound) == tuple(entries)
    assert loadtable.find(bound + b"\1") is None
    assert loadtable.decode(table[:-1]) is None


@given(data=st.binary(max_size=200))
def test_what_is_no_table(data: bytes) -> None:
    assert loadtable.find(data) is None
