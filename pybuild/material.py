"""Where a recipe's files come from: a path, a NASM source, a Debian package, a made initramfs.

In a recipe a material is a string, the path of a file from the recipe's folder, or a table:

    { source = "probe/probe.asm", defines = { PROTOCOL = 0x20a } }   # nasm -f bin
    { package = "memtest86+", file = "boot/memtest86+ia32.bin" }      # fetched by apt-get download
    { initramfs = "initramfs/init" }                                  # busybox with that /init
"""

import functools
import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import assembler, debian, fresh, initramfs
from pybuild.errors import BuildError, InputError
from pybuild.files import write_file
from pybuild.progress import Progress

_BUSYBOX: Final = ("busybox-static", "*bin/busybox")
_PAYLOAD_SIZE: Final = 1 << 20  # bytes, for the guest to check that its initrd arrived whole
_FORMS: Final = (
    frozenset({"source"}),
    frozenset({"source", "defines"}),
    frozenset({"package", "file"}),
    frozenset({"initramfs"}),
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where materials are made.

    Attributes:
        root: the source tree; NASM runs there.
        build: where what is made here goes.
        cache: where fetched packages are kept.
        progress: is told what takes long.
    """

    root: Path
    build: Path
    cache: Path
    progress: Progress


def is_fetched(material: object) -> bool:
    """Whether making it needs the Debian archive, or its cache."""
    return isinstance(material, Mapping) and not material.keys().isdisjoint(
        {"package", "initramfs"}
    )


def check(material: object, where: str) -> None:
    """Refuses what is no material.

    Raises:
        InputError: naming the place and the forms that there are.
    """
    if isinstance(material, str) and "\0" not in material:
        return
    if isinstance(material, Mapping) and frozenset(material) in _FORMS:
        names = [value for key, value in material.items() if key != "defines"]
        if all(isinstance(name, str) for name in names) and _defines(material) is not None:
            return
    raise InputError(
        f"{where}: {material!r}, expected a path or a table: "
        "{ source, defines (names with numbers) }, { package, file } or { initramfs }"
    )


def make(material: object, folder: Path, name: str, shop: Workshop) -> Path:
    """The file that a material stands for, made or fetched if need be.

    Args:
        material: as it stands in the recipe, checked.
        folder: the recipe's.
        name: the name of what is made.
        shop: where.

    Raises:
        apt.Unavailable: the Debian archive cannot be reached, and it isn't in the cache.
        BuildError: it cannot be made.
    """
    match material:
        case str(path):
            if (folder / path).is_dir():
                raise InputError(f"{folder / path}: is a directory, expected a file")
            return folder / path
        case {"source": str(source), **rest}:
            defines = _defines(rest) or {}
            options = [f"-D{key}={value}" for key, value in sorted(defines.items())]
            return _assemble(_existing(folder / source), options, name, shop)
        case {"package": str(package), "file": str(member)}:
            return debian.fetch(package, member, shop.cache, progress=shop.progress)
        case {"initramfs": str(init)}:
            return _make_initramfs(_existing(folder / init), name, shop)
    raise InputError(f"{folder}: not a material: {material!r}")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def _defines(material: Mapping[object, object]) -> dict[str, int] | None:
    """A source's defines; None if they are not names with whole numbers."""
    match material.get("defines", {}):
        case dict(defines) if all(type(value) is int for value in defines.values()):
            return defines
    return None


def _assemble(source: Path, options: list[str], name: str, shop: Workshop) -> Path:
    """Assembles a kernel or a disk of our own with `nasm -f bin`, if anything of it has changed."""
    out = shop.build / "kernels" / f"{name}.bin"
    stamp = out.with_suffix(".stamp")
    key = {
        "nasm": assembler.NasmVersion(shop.build / "nasm.json")(),
        "options": options,
        "inputs": fresh.digests(
            [
                path
                for directory in (source.parent, shop.root / "asm" / "include")
                for path in directory.iterdir()
                if path.is_file()
            ],
            shop.root,
        ),
    }
    if out.exists() and fresh.read_stamp(stamp) == key:
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".new")
    command = [assembler.nasm(), "-f", "bin", "-I", "asm/include/", "-I", f"{source.parent}/"]
    command += [*options, "-o", str(beside), "-l", str(out.with_suffix(".lst")), str(source)]
    run = subprocess.run(command, cwd=shop.root, capture_output=True, text=True, check=False)
    if run.returncode:
        command_line = " ".join([str(source), *options])
        raise BuildError(f"nasm refuses {command_line}:\n{run.stderr.strip()}")
    stamp.unlink(missing_ok=True)
    beside.replace(out)
    fresh.write_stamp(stamp, key)
    return out


def _make_initramfs(init: Path, name: str, shop: Workshop) -> Path:
    busybox = debian.fetch(*_BUSYBOX, shop.cache, progress=shop.progress)
    archive = initramfs.make(busybox.read_bytes(), init.read_bytes(), payload())
    out = shop.build / "kernels" / f"{name}.cpio.gz"
    if not out.exists() or out.read_bytes() != archive:
        write_file(out, [archive])
    return out


@functools.cache
def payload() -> bytes:
    """The file that the initramfs carries for the guest to checksum: the same bytes everywhere."""
    return hashlib.shake_256(b"bootsplice").digest(_PAYLOAD_SIZE)
