import functools
import gzip
import itertools
import lzma
import os
import random
import re
from pathlib import Path

import pytest
from archive import real_kernel
from fakekernel import PROBES, VERSIONS, header_end, image, probe
from hypothesis import given, settings
from hypothesis import strategies as st

from pybuild import initramfs, layout, machine, report
from pybuild.bootproto import FIELDS, OLD_PROTOCOL, Field, version_name
from pybuild.errors import InputError
from pybuild.kernel import parse, read

NO_KERNEL = "k: no Linux/x86 kernel: "
MACHINES = tuple(machine.load(name) for name in ("pc", "xen-hvm"))
CLOUD = ("linux-image-cloud-amd64", "boot/vmlinuz-*")
REQUESTS = tuple(
    layout.Request((), "probe=1", 120, 200, "auto", before_firmware)
    for before_firmware in (True, False)
)


def refusal(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        parse("k", data)
    message = one_line(caught.value)
    assert message.startswith("k: ")
    return message


def bend(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def one_line(error: InputError) -> str:
    assert str(error).isprintable()
    return str(error)


def use(data: bytes) -> None:
    """All that is done with a kernel before bytes are written: it works, or is one line."""
    try:
        kernel = parse("k", data)
        assert report.text(kernel)
        assert report.describe(kernel)
    except InputError as error:
        one_line(error)
        return
    for profile, request in itertools.product(MACHINES, REQUESTS):
        try:
            plan = layout.place(kernel, profile, request)
        except InputError as error:
            one_line(error)
            continue
        for patch in plan.patches:
            field = kernel.field(patch.field)
            assert (patch.offset, patch.size) == (field.offset, field.size)
            assert 0 <= patch.new <= field.maximum


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the probe kernels are assembled."""
    return tmp_path_factory.mktemp("probes")


@functools.cache
def probe_bytes(room: Path, name: str) -> bytes:
    return probe(name, room).read_bytes()


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_every_version_has_its_fields_and_no_others(version: int) -> None:
    data = image(version, root_dev=0x1234, vid_mode=0xFFFF)
    kernel = parse("k", data)
    assert kernel.version == version
    assert kernel.header_end == header_end(version)
    assert kernel.is_high == (version >= 0x200)
    assert kernel["root_dev"] == 0x1234
    for f in FIELDS:
        if f in kernel.fields:
            assert kernel.has(f.name)
            assert kernel.field(f.name) is f
            assert kernel[f.name] == kernel.get(f.name, -1) == f.get(data)
        elif f.name not in {"syssize"}:
            assert not kernel.has(f.name)
            assert kernel.get(f.name, -1) == -1
            with pytest.raises(KeyError):
                kernel[f.name]
    assert not kernel.has("nonsense")
    assert kernel.get("nonsense", 7) == 7


def test_code_where_newer_versions_have_fields_is_no_field() -> None:
    kernel = parse("k", image(0x207, end=0x267))  # as ipxe.lkrn
    assert kernel.data[0x258] != 0
    assert kernel.get("pref_address") == kernel.get("init_size") == 0
    assert [name for name in report.warnings(kernel) if "header ends" in name] == []


def test_a_header_that_ends_early_has_fewer_fields() -> None:
    kernel = parse("k", image(0x20F, end=0x235))
    assert kernel.has("relocatable_kernel")
    for name in ("min_alignment", "cmdline_size", "pref_address", "kernel_info_offset"):
        assert not kernel.has(name)
    assert kernel["setup_sects"] == 1


@pytest.mark.parametrize(("stored", "sectors"), [(0, 4), (1, 1), (4, 4), (63, 63), (255, 255)])
def test_setup_sects(stored: int, sectors: int) -> None:
    kernel = parse("k", image(setup_sects=stored))
    assert kernel.setup_size == 512 + 512 * sectors
    assert kernel.setup == kernel.data[: kernel.setup_size]
    assert kernel.setup + kernel.protected == kernel.data
    assert kernel.protected_size == len(kernel.protected) == 0x321


def test_zimage_and_bzimage() -> None:
    low = parse("k", image(0x203, loadflags=0))
    high = parse("k", image(0x203, loadflags=0x81))
    assert (low.is_high, low.load_address, low.entries) == (False, 0x10000, ("16-bit",))
    assert (high.is_high, high.load_address) == (True, 0x100000)
    assert high.entries == ("16-bit", "32-bit")
    assert (high.contents.start, high.contents.end) == (0x100000, 0x100321)
    assert not parse("k", image(0x203, loadflags=0xFE)).is_high


def test_relocatable() -> None:
    assert parse("k", image(0x205, relocatable_kernel=1)).is_relocatable
    assert parse("k", image(0x20F, relocatable_kernel=0xFF)).is_relocatable
    assert not parse("k", image(0x20F)).is_relocatable
    assert not parse("k", image(0x20F, relocatable_kernel=1, loadflags=0)).is_relocatable
    assert not parse("k", image(0x204)).is_relocatable  # its filler at 0x234 is not 0


def test_entries() -> None:
    kernel = parse("k", image(0x20C, xloadflags=1, efi_stub=True))
    assert kernel.entries == ("16-bit", "32-bit", "64-bit", "EFI stub")
    assert kernel.has_efi_stub
    assert "64-bit" not in parse("k", image(0x20C, xloadflags=0xFFFE)).entries
    assert "64-bit" not in parse("k", image(0x20B)).entries


@pytest.mark.parametrize("offset", [b"\0\0\1\0", b"\xff\xff\xff\xff", b"\0\0\0\0"])
def test_mz_without_pe_is_no_efi_stub(offset: bytes) -> None:
    assert not parse("k", bend(image(efi_stub=True), 0x3C, offset)).has_efi_stub


def test_version_string() -> None:
    assert parse("k", image(text="6.1.0 (me@here) #1")).version_string == "6.1.0 (me@here) #1"
    assert parse("k", image(text=b"caf\xe9\0")).version_string == "caf\\xe9"
    assert parse("k", image()).version_string is None
    assert parse("k", image(OLD_PROTOCOL)).version_string is None


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [(0x200, None), (0x1FF, "x"), (0xFFFF, None), (0x1FE, "xx"), (0x1E0, None)],
    ids=["behind the setup part", "its last byte", "far outside", "unterminated", "empty"],
)
def test_version_string_pointer(pointer: int, expected: str | None) -> None:
    data = bend(image(text=b"\0" * 64, kernel_version=pointer), 0x3FE, b"xx")
    assert parse("k", data).version_string == expected


def test_a_version_string_cannot_paint_the_terminal() -> None:
    kernel = parse("k", image(text="\x1b[2J6.1\r\n\tfake: yes\x7f\0"))
    for line in report.text(kernel).splitlines():
        assert line.isprintable()
    assert "fake: yes" in (kernel.version_string or "")


@pytest.mark.parametrize(
    ("version", "loadflags", "syssize", "protected", "said"),
    [
        (0x203, 1, 0x0032, 0x100320, None),  # wraps at 1 MiB
        (0x203, 1, 0, 0x321, None),  # memdisk
        (0x203, 0, 0x33, 0x321, 0x330),
        (0x20F, 1, 0, 0x321, None),
        (0x20F, 1, 0x33, 0x321, 0x330),
        (0x20F, 1, 0x20, 0x321, 0x200),  # signed: something lies behind its end
        (0x20F, 1, 0x52, 0x321, 0x520),  # rounded up to a sector
    ],
)
def test_syssize_lies(
    version: int, loadflags: int, syssize: int, protected: int, said: int | None
) -> None:
    data = image(version, loadflags=loadflags, syssize=syssize, protected=protected)
    kernel = parse("k", data)
    assert kernel.syssize_bytes == said
    assert kernel.protected_size == protected


def test_a_cut_off_protected_mode_part_is_refused() -> None:
    whole = image(0x20F, protected=0x2000)
    assert refusal(whole[:-513]) == (
        "k: cut off: the protected-mode part has 7679 bytes, expected 8192 by syssize; "
        "get the file again"
    )
    assert parse("k", whole[:-512]).protected_size == 0x1E00  # builders round syssize up
    assert "nothing behind the real-mode part" in refusal(whole[:0x400])
    assert "setup_sects says that the real-mode part alone has 1024" in refusal(whole[:0x3FF])
    with_payload = image(protected=0x321, payload_offset=0x300, payload_length=0x22)
    assert "expected at least 802 by payload_offset and payload_length" in refusal(with_payload)
    assert parse("k", image(protected=0x322, payload_offset=0x300, payload_length=0x22))
    assert parse("k", image(0x207)), "its filler is no payload_length"


def test_headers_that_contradict_themselves_are_refused() -> None:
    assert "HdrS with version 0x01ff, expected 0x0200" in refusal(bend(image(), 0x206, b"\xff\1"))
    assert "the header ends at 0x217, before code32_start" in refusal(image(end=0x217))
    assert parse("k", image(end=0x218))["code32_start"] == 0x100000
    assert "jump at 0x200 begins with 0xe9" in refusal(bend(image(), 0x200, b"\xe9"))


FLOPPY = bend(bytes(0x400), 0x36, b"FAT12   ") + bytes(0x800)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty file, 0 bytes, too short for a setup header"),
        (b"\0" * 100, "nothing but zero bytes, 100 bytes, too short"),
        (b"\x7fELF" + bytes(996), "boot_flag at 0x1fe is 0x0000, .* an ELF file .*bzImage"),
        (gzip.compress(b"small", mtime=0), "gzip-compressed data .* bytes, too short"),
        (gzip.compress(random.randbytes(999)), "boot_flag .* gzip-compressed data"),
        (lzma.compress(random.randbytes(999)), "xz-compressed data"),
        (b"\x28\xb5\x2f\xfd" + bytes(999), "zstd-compressed data"),
        (initramfs.newc([initramfs.Directory("d")]), "a cpio archive .*--initrd"),
        (bytes(10240), "nothing but zero bytes"),
        (b"#!/bin/sh\n" + b"echo no\n" * 99, "a script"),
        (b"just words\n" * 99, "boot_flag at 0x1fe is .*, expected 0xaa55; .* a text file"),
        (bytes(range(1, 256)) * 9, "unknown data"),
        (bend(image(), 0x1FE, b"\0\0"), "boot_flag at 0x1fe is 0x0000, expected 0xaa55"),
        (bend(FLOPPY, 0x1FE, b"\x55\xaa"), "no HdrS at 0x202, .* a FAT boot sector"),
        (bend(b"\xeb\x3c\x90" + bytes(0x7FD), 0x1FE, b"\x55\xaa"), "a boot sector or disk image"),
        (bend(bytes(0x200), 0x1FE, b"\x55\xaa"), "no HdrS .* a boot sector or disk image"),
        (image()[:0x1FF], "511 bytes, too short for a setup header"),
        (image()[:0x207], "519 bytes: cut off inside the setup header"),
    ],
)
def test_what_is_no_kernel(data: bytes, why: str) -> None:
    message = refusal(data)
    assert message.startswith(NO_KERNEL)
    assert re.search(why, message)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, why in [
        (tmp_path, "is a directory, not a kernel; give the bzImage inside"),
        (tmp_path / "fifo", "is no regular file; copy the kernel out of it first"),
        (Path("/dev/zero"), "is no regular file; copy the kernel out of it first"),
        (tmp_path / "none", "cannot be read: No such file or directory"),
        (tmp_path / ("x" * 999), "cannot be read: File name too long"),
    ]:
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: {why}"


@given(st.integers(), st.booleans())
@settings(max_examples=20)
def test_random_bytes_are_no_kernel(seed: int, flagged: bool) -> None:
    data = random.Random(seed).randbytes(300_000)
    assert refusal(bend(data, 0x1FE, b"\x55\xaa") if flagged else data).startswith(NO_KERNEL)


@pytest.mark.parametrize("name", PROBES)
def test_every_truncation_of_the_first_kilobyte_is_refused(room: Path, name: str) -> None:
    data = probe_bytes(room, name)
    for size in range(1025):
        assert str(size) in refusal(data[:size])
    use(data)


def _value(f: Field) -> st.SearchStrategy[tuple[int, bytes]]:
    edges = st.sampled_from([0, 1, f.maximum, f.maximum >> 1, 3000 & f.maximum])
    bits = st.integers(0, 8 * f.size - 1).map(lambda bit: 1 << bit)
    number = st.one_of(edges, bits, st.integers(0, f.maximum))
    return number.map(lambda value: (f.offset, value.to_bytes(f.size, "little")))


_byte = st.tuples(st.integers(0x1F1, 0x26F), st.binary(min_size=1, max_size=1))


@pytest.mark.parametrize("name", PROBES)
@given(st.lists(st.one_of(st.sampled_from(FIELDS).flatmap(_value), _byte), min_size=1, max_size=6))
@settings(max_examples=150)
def test_a_bent_header_is_used_or_refused(
    room: Path, name: str, changes: list[tuple[int, bytes]]
) -> None:
    data = probe_bytes(room, name)
    for offset, value in changes:
        data = bend(data, offset, value)
    use(data)


@pytest.mark.parametrize("name", PROBES)
def test_every_flipped_bit_and_extreme_byte_of_the_header(room: Path, name: str) -> None:
    data = probe_bytes(room, name)
    for offset in range(0x1F1, 0x26C):
        values = {0, 0xFF, *(data[offset] ^ 1 << bit for bit in range(8))}
        for value in range(256) if offset == 0x201 else values:  # 0x201: the header's end
            use(bend(data, offset, bytes([value])))


@pytest.mark.parametrize("alignment", [3, 3000, 0x1800, 0x200001, 0xFFFFFFFF])
@pytest.mark.parametrize("min_alignment", [None, 0, 2, 31, 32, 255])
def test_an_alignment_that_is_no_power_of_two(min_alignment: int | None, alignment: int) -> None:
    if min_alignment is None:
        use(image(0x205, relocatable_kernel=1, kernel_alignment=alignment))
    else:
        data = image(relocatable_kernel=1, kernel_alignment=alignment, min_alignment=min_alignment)
        use(data)


BOTH = ("16-bit", "32-bit")


@pytest.mark.parametrize(
    ("package", "member", "version", "relocatable", "entries", "code32_start"),
    [
        ("memtest86+", "boot/memtest86+ia32.bin", 0x20C, False, BOTH, 0x100000),
        ("memtest86+", "boot/memtest86+x64.bin", 0x20C, False, (*BOTH, "64-bit"), 0x100000),
        ("ipxe", "*/ipxe.lkrn", 0x207, False, BOTH, 0),
        ("syslinux-common", "usr/lib/syslinux/memdisk", 0x203, False, BOTH, 0x100000),
        (*CLOUD, 0x20F, True, (*BOTH, "64-bit", "EFI stub"), 0x100000),
    ],
)
def test_real_kernels(
    package: str,
    member: str,
    version: int,
    relocatable: bool,
    entries: tuple[str, ...],
    code32_start: int,
) -> None:
    kernel = read(real_kernel(package, member))
    assert kernel.is_high
    assert (kernel.version, kernel.is_relocatable) == (version, relocatable)
    assert (kernel.entries, kernel["code32_start"]) == (entries, code32_start)
