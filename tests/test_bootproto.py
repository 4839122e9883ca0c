import re
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from fakekernel import NEWEST, VERSIONS
from hypothesis import given
from hypothesis import strategies as st

from pybuild import assembler, bootproto
from pybuild.bootproto import FIELDS, OLD_PROTOCOL, Field, field, version_name
from pybuild.paths import ROOT

INCLUDE = ROOT / "asm" / "include" / "bootproto.inc"
EVERYTHING = 0x400  # a header end that cuts nothing off
UNIT = {"resb": 1, "resw": 2, "resd": 4, "resq": 8}
# What the include file has as constants, because they lie before the header, not in the struc.
BEFORE_THE_HEADER = {"cmd_line_magic": "CMD_LINE_MAGIC_AT", "cmd_line_offset": "CMD_LINE_OFFSET_AT"}
# syssize had 16 bits up to 2.03, and swap_dev lay where its upper half is now.
OLD_FORMS = {("syssize", 2), ("swap_dev", 2)}
SELECTORS = {"__BOOT_CS": 0x10, "__BOOT_DS": 0x18}  # boot.rst, "32-bit Boot Protocol"

_MEMBER = re.compile(r"^ +\.(\w+) +(res[bwdq]) +1 +; (all|\d\.\d\d)(?: and (\d\.\d\d))?\b", re.M)
_CONSTANT = re.compile(r"^(\w+) +equ\b", re.M)
MEMBERS = {m[1]: m for m in _MEMBER.finditer(INCLUDE.read_text())}
CONSTANTS = _CONSTANT.findall(INCLUDE.read_text())


def in_the_struc() -> list[Field]:
    """What of the table the struc has to have."""
    return [
        f for f in FIELDS if f.name not in BEFORE_THE_HEADER and (f.name, f.size) not in OLD_FORMS
    ]


def version_number(name: str | None) -> int | None:
    if name is None:
        return None
    major, minor = name.split(".")
    return int(major) << 8 | int(minor)


def assemble(expressions: list[str], folder: Path) -> list[int]:
    """What NASM makes of expressions with what the include file defines."""
    lines = ['%include "bootproto.inc"', *(f"dd {expression}" for expression in expressions)]
    source, out = folder / "snippet.asm", folder / "snippet.bin"
    source.write_text("\n".join(lines) + "\n")
    command = [assembler.nasm(), "-Wall", "-Werror", "-f", "bin", f"-I{INCLUDE.parent}/"]
    subprocess.run([*command, "-o", str(out), str(source)], check=True)
    return list(struct.unpack(f"<{len(expressions)}I", out.read_bytes()))


def test_the_struc_has_the_offsets_and_sizes_of_the_table(tmp_path: Path) -> None:
    wanted = in_the_struc()
    labels = [f"boot_params.{f.name}" for f in wanted] + ["boot_params_size"]
    offsets = assemble(labels, tmp_path)
    names = [f.name for f in wanted]
    # In a struc a member ends where the next begins, so this is sizes, too, and that none lacks.
    found = dict(zip(names, pairwise(offsets), strict=True))
    assert found == {f.name: (f.offset, f.end) for f in wanted}


def test_the_struc_has_no_name_that_the_table_lacks() -> None:
    assert list(MEMBERS) == re.findall(r"^\s*\.(\w+)", INCLUDE.read_text(), re.M)
    assert set(MEMBERS) == {f.name for f in in_the_struc()}


@pytest.mark.parametrize("wanted", in_the_struc(), ids=lambda f: f.name)
def test_the_strucs_comment_names_the_versions_of_the_table(wanted: Field) -> None:
    _, unit, since, until = MEMBERS[wanted.name].groups()
    assert UNIT[unit] == wanted.size
    oldest = OLD_PROTOCOL if since == "all" else version_number(since)
    assert (oldest, version_number(until)) == (wanted.since, wanted.until)


def test_constants_are_equal(tmp_path: Path) -> None:
    found = dict(zip(CONSTANTS, assemble(CONSTANTS, tmp_path), strict=True))
    places = {constant: field(name, 0x200).offset for name, constant in BEFORE_THE_HEADER.items()}
    shared = {
        name: getattr(bootproto, name) for name in CONSTANTS if name not in {**places, **SELECTORS}
    }
    assert found == {**places, **SELECTORS, **shared}
    assert len(CONSTANTS) == len(set(CONSTANTS))
    assert {"BOOT_FLAG", "HEADER_MAGIC", "LOADED_HIGH", "XLF_KERNEL_64"} <= set(shared)


