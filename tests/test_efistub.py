"""PE headers of kernels with a head put in, real kernels and fakes, loaded as firmware does it."""

import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import lief
import pytest
from efikernel import (
    FAKES,
    HEAD_FILLER,
    NEW,
    OLD,
    PACKAGES,
    PE32,
    SLACK,
    Layout,
    Line,
    compat,
    fake,
    real,
    relocations,
    with_head,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pybuild import efistub, kernel
from pybuild.kernel import Kernel
from pybuild.peheaders import HeadersError

BY = st.integers(1, 64).map(lambda pages: pages * 4096)
TAIL = st.binary(max_size=5000)
PE_HEADERS_END = 0x1F1  # where the setup header begins


@functools.cache
def some_kernel(name: str) -> Kernel:
    return fake(FAKES[name]) if name in FAKES else real(name)


@pytest.fixture(params=[*FAKES, *PACKAGES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def parsed(data: bytes) -> lief.PE.Binary:
    lief.logging.disable()
    read = lief.PE.parse(data)
    assert isinstance(read, lief.PE.Binary)
    return read


def loaded(data: bytes) -> bytes:
    """What firmware has in memory: headers, sections, zeros (edk2's PeCoffLoaderLoadImage)."""
    program = parsed(data)
    header = program.optional_header
    memory = bytearray(header.sizeof_image)
    memory[: header.sizeof_headers] = data[: header.sizeof_headers]
    for section in program.sections:
        size = min(section.size, section.virtual_size)
        content = data[section.offset : section.offset + size]
        assert len(content) == size
        memory[section.virtual_address : section.virtual_address + size] = content
    assert len(memory) == header.sizeof_image
    return bytes(memory)


def seam(original: Kernel) -> int:
    """The RVA of the protected-mode part."""
    program = parsed(original.data)  # LIEF crashes when it is gone before its sections
    (home,) = (s for s in program.sections if s.offset == original.setup_size)
    return int(home.virtual_address)


def without(data: bytes, *ranges: range) -> bytes:
    kept = bytearray(data)
    for each in ranges:
        kept[each.start : each.stop] = bytes(len(each))
    return bytes(kept)


def fields_of(original: Kernel) -> Iterator[range]:
    """Where the setup header and .compat say what changes."""
    for field in ("syssize", "init_size", "payload_offset", "handover_offset"):
        place = original.field(field)
        yield range(place.offset, place.end)
    if original.has("kernel_info_offset"):
        yield range(original.field("kernel_info_offset").offset, original.header_end)
    program = parsed(original.data)
    for section in program.sections:
        if section.name == ".compat":
            yield range(section.offset + 4, section.offset + 8)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(by=BY, tail=TAIL)
def test_every_byte_is_loaded_to_where_it_was_or_as_far_behind_as_the_head_is_long(
    name: str, by: int, tail: bytes
) -> None:
    original = some_kernel(name)
    image = with_head(original, by, tail)
    before, after, at = loaded(original.data), loaded(image), seam(original)
    assert after[at : at + by] == HEAD_FILLER * by
    pe_headers = range(0x40, PE_HEADERS_END)
    assert without(after[:at], pe_headers, *fields_of(original)) == without(
        before[:at], pe_headers, *fields_of(original)
    )
    moved, told = after[at + by :], before[at:]
    if name == "pe32":
        says_where = (range(0x114, 0x11C), range(0x4000, 0x4004))  # a debug entry, a relocation
        moved, told = without(moved, *says_where), without(told, *says_where)
    assert moved[: len(told)] == told
    assert not any(moved[len(told) :])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(by=BY, tail=TAIL)
def test_lief_finds_the_same_program(name: str, by: int, tail: bytes) -> None:
    original = some_kernel(name)
    image = with_head(original, by, tail)
    before, after = parsed(original.data), parsed(image)
    assert lief.PE.check_layout(after) == lief.PE.check_layout(before)
    was, header = before.optional_header, after.optional_header
    assert header.addressof_entrypoint == was.addressof_entrypoint + by
    assert header.baseof_code == was.baseof_code
    assert header.sizeof_code == was.sizeof_code + by
    assert header.sizeof_image % header.section_alignment == 0
    assert header.checksum == 0
    assert bytes(after.overlay) == tail
    assert not after.has_signatures
    certificates = after.data_directory(lief.PE.DataDirectory.TYPES.CERTIFICATE_TABLE)
    assert certificates is not None
    assert (certificates.rva, certificates.size) == (0, 0)
    assert [s.name for s in after.sections] == [s.name for s in before.sections]
    for section, old in zip(after.sections, before.sections, strict=True):
        further = by if old.virtual_address > seam(original) else 0
        assert section.virtual_address == old.virtual_address + further
        assert section.offset == old.offset + (further if old.size else 0)
        grown = by if old.offset == original.setup_size else 0
        assert (section.size, section.virtual_size) == (old.size + grown, old.virtual_size + grown)
        assert section.characteristics == old.characteristics


@pytest.mark.parametrize("name", ["new", "old", "debian"])
def test_the_entry_for_firmware_of_32_bits_moves(name: str) -> None:
    original = some_kernel(name)
    program = parsed(original.data)
    (place,) = (s.offset for s in program.sections if s.name == ".compat")
    entry = int.from_bytes(original.data[place + 4 : place + 8], "little")
    assert original.data[place : place + 9] == compat(entry)
    image = with_head(original, 0x2000)
    assert image[place : place + 9] == compat(entry + 0x2000)
    assert loaded(image)[entry + 0x2000 :][:64] == loaded(original.data)[entry:][:64]


def test_debug_entries_relocations_and_data_base_move() -> None:
    image = with_head(fake(PE32), 0x2000)
    program = parsed(image)
    (debug,) = program.debug
    assert (debug.addressof_rawdata, debug.pointerto_rawdata) == (0x3200, 0x5200)
    assert image[0x9000:0x900C] == relocations(0x3000, 0, 0)
    assert program.optional_header.baseof_data == 0x8000


@given(by=BY, tail=st.integers(0, 1 << 22))
def test_a_kernel_that_unpacks_itself_where_it_is_loaded_keeps_its_room(by: int, tail: int) -> None:
    """Linux up to 6.6: init_size from its own start, aligned."""
    image = kernel.parse("image", with_head(fake(OLD), by, bytes(tail)))
    assert parsed(image.data).optional_header.sizeof_image >= image["init_size"] + SLACK
    newer = with_head(fake(NEW), by, bytes(tail))
    assert parsed(newer).optional_header.sizeof_image == NEW.image_size + by


def test_signature() -> None:
    signed = some_kernel("debian")
    found = efistub.signature(signed)
    assert found is not None
    assert found.stop == len(signed.data)
    program = parsed(signed.data)
    assert bytes(program.overlay) == signed.data[found.start :]
    assert efistub.signature(some_kernel("memtest86+x64")) is None
    assert efistub.signature(replace(signed, data=b"\0\0" + signed.data[2:])) is None
    with pytest.raises(HeadersError, match="they end too early"):
        efistub.signature(replace(signed, data=signed.data[:0x60]))


def test_without_its_signature_a_kernel_is_as_its_build_left_it() -> None:
    """Linux's CRC-32, in the protected-mode part's last 4 bytes, is over the PE headers, too."""
    original = some_kernel("debian")
    restored = bytearray(with_head(original, 0))
    for name in ("syssize", "init_size"):
        original.field(name).put(restored, original[name])
    assert zlib.crc32(restored) ^ 0xFFFFFFFF == 0


def _other(place: int, content: bytes, layout: Layout = NEW) -> Layout:
    return replace(layout, contents={**layout.contents, place: content})


def _sections(layout: Layout, change: Callable[[Line], Line], index: int) -> Layout:
    lines = list(layout.sections)
    lines[index] = change(lines[index])
    return replace(layout, sections=lines)


REFUSED = {
    "they have base relocations": _other(0x7000, relocations(0x1000, 0xA000), PE32),
    "their table of base relocations is damaged": _other(
        0x7000, relocations(0, 0)[:4] + b"\1", PE32
    ),
    "they name 10 bytes at 0x20000, which no section holds": replace(
        PE32, directories={5: (0x20000, 10)}
    ),
    "their debug directory is damaged": replace(PE32, directories={6: (0x1100, 27)}),
    "they have data directory 1, whose form is not known": replace(
        NEW, directories={1: (0x4000, 8)}
    ),
    "they have a symbol table": replace(NEW, symbols=0x3000),
    "they align to 0x10000, and 0x1000 is no multiple": replace(NEW, alignments=(0x10000, 0x200)),
    "they end at 0x4000, behind the real-mode part": replace(NEW, headers_size=0x4000),
    "section .compat has a record of type 2, which is not known": _other(0x2000, b"\2\x08"),
    "section .compat has no end": _other(0x2000, compat(0x3777)[:-1] * 512),
    "section .data has relocations or line numbers of its own": _sections(
        NEW, lambda s: replace(s, relocations=1), 3
    ),
    "section .compat is on both sides of the real-mode part's end": _sections(
        NEW, lambda s: replace(s, size=0x1001), 1
    ),
    "section .data is loaded in another order than the file's": _sections(
        NEW, lambda s: replace(s, at=0x1000), 3
    ),
    "they load what is at 0x3000 0 times, expected once": _sections(
        NEW, lambda s: replace(s, at=0x3200), 2
    ),
    "they load what is at 0x3000 2 times, expected once": _sections(
        NEW, lambda s: replace(s, stored=0x1001, size=0x1001), 1
    ),
    "they would have to say 0x100000fff, which is too large": replace(NEW, entry=0xFFFFFFFF),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_kept_right_is_refused(why: str) -> None:
    with pytest.raises(HeadersError) as refused:
        with_head(fake(REFUSED[why]), 0x1000)
    assert str(refused.value) == why


def test_damaged_headers_are_refused() -> None:
    original = fake(NEW)
    data = bytearray(original.data)
    data[0x58:0x5A] = b"\x07\1"  # the magic number of a ROM image
    damaged = replace(original, data=bytes(data))
    with pytest.raises(HeadersError, match="they say neither PE32 nor PE32\\+: 0x107"):
        efistub.move(bytearray(data), damaged, by=0, init_size=0)
    data = bytearray(original.data)
    data[0x46:0x48] = b"\xff\xff"  # 65535 sections
    damaged = replace(original, data=bytes(data))
    with pytest.raises(HeadersError, match="they end too early"):
        efistub.move(bytearray(data), damaged, by=0, init_size=0)


def test_what_lief_finds_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge sees a section that was left behind."""
    monkeypatch.setattr(efistub, "_move_section", lambda *_: None)
    with pytest.raises(HeadersError, match="LIEF does not find"):
        with_head(fake(NEW), 0x1000)
