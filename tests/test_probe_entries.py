"""The probe kernel entered at its 32-bit and its 64-bit entry, without any setup code.

What it says of the page tables is held to tables that map what is promised and to such as do not.
"""

import dataclasses
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from booting import named
from entry import (
    CMDLINE,
    EXT_CMD_LINE_PTR,
    EXT_RAMDISK_IMAGE,
    EXT_RAMDISK_SIZE,
    INITRD,
    PAGE,
    PARAMS,
    RUN,
    Guest,
    maps,
)
from fakekernel import probe
from probes import OF_THE_KERNEL, original, value

from pybuild import kernel
from pybuild.kernel import Kernel

pytestmark = pytest.mark.boot

OK = "^end=ok"
Built = Callable[[str], Path]
RELOCATED = 0x1000000
GIB, GIB_4 = 1 << 30, 1 << 32
GIB_PAGE = 0x83  # in an entry of a page table: a page instead of a table, writable, present
ABOVE_4G = ("-cpu", "max", "-m", "5G")
# In the order of their encoding.
REGISTERS = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
REGISTERS += [f"r{number}" for number in range(8, 16)]
CR0_PE_PG, CR4_PAE, CR4_LA57, EFER_LME_LMA = 0x80000001, 0x20, 0x1000, 0x500


@pytest.fixture
def guest(built: Built) -> Guest:
    return guest_of("probe-64", built)


def guest_of(name: str, built: Built) -> Guest:
    built(f"{name}.pc")
    return with_both(original(named(name)), RUN)


def with_both(probe: Kernel, run: int) -> Guest:
    """A command line that lies in two pages, and an initrd."""
    return Guest(probe, b"probe=2 in two pages", bytes(range(251)) * 17, run)


def mapped(said: dict[str, str]) -> set[str]:
    """The ranges that the probe found mapped to themselves."""
    keys = {"mapped_run", "mapped_boot_params", "mapped_cmdline"}
    assert {said[key] for key in keys} <= {"0", "1"}
    return {key.removeprefix("mapped_") for key in keys if said[key] == "1"}


def check(guest: Guest, said: dict[str, str], bits: int) -> None:
    """What is the same at both entries, whatever is mapped."""
    assert said["entered"] == str(bits)
    assert said["mode"] == ("long64" if bits == 64 else "protected32")
    assert said["setup"] == "skipped"
    assert not any(key.startswith("real_") for key in said)
    assert "setup_crc" not in said
    assert value(said, "run") == guest.run
    assert value(said, "size") == guest.kernel.protected_size
    assert value(said, "crc") == zlib.crc32(guest.kernel.protected)
    for field in OF_THE_KERNEL:
        assert (field in said) is guest.kernel.has(field)
        if field in said:
            assert value(said, field) == guest.kernel[field]
    assert value(said, "cs") == 0x10
    assert [value(said, segment) for segment in ("ds", "es", "ss")] == [0x18] * 3
    assert [value(said, segment) for segment in ("fs", "gs")] == [0, 0]
    assert 0x7C00 < value(said, "gdt_base") < 0x7E00  # in entry.asm's sector


def check_loaded(guest: Guest, said: dict[str, str]) -> None:
    """Command line and initrd."""
    assert said["cmdline"] == guest.cmdline.decode()
    assert value(said, "cmd_line_ptr") == CMDLINE
    assert value(said, "ramdisk_image") == INITRD
    assert value(said, "initrd_crc") == zlib.crc32(guest.initrd)


@pytest.mark.parametrize("name", ["probe-64", "probe-bzimage", "probe-2.05"])
def test_32_bit_entry(name: str, built: Built, tmp_path: Path) -> None:
    guest = guest_of(name, built)
    said = guest.enter(tmp_path, OK, BITS=32)
    check(guest, said, 32)
    check_loaded(guest, said)
    assert [value(said, key) for key in ("esi", "esp")] == [PARAMS, 0x7C00]
    assert [value(said, key) for key in ("ebp", "edi", "ebx", "eflags")] == [0, 0, 0, 2]
    assert not any(key.startswith("mapped_") for key in said)


@pytest.mark.parametrize(
    ("shift", "levels", "qemu"),
    [
        (12, 4, ()),
        (21, 4, ("-M", "q35")),
        (30, 4, ("-cpu", "max")),
        (12, 5, ("-cpu", "max")),
        (30, 5, ("-cpu", "max")),
    ],
)
def test_64_bit_entry(
    shift: int, levels: int, qemu: tuple[str, ...], guest: Guest, tmp_path: Path
) -> None:
    tables = {"PAGE_SHIFT": shift, "LEVELS": levels}
    said = guest.enter(tmp_path, OK, *qemu, BITS=64, **tables, **maps(guest.needed()))
    check(guest, said, 64)
    check_loaded(guest, said)
    assert mapped(said) == {"run", "boot_params", "cmdline"}
    found = {register: value(said, register) for register in REGISTERS}
    wanted = {name: number * 0x0101010101010101 for number, name in enumerate(REGISTERS)}
    assert found == wanted | {"rax": RUN + 0x200, "rsi": PARAMS}
    assert value(said, "rflags") == 2
    assert value(said, "cr0") & CR0_PE_PG == CR0_PE_PG
    assert value(said, "cr3") == 0x10000
    assert value(said, "cr4") == CR4_PAE + (CR4_LA57 if levels == 5 else 0)
    assert value(said, "efer") & EFER_LME_LMA == EFER_LME_LMA