def test_fields_are_well_formed() -> None:
    for f in FIELDS:
        assert f.size in (1, 2, 4, 8)
        assert f.maximum == 256**f.size - 1
        assert f.until is None or f.since <= f.until < NEWEST
        assert re.fullmatch(r"[a-z]\w+", f.name)
        assert f.meaning
        assert "\n" not in f.meaning


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_fields_of_a_version_are_sorted_and_do_not_overlap(version: int) -> None:
    fields = [f for f in FIELDS if f.exists(version, EVERYTHING)]
    assert len({f.name for f in fields}) == len(fields)
    for one, two in pairwise(fields):
        assert one.end <= two.offset
    header = [f for f in fields if f.offset >= 0x1F1]
    assert header[0].offset == 0x1F1
    if version >= 0x200:  # boot.rst: never more than 144 bytes from 0x1f1
        assert header[-1].end <= 0x1F1 + 144
    else:
        assert header[-1].end == 0x200


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_field_finds_just_those_that_exist(version: int) -> None:
    for f in FIELDS:
        if f.exists(version, EVERYTHING):
            assert field(f.name, version) is f
        elif f.name != "syssize":
            with pytest.raises(KeyError, match=f.name):
                field(f.name, version)
    with pytest.raises(KeyError, match="nonsense"):
        field("nonsense", version)


def test_syssize_has_two_forms() -> None:
    assert [field("syssize", version).size for version in (0, 0x203, 0x204, 0x20F)] == [2, 2, 4, 4]
    assert field("swap_dev", 0x203).offset == field("syssize", 0x204).offset + 2


@pytest.mark.parametrize("wanted", FIELDS, ids=lambda f: f"{f.name}-{f.size}")
def test_a_field_exists_by_version_and_by_the_headers_end(wanted: Field) -> None:
    last = NEWEST if wanted.until is None else wanted.until
    for version in (*VERSIONS, 0x210, 0x300):
        known = wanted.since <= version and (wanted.until is None or version <= wanted.until)
        assert wanted.exists(version, EVERYTHING) == known
    assert wanted.exists(last, wanted.end)
    # What every version has is there even if HdrS follows: the header's end says nothing of it.
    assert wanted.exists(last, wanted.end - 1) == (wanted.since == OLD_PROTOCOL)


def test_ipxe_has_code_where_newer_fields_are() -> None:
    ends = 0x202 + 0x65
    assert field("hardware_subarch_data", 0x207).exists(0x207, ends)
    assert not field("pref_address", 0x20A).exists(0x207, ends)


@given(st.sampled_from(FIELDS), st.binary(min_size=0x26C, max_size=0x26C), st.data())
def test_get_gives_what_put_wrote_and_nothing_else_changes(
    wanted: Field, before: bytes, data: st.DataObject
) -> None:
    value = data.draw(st.integers(0, wanted.maximum))
    after = bytearray(before)
    wanted.put(after, value)
    assert wanted.get(after) == wanted.get(bytes(after)) == wanted.get(memoryview(after)) == value
    assert after[: wanted.offset] == before[: wanted.offset]
    assert after[wanted.end :] == before[wanted.end :]
    assert len(after) == len(before)
    wanted.put(after, wanted.get(before))
    assert after == before


@given(st.sampled_from(FIELDS), st.one_of(st.integers(max_value=-1), st.integers(min_value=1)))
def test_put_refuses_what_does_not_fit(wanted: Field, beyond: int) -> None:
    value = beyond if beyond < 0 else wanted.maximum + beyond
    data = bytearray(0x26C)
    with pytest.raises(OverflowError):
        wanted.put(data, value)
    assert data == bytes(0x26C)


@pytest.mark.parametrize(
    ("version", "name"),
    [(0, "old"), (0x1FF, "old"), (0x200, "2.00"), (0x20A, "2.10"), (0x20F, "2.15")],
)
def test_version_name(version: int, name: str) -> None:
    assert version_name(version) == name
