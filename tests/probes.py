"""What a probe kernel's report must say, whichever way the kernel was booted."""

import zlib
from typing import Any, Final

from pybuild import kernel, paths, recipe, splice
from pybuild.bootproto import PARAGRAPH, SECTOR
from pybuild.kernel import Kernel
from pybuild.recipe import Recipe

PROBES: Final = [r for r in recipe.read_all(paths.KERNELS) if r.name.startswith("probe")]

# What the probe's setup code has in the registers when it jumps to code32_start.
SETUP_EBX, SETUP_EBP, SETUP_EDI, SETUP_ESP = 0x5EBB5EBB, 0x5EBE5EBE, 0x5ED15ED1, 0x7A5C
ZIMAGE_RUN_ADDRESS: Final = 0x1000
INTERRUPTS_AND_DIRECTION: Final = 0x600

# Fields of the setup header that a loader leaves alone. Who splices the image changes some of them,
# and must have put them back when the kernel is entered.
OF_THE_KERNEL: Final = (
    "setup_sects",
    "syssize",
    "version",
    "kernel_alignment",
    "relocatable_kernel",
    "min_alignment",
    "xloadflags",
    "payload_offset",
    "payload_length",
    "pref_address",
    "init_size",
    "handover_offset",
    "kernel_info_offset",
)


def value(said: dict[str, str], key: str) -> int:
    """A number of the report."""
    return int(said[key], 0)


def original(each: Recipe) -> Kernel:
    """The kernel as it was assembled."""
    return kernel.read(paths.BUILD / "kernels" / f"{each.name}.bin")


def initrd(each: Recipe) -> bytes:
    """The initrds as the kernel must find them."""
    files = tuple(each.folder / str(name) for name in each.initrd)
    return b"".join(splice.open_initrds(files).chunks())


def check(each: Recipe, said: dict[str, str], planned: dict[str, Any]) -> None:
    """All of the report, against the plan and the kernel."""
    probe = original(each)
    check_setup_entry(said, planned)
    check_protected_entry(said, planned)
    check_contents(said, planned, probe)
    check_boot_params(said, planned, probe)
    assert said["cmdline"] == each.cmdline
    if each.initrd:
        assert value(said, "ramdisk_size") == len(initrd(each))
        assert value(said, "initrd_crc") == zlib.crc32(initrd(each))
    else:
        assert "initrd_crc" not in said


def check_setup_entry(said: dict[str, str], planned: dict[str, Any]) -> None:
    """16-bit: segment + 0x20, all data segments and the stack as boot.rst wants them."""
    entry = planned["entry"]
    assert said["entered"] == "16"
    assert value(said, "real_cs") == entry["cs"]
    for segment in ("ds", "es", "fs", "gs", "ss"):
        assert value(said, f"real_{segment}") == entry["data_segments"]
    assert value(said, "real_esp") == entry["esp"]
    for register in ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"):
        assert value(said, f"real_{register}") == 0
    assert value(said, "real_flags") & INTERRUPTS_AND_DIRECTION == 0


def check_protected_entry(said: dict[str, str], planned: dict[str, Any]) -> None:
    """32-bit: what every hook must preserve is preserved; a hook has loaded the segments."""
    real_address = planned["entry"]["data_segments"] * PARAGRAPH
    hooked = any(move["by"] == "hook" for move in planned["moves"])
    assert said["mode"] == "protected32"
    assert value(said, "cs") == 0x10
    assert value(said, "esi") == real_address
    assert value(said, "esp") == real_address + SETUP_ESP
    assert value(said, "ebp") == SETUP_EBP
    assert value(said, "edi") == SETUP_EDI
    assert value(said, "ebx") == (0 if hooked else SETUP_EBX)
    assert value(said, "gdt_base") != 0
    assert value(said, "eflags") & INTERRUPTS_AND_DIRECTION == 0
    for segment in ("ds", "es", "fs", "gs", "ss"):
        assert (value(said, segment) == 0x18) is hooked


def check_contents(said: dict[str, str], planned: dict[str, Any], probe: Kernel) -> None:
    """Every byte of the kernel is right, at the address where it must run."""
    loaded = {load["part"]: load["address"] for load in planned["loads"]}["kernel"]
    if probe.is_relocatable:
        assert value(said, "run") == loaded
    else:
        assert value(said, "run") == (0x100000 if probe.is_high else ZIMAGE_RUN_ADDRESS)
    assert value(said, "size") == probe.protected_size
    assert value(said, "crc") == zlib.crc32(probe.protected)
    # A loader that writes a field which the version does not have writes into the setup code.
    start = SECTOR if probe.version < 0x200 else probe.header_end
    assert value(said, "setup_crc") == zlib.crc32(probe.data[start : value(said, "setup_crc_end")])


def check_boot_params(said: dict[str, str], planned: dict[str, Any], probe: Kernel) -> None:
    """The fields as the kernel finds them: as the plan says, but code32_start as it was."""
    patched = {patch["field"]: patch["new"] for patch in planned["patches"]}
    for field in (
        "type_of_loader",
        "loadflags",
        "setup_move_size",
        "heap_end_ptr",
        "cmd_line_ptr",
        "ramdisk_image",
        "ramdisk_size",
        *OF_THE_KERNEL,
    ):
        assert (field in said) is probe.has(field)
        if field in said:
            assert value(said, field) == patched.get(field, probe[field])
    assert not any(key.startswith("ext_") for key in said)  # all is below 4 GiB
    if probe.has("code32_start"):
        original_start = probe["code32_start"]
        loaded = patched.get("code32_start", original_start)
        assert value(said, "code32_start") == (loaded if probe.is_relocatable else original_start)
