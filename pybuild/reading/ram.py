"""Reads a folder that target `ram` wrote. Nothing in it has a checksum: one file tells of another.

The plan says how large each part is, where it goes, what its code is bound to and what its header
says; the spliced kernel image has the kernel once more.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pybuild import lowmemory, splice
from pybuild.bootproto import SECTOR
from pybuild.rawdisk import BOOT_SIGNATURE, BOOT_SIGNATURE_BYTES
from pybuild.reading import agree, code, payload
from pybuild.reading.code import Binaries
from pybuild.reading.found import Change, Code, File, Image, Part
from pybuild.targets import ram
from pybuild.words import shown

_KERNEL: Final = "kernel"


def read(folder: Path, binaries: Binaries) -> Image:
    """What is in the folder.

    Raises:
        InputError: its plan cannot be read.
    """
    plan = ram.read(folder)
    damage: list[str] = []

    def contents(name: str) -> bytes:
        with _noted(name, damage):
            if (folder / name).is_fifo():  # reading it would wait for somebody to write
                raise OSError(errno.ESPIPE, "is no regular file")
            return (folder / name).read_bytes()
        return b""

    def size_of(name: str) -> int:
        with _noted(name, damage):
            return (folder / name).stat().st_size
        return 0

    sector = contents(ram.BOOT_DISK)[:SECTOR]
    if sector[BOOT_SIGNATURE] != BOOT_SIGNATURE_BYTES:
        damage.append(f"{ram.BOOT_DISK}: does not end with {BOOT_SIGNATURE_BYTES.hex()}")
    small = {
        load.part: contents(load.part + ram.SUFFIX) for load in plan.loads if load.part != "initrd"
    }
    setup = small.get("setup", b"")
    kernel = payload.real_mode_part(str(folder), setup)
    found = code.read(binaries, splice.BOOT_SECTOR, sector)
    parts = [Part("boot sector", 0, SECTOR, lowmemory.BOOT_SECTOR.address, code=(found,))]
    for load in plan.loads:
        data = small.get(load.part, b"")
        size = len(data) if load.part in small else size_of(load.part + ram.SUFFIX)
        codes: tuple[Code, ...] = ()
        if load.part == "early":
            codes = (code.read(binaries, splice.EARLY, data, load.address),)
        elif load.part == _KERNEL:
            codes = code.relocator(binaries, data, expected=bool(plan.moves))
        parts.append(Part(load.part, 0, size, load.address, code=codes))
    damage += agree.differences(plan, parts, kernel, binaries)
    name = Path(ram.image_name(plan)).name
    image = contents(name)
    if not agree.is_of_image(plan, setup, image[: len(setup)]):
        damage.append(f"setup{ram.SUFFIX}: not what {name} has")
    if small.get(_KERNEL) != image[len(setup) :]:
        damage.append(f"{_KERNEL}{ram.SUFFIX}: not what {name} has")
    if contents(ram.ARGUMENTS) != ram.arguments(plan).encode():
        damage.append(f"{ram.ARGUMENTS}: not what {ram.PLAN} asks for")
    cmdline = small.get("cmdline", b"")
    there = sorted(path for path in folder.iterdir() if path.is_file())
    files = [File(path.name, 0, path.stat().st_size) for path in there]
    return Image(
        path=str(folder),
        size=sum(file.size for file in files),
        kind="ram",
        mark=f"a folder with a {ram.PLAN} of bootsplice's",
        parts=code.suspect(parts, (splice.BOOT_SECTOR, splice.EARLY)),
        kernel=kernel,
        changes=tuple(Change(p.field, p.old, p.new) for p in plan.patches),
        cmdline=shown(cmdline),
        files=tuple(files),
        arguments=tuple(ram.arguments(plan).splitlines()),
        facts={"machine": plan.machine, "kernel": plan.kernel, "ram": plan.ram},
        damage=tuple(damage),
    )


@contextlib.contextmanager
def _noted(name: str, damage: list[str]) -> Iterator[None]:
    """Adds to the damage that a file cannot be read."""
    try:
        yield
    except OSError as error:
        damage.append(f"{name}: {error.strerror}")
    except ValueError as error:  # no name of a file
        damage.append(f"{name!r}: {error}")