def test_64_bit_entry_elsewhere(tmp_path: Path) -> None:
    file = probe("relocatable", tmp_path / "build", KERNEL_64=1, ABOVE_4G=1, PM_SIZE=700001)
    guest = with_both(kernel.read(file), RELOCATED)
    said = guest.enter(tmp_path, OK, BITS=64, **maps(guest.needed()))
    check(guest, said, 64)
    check_loaded(guest, said)
    assert mapped(said) == {"run", "boot_params", "cmdline"}


@pytest.mark.parametrize(
    ("short", "kept"),
    [
        ("run", -PAGE),  # all but its last page: init_size is not the file's size
        ("run", PAGE),  # the entry, but none of the variables
        ("boot_params", 0),
        ("cmdline", 0),
        ("cmdline", 1),  # its first page only
    ],
)
def test_a_range_that_is_not_mapped(short: str, kept: int, guest: Guest, tmp_path: Path) -> None:
    """It is said of this range alone, and the rest of the report is as ever."""
    ranges = guest.needed()
    start, end = ranges.pop(short)
    if kept:
        ranges[short] = start, (start if kept > 0 else end) + kept
    said = guest.enter(tmp_path, OK, BITS=64, **maps(ranges))
    check(guest, said, 64)
    check_loaded(guest, said)
    assert mapped(said) == {"run", "boot_params", "cmdline"} - {short}


@pytest.mark.parametrize(
    ("shift", "params", "levels"),
    [(12, PARAMS, 4), (12, PARAMS, 5), (21, 0x3000000, 4), (30, GIB, 5)],
)
def test_a_page_that_is_mapped_to_another_place(
    shift: int, params: int, levels: int, guest: Guest, tmp_path: Path
) -> None:
    guest = dataclasses.replace(guest, params=params)
    defines = {"PAGE_SHIFT": shift, "LEVELS": levels, **maps(guest.needed())}
    assert list(guest.needed())[1] == "boot_params"
    defines["MAP1_TO"] = params + (1 << shift)
    said = guest.enter(tmp_path, OK, "-cpu", "max", "-m", "2G", BITS=64, **defines)
    check(guest, said, 64)
    check_loaded(guest, said)
    assert mapped(said) == {"run", "cmdline"}


@pytest.mark.parametrize("bits", [32, 64])
def test_what_is_above_4_gib_is_not_read(bits: int, guest: Guest, tmp_path: Path) -> None:
    above = {EXT_CMD_LINE_PTR: 1, EXT_RAMDISK_IMAGE: 2, EXT_RAMDISK_SIZE: 3}
    guest = dataclasses.replace(guest, dwords=above)
    said = guest.enter(tmp_path, OK, BITS=bits, **maps(guest.needed()))
    check(guest, said, bits)
    for number, key in enumerate(("ext_cmd_line_ptr", "ext_ramdisk_image", "ext_ramdisk_size")):
        assert value(said, key) == number + 1
    assert [said["cmdline_error"], said["initrd_error"]] == ["above_4g", "above_4g"]
    assert not {"cmdline", "initrd_crc"} & set(said)
    if bits == 64:
        assert mapped(said) == {"run", "boot_params"}


def gib_pages(*numbers: int) -> bytes:
    """A table of page tables that maps these GiB to themselves."""
    entries = [number * GIB | GIB_PAGE if number in numbers else 0 for number in range(512)]
    return struct.pack("<512Q", *entries)


def test_page_tables_above_4_gib(guest: Guest, tmp_path: Path) -> None:
    guest = dataclasses.replace(guest, blobs={GIB_4: gib_pages(0)})
    said = guest.enter(tmp_path, OK, *ABOVE_4G, BITS=64, HIGH_TABLE=GIB_4)
    check(guest, said, 64)
    check_loaded(guest, said)
    assert said["page_tables_error"] == "above_4g"
    assert mapped(said) == set()


def test_a_command_line_above_4_gib_that_is_mapped(guest: Guest, tmp_path: Path) -> None:
    guest = dataclasses.replace(
        guest, blobs={RELOCATED: gib_pages(0, 4)}, dwords={EXT_CMD_LINE_PTR: 1}
    )
    said = guest.enter(tmp_path, OK, "-cpu", "max", BITS=64, HIGH_TABLE=RELOCATED)
    assert said["cmdline_error"] == "above_4g"
    assert mapped(said) == {"run", "boot_params", "cmdline"}


@pytest.mark.parametrize(
    ("run", "params", "error"),
    [(GIB_4, PARAMS, "run_above_4g"), (RUN, GIB_4, "boot_params_above_4g")],
)
def test_what_the_probe_cannot_do_above_4_gib(
    run: int, params: int, error: str, guest: Guest, tmp_path: Path
) -> None:
    blobs = {RELOCATED: gib_pages(0, 4)}
    guest = dataclasses.replace(guest, run=run, params=params, blobs=blobs)
    said = guest.enter(tmp_path, "^error=", *ABOVE_4G, BITS=64, HIGH_TABLE=RELOCATED)
    assert (said["mode"], said["error"]) == ("long64", error)
