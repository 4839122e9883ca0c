"""Guest code of ours, found in an image and read back: which source it is of, bound to what."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from pybuild import loader, splice
from pybuild.flat import FlatBinary
from pybuild.reading.found import Code, Part
from pybuild.splice import DISK_OWN, put_disk_own

Binaries = Mapping[str, FlatBinary]


def read(binaries: Binaries, source: str, data: bytes, base: int | None = None) -> Code:
    """What the code of a source that `data` begins with is bound to."""
    binary = binaries[source]
    return Code(source, binary.unbind(data[: len(binary.code)], base))


def boot_sector(binaries: Binaries, sector: bytes) -> Code:
    """What a boot sector that reads a loader is bound to, whatever the disk keeps in it."""
    own = bytes(DISK_OWN.stop - DISK_OWN.start)
    return read(binaries, loader.BOOT_SECTOR, put_disk_own(sector, own))


def read_end(binaries: Binaries, source: str, data: bytes) -> Code:
    """The same of what `data` ends with."""
    return read(binaries, source, data[-len(binaries[source].code) :])


def relocator(binaries: Binaries, tail: bytes, *, expected: bool) -> tuple[Code, ...]:
    """The relocator that a kernel ends with.

    Args:
        binaries: the flat binaries.
        tail: the kernel's last bytes, at least as many as the relocator has.
        expected: whether there must be one.
    """
    found = read_end(binaries, splice.RELOCATOR, tail)
    return (found,) if expected or found.symbols is not None else ()


def suspect(parts: Sequence[Part], together: Collection[str]) -> tuple[Part, ...]:
    """The parts, with those damaged that no checksum covers and whose code is no longer ours.

    Args:
        parts: the parts.
        together: sources of which all the code is this version's, or all another's, which would
            be nothing wrong.
    """
    codes = [code for part in parts for code in part.code if code.source in together]
    if all(code.symbols is None for code in codes):
        return tuple(parts)
    wrong = [code for code in codes if code.symbols is None]
    return tuple(
        dataclasses.replace(
            part,
            damage=(
                *part.damage,
                *(
                    f"not the code of {c.source} that goes with the rest"
                    for c in part.code
                    if c in wrong
                ),
            ),
        )
        if part.sum is None
        else part
        for part in parts
    )
