"""What each candidate for the loader's checksum costs, in a guest that does nothing else."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import xxhash

from bench import inputs, qemu

SIZE: Final = 64 << 20  # bytes that are summed
_PAGE: Final = 0x1000
_MASK: Final = 0xFFFFFFFF

# In checksum.asm's order.
NAMES: Final = (
    "none: the guest's start and end",
    "read loop, sum of dwords",
    "XXH32",
    "Fletcher with SSE2",
    "CRC-32, four bytes at a time",
)


def timers(directory: Path) -> dict[str, Callable[[], float]]:
    """Assembles the guests; gives for each candidate's name what tells the seconds of a run."""
    data = _memory()
    fletcher = _fletcher()
    expected = (0, _sum(), xxhash.xxh32_intdigest(data), fletcher, zlib.crc32(data))
    timed: dict[str, Callable[[], float]] = {}
    for number, (name, result) in enumerate(zip(NAMES, expected, strict=True)):
        image = directory / f"checksum{number}"
        defines = {"CANDIDATE": number, "SIZE": SIZE, "EXPECTED": result}
        inputs.assemble(inputs.GUEST / "checksum.asm", defines, image)
        timed[name] = _timer(image, name)
    return timed


def _timer(image: Path, name: str) -> Callable[[], float]:
    return lambda: qemu.seconds(["-kernel", str(image)], inputs.REACHED, f"checksum: {name}")


def _memory() -> bytes:
    """What the guest has in memory."""
    rest = bytes(_PAGE - 4)
    return b"".join(struct.pack("<I", page) + rest for page in range(SIZE // _PAGE))


def _sum() -> int:
    return sum(range(SIZE // _PAGE)) & _MASK


def _fletcher() -> int:
    """Of every fourth dword from the first on, as the lowest lane sums them."""
    total = totals = 0
    for page in range(SIZE // _PAGE):
        total += page
        totals += total * (_PAGE // 16)
    return (total ^ totals) & _MASK
