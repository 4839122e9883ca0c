"""Real kernels, from 0x200000 while the firmware would be at 0x100000, and from 0x100000."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from booting import TIMEOUT, boot, named, plan, report

from pybuild import kernel, material
from pybuild.bootproto import BZIMAGE_LOAD_ADDRESS
from pybuild.debugging.rsp import Rsp
from pybuild.guest import Guest
from pybuild.targets.ram import ARGUMENTS

pytestmark = pytest.mark.boot

STAGING = 0x200000
BOOT_PARAMS_CODE32_START = 0x214
MEMTEST_SCREEN = "Memtest86+ v"
# To its screen memtest86+ takes 1 s; with 512 MB, as the profiles have it, 10 s or 20 s.
MEMTEST_RAM = ("-m", "64M")


@contextlib.asynccontextmanager
async def stopped_guest(image: Path, room: Path, *qemu: str) -> AsyncIterator[tuple[Guest, Rsp]]:
    """The guest before its first instruction, and a debugger on it."""
    arguments = [*(image / ARGUMENTS).read_text().split(), "-nic", "none", "-S", *qemu]
    gdb = room / "gdb"
    arguments += ["-gdb", f"unix:{gdb},server=on,wait=off"]
    async with (
        Guest.start(arguments, directory=image, stream=lambda _: None) as guest,
        Rsp.connect(gdb) as debugger,
    ):
        yield guest, debugger


async def run_to(debugger: Rsp, address: int) -> dict[str, int]:
    await debugger.set_breakpoint(address)
    await debugger.resume(TIMEOUT)
    await debugger.remove_breakpoint(address)
    return await debugger.registers()


@pytest.mark.parametrize("bits", ["ia32", "x64"])
def test_memtest_is_moved_by_the_hook(
    bits: str, built: Callable[[str], Path], tmp_path: Path
) -> None:
    """The seed's scheme, watched: 0x100000 untouched at the hook, the kernel's afterwards."""
    image = built(f"memtest86+{bits}.xen-hvm")
    planned = plan(image)
    (move,) = planned["moves"]
    assert (move["by"], move["src"], move["dst"]) == ("hook", STAGING, BZIMAGE_LOAD_ADDRESS)
    patched = kernel.read(image / f"memtest86+{bits}.bzImage")
    contents = patched.protected[: move["len"]]

    async def session() -> None:
        async with stopped_guest(image, tmp_path, *MEMTEST_RAM) as (guest, debugger):
            registers = await run_to(debugger, move["relocator"])
            assert registers["rip"] == move["relocator"]
            assert registers["cr0"] & 1
            assert await debugger.read(STAGING, move["len"]) == contents
            assert not any(await debugger.read(BZIMAGE_LOAD_ADDRESS, move["len"]))
            boot_params = registers["rsi"]
            field = await debugger.read(boot_params + BOOT_PARAMS_CODE32_START, 4)
            assert int.from_bytes(field, "little") == move["relocator"]
            preserved = {name: registers[name] for name in ("rsp", "rbp", "rsi", "rdi")}

            registers = await run_to(debugger, BZIMAGE_LOAD_ADDRESS)
            assert registers["rip"] == BZIMAGE_LOAD_ADDRESS
            assert await debugger.read(BZIMAGE_LOAD_ADDRESS, move["len"]) == contents
            assert {name: registers[name] for name in preserved} == preserved
            assert registers["rbx"] == 0
            assert [registers[name] for name in ("ds", "es", "fs", "gs", "ss")] == [0x18] * 5
            field = await debugger.read(boot_params + BOOT_PARAMS_CODE32_START, 4)
            assert int.from_bytes(field, "little") == BZIMAGE_LOAD_ADDRESS

            await debugger.detach()
            await shows(guest, MEMTEST_SCREEN)

    asyncio.run(session())


@pytest.mark.parametrize("bits", ["ia32", "x64"])
def test_memtest_where_it_runs(bits: str, built: Callable[[str], Path]) -> None:
    image = built(f"memtest86+{bits}.pc")
    assert not plan(image)["moves"]
    boot(image, r"Memtest86\+ v", *MEMTEST_RAM)


@pytest.mark.parametrize("machine", ["pc", "xen-hvm"])
def test_debian(machine: str, built: Callable[[str], Path]) -> None:
    """Relocatable, so without relocator: to the message of its own initramfs."""
    image = built(f"debian.{machine}")
    planned = plan(image)
    address = {load["part"]: load["address"] for load in planned["loads"]}["kernel"]
    assert address == (STAGING if machine == "xen-hvm" else BZIMAGE_LOAD_ADDRESS)
    assert not planned["moves"]
    said = report(boot(image, "^end=ok"))
    assert said["cmdline"] == named("debian").cmdline
    assert said["payload_sha256"] == hashlib.sha256(material.payload()).hexdigest()


@pytest.mark.parametrize("machine", ["pc", "xen-hvm"])
@pytest.mark.parametrize(
    ("name", "expect"), [("ipxe", "Open Source Network Boot Firmware"), ("memdisk", "^end=ok")]
)
def test_setup_code_without_the_hook(
    name: str, expect: str, machine: str, built: Callable[[str], Path]
) -> None:
    """iPXE and memdisk never look at code32_start: the early stage moves them."""
    image = built(f"{name}.{machine}")
    moves = [(m["by"], m["src"], m["dst"]) for m in plan(image)["moves"]]
    assert moves == ([("early", STAGING, BZIMAGE_LOAD_ADDRESS)] if machine == "xen-hvm" else [])
    log = boot(image, expect)
    if name == "memdisk":
        assert report(log)["last_sector"] == "right"


async def shows(guest: Guest, text: str) -> None:
    """Waits until the screen shows the text."""
    deadline = time.monotonic() + TIMEOUT
    while text not in (screen := await guest.screen()):
        assert time.monotonic() < deadline, f"serial:\n{guest.serial}\nscreen:\n{screen}"
        await guest.wait(0.5)
