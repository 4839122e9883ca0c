"""What the machine profiles say of real machines, and the A20 gate."""

import asyncio
import dataclasses
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from booting import TIMEOUT, boot, make, named, report
from test_boot_real import run_to, stopped_guest

from pybuild import machine
from pybuild.debugging.rsp import Rsp
from pybuild.guest import Guest
from pybuild.material import Workshop
from pybuild.regions import Region

pytestmark = pytest.mark.boot

BOOT_SECTOR = 0x7C00
MIB = 1 << 20
PIECE = 64 << 10  # bytes looked at on each side of every boundary


def free_ranges(profile: machine.Machine) -> list[Region]:
    """What is left of RAM for parts that are loaded before the firmware runs."""
    found, start = [], 0
    for region in sorted(profile.busy(before_firmware=True), key=lambda r: r.start):
        if region.start > start:
            found.append(Region("free", start, region.start))
        start = max(start, region.end)
    return found


def pieces(region: Region) -> list[Region]:
    """The first and the last part of a range, or all of a small one."""
    if region.size <= 2 * PIECE:
        return [region]
    return [
        Region("first", region.start, region.start + PIECE),
        Region("last", region.end - PIECE, region.end),
    ]


@pytest.mark.parametrize("ram", [64, 512, 1024])
@pytest.mark.parametrize("qemu", ["pc", "q35"])
def test_firmware_leaves_alone_what_the_profile_says(
    ram: int, qemu: str, built: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every free range is filled before the firmware runs and read back at the boot sector."""
    profile = tmp_path / "profile.toml"
    profile.write_text(f'base = "pc"\nram = {ram * MIB}\n')
    ranges = [p for r in free_ranges(machine.load(str(profile))) for p in pieces(r)]
    assert len(ranges) == 4, ranges
    arguments = ["-M", qemu, "-m", f"{ram}M", "-nic", "none", "-S"]
    arguments += ["-drive", f"file={built('probe-old.pc')}/boot.img,format=raw,snapshot=on"]
    arguments += ["-gdb", f"unix:{tmp_path}/gdb,server=on,wait=off"]
    for number, region in enumerate(ranges):
        pattern = bytes((number * 37 + i * 101 + (i >> 8)) & 0xFF for i in range(region.size))
        (tmp_path / f"{number}.bin").write_bytes(pattern)
        arguments += [
            "-device",
            f"loader,file={number}.bin,addr={region.start:#x},force-raw=on",
        ]

    async def session() -> None:
        async with (
            Guest.start(arguments, directory=tmp_path, stream=lambda _: None) as guest,
            Rsp.connect(tmp_path / "gdb") as debugger,
        ):
            registers = await run_to(debugger, BOOT_SECTOR)
            assert registers["rip"] == BOOT_SECTOR, guest.serial
            for number, region in enumerate(ranges):
                found = await debugger.read(region.start, region.size)
                assert found == (tmp_path / f"{number}.bin").read_bytes(), region

    asyncio.run(session())


def test_early_stage_opens_the_a20_gate(built: Callable[[str], Path], tmp_path: Path) -> None:
    """With the gate shut the move would go to 0 instead of 0x100000."""
    name = "memdisk.xen-hvm"
    image = built(name)

    async def session() -> str:
        async with stopped_guest(image, tmp_path) as (guest, debugger):
            await run_to(debugger, BOOT_SECTOR)
            await guest.execute("human-monitor-command", {"command-line": "o/b 0x92 0"})
            await debugger.detach()
            deadline = time.monotonic() + TIMEOUT
            while not re.search("^end=ok", guest.serial, re.MULTILINE):
                screen = await guest.screen()
                assert time.monotonic() < deadline, f"{guest.serial}\n{screen}"
                await guest.wait(0.2)
            return guest.serial

    assert report(asyncio.run(session()))["last_sector"] == "right"


@pytest.mark.parametrize("qemu", ["pc", "q35"])
def test_the_profile_keeps_off_what_the_firmware_reserves(
    qemu: str, built: Callable[[str], Path], shop: Workshop, tmp_path: Path
) -> None:
    """What the e820 map that Linux prints calls usable holds all that the profile leaves free."""
    built("debian.pc")
    loud = dataclasses.replace(named("debian"), cmdline="console=ttyS0 panic=-1")
    image = make(loud, "pc", tmp_path / "loud", {}, shop=shop).path
    log = boot(image, "^end=ok", "-M", qemu)
    usable = [
        Region("usable", int(first, 16), int(last, 16) + 1)
        for first, last in re.findall(r"e820: \[mem (0x\w+)-(0x\w+)\] usable", log)
    ]
    profile = machine.load("pc")
    edges = {0, profile.ram, *(edge for r in profile.reserved for edge in (r.start, r.end))}
    for start, end in itertools.pairwise(sorted(edges)):
        free = Region("free", start, end)
        if not any(free.overlaps(region) for region in profile.reserved):
            assert any(r.start <= start and end <= r.end for r in usable), (free, usable)
