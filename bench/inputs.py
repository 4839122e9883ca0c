"""What is loaded: the kernel and the initrd that check themselves, and the firmware's floor.

Both are 512-byte blocks of a pattern in which every dword of a block is the block's number times an
odd factor, plus a seed: no two blocks are the same, and a block in a wrong place shows.
"""

import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import assembler, paths
from pybuild.errors import BuildError

GUEST: Final = paths.ROOT / "bench" / "guest"
BLOCK: Final = 512
_FACTOR: Final = 0x9E3779B1  # 2**32 / golden ratio
_KERNEL_SEED: Final = 0x6B65726E
_INITRD_SEED: Final = 0x696E6974

# What the sources in guest/ write to isa-debug-exit.
REACHED: Final = 0x10
WITH_INITRD: Final = 0x11
_WRONG: Final = {
    0x12: "a block of the kernel is wrong",
    0x13: "the initrd has the wrong size",
    0x14: "a block of the initrd is wrong",
    0x15: "the checksum is wrong",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """In bytes; the first two are multiples of 512.

    Attributes:
        kernel: the kernel's protected-mode part.
        initrd: the initrd.
        init_size: what the kernel's header says it needs from where it runs.
    """

    kernel: int
    initrd: int
    init_size: int


# The kernel is as Debian 12's cloud kernel (6.1.192), in its header, too.
FULL: Final = Sizes(kernel=27668 * BLOCK, initrd=64 << 20, init_size=0x3378000)
QUICK: Final = Sizes(kernel=1 << 20, initrd=2 << 20, init_size=4 << 20)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files that every loader gets."""

    kernel: Path
    initrd: Path
    floor: Path


def make(sizes: Sizes, directory: Path) -> Inputs:
    """Assembles and writes the inputs into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    inputs = Inputs(directory / "kernel", directory / "initrd", directory / "floor.img")
    defines = {
        "PM_SIZE": sizes.kernel,
        "INITRD_SIZE": sizes.initrd,
        "INIT_SIZE": sizes.init_size,
        "BLOCK_FACTOR": _FACTOR,
        "KERNEL_SEED": _KERNEL_SEED,
        "INITRD_SEED": _INITRD_SEED,
    }
    assemble(GUEST / "kernel.asm", defines, inputs.kernel)
    setup = BLOCK * 3  # the boot sector and two sectors of setup code
    code = inputs.kernel.stat().st_size - setup
    with inputs.kernel.open("ab") as stream:
        stream.writelines(_pattern(code // BLOCK, sizes.kernel // BLOCK, _KERNEL_SEED))
    with inputs.initrd.open("wb") as stream:
        stream.writelines(_pattern(0, sizes.initrd // BLOCK, _INITRD_SEED))
    assemble(GUEST / "floor.asm", {}, inputs.floor)
    return inputs


def assemble(source: Path, defines: Mapping[str, int], out: Path) -> None:
    """Assembles a source of the bench to a flat file."""
    options = [f"-D{name}={value}" for name, value in defines.items()]
    command = [assembler.nasm(), "-f", "bin", "-Wall", "-I", "asm/include/", *options]
    run = subprocess.run(
        [*command, "-o", str(out), str(source)],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode or run.stderr:
        raise BuildError(f"nasm refuses {source}:\n{run.stderr.strip()}")


def what(code: int) -> str:
    """What a guest says by the value that it wrote to isa-debug-exit."""
    right = {REACHED: "kernel right, no initrd", WITH_INITRD: "kernel and initrd right"}
    return (right | _WRONG).get(code, f"{code:#x}, which no guest of the bench writes")


def _pattern(first: int, end: int, seed: int) -> Iterator[bytes]:
    """The blocks from number `first` up to `end`."""
    for number in range(first, end):
        value = (number * _FACTOR + seed) & 0xFFFFFFFF
        yield struct.pack("<I", value) * (BLOCK // 4)
