"""The Xen lab: a real Xen with a dom0 in QEMU's software emulation, for whoever has no other.

It lives in a folder of the cache:

    root/                what Debian's packages have of it (see root.py)
    template-<digest>/   a lab that has started, to go on from
        initramfs.cpio   dom0's
        ram              its RAM, a sparse file that each lab maps for itself, copying on write
        devices          the state of everything else, as QEMU's migration has it

Nothing is installed. A lab that goes on from the template has its dom0 running in 0.1 s.
"""

import asyncio
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import flock, initramfs
from pybuild.initramfs import CharacterDevice, Directory, Entry, File, Symlink
from pybuild.progress import Progress
from pybuild.xen import machine, root
from pybuild.xen.session import Lab

_INIT: Final = Path(__file__).parent / "dom0-init.sh"
_EMPTY: Final = ("dev", "proc", "run", "sys", "tmp", "var/lib/xen", "var/log/xen")
_PAGE: Final = 0x1000


@dataclass(frozen=True, slots=True)
class Status:
    """What there is of the lab.

    Attributes:
        folder: where.
        packages: the Debian packages that it is made of, with their versions; none yet if empty.
        starts_at_once: whether there is a template for the QEMU that is installed.
        size: bytes on the disk.
    """

    folder: Path
    packages: dict[str, str]
    starts_at_once: bool
    size: int


def status(cache: Path) -> Status:
    """What there is of the lab below a cache directory."""
    folder = _folder(cache)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    packages = _packages(folder)
    return Status(
        folder=folder,
        packages=packages,
        starts_at_once=bool(packages) and _template(folder).is_dir(),
        size=sum(path.stat().st_blocks * 512 for path in files),
    )


def clean(cache: Path) -> None:
    """Removes the lab; the next use makes it again."""
    folder = _folder(cache)
    if folder.is_dir():
        with flock.held_directory(folder.parent):
            shutil.rmtree(folder)


def prepare(cache: Path, *, progress: Progress) -> machine.Place:
    """Makes what there is not yet of the lab, one process at a time.

    Args:
        cache: the cache directory.
        progress: called with one line before each step that takes long.

    Raises:
        apt.Unavailable: the packages cannot be had.
        BuildError: QEMU is missing, or the lab does not start.
    """
    folder = _folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    with flock.held_directory(folder.parent):
        if not _packages(folder):
            for old in folder.iterdir():  # what a process that was killed has left, too
                shutil.rmtree(old)
            root.make(folder / "root", progress=progress)
        template = _template(folder)
        if not template.is_dir():
            for old in folder.glob("template-*"):
                shutil.rmtree(old)
            progress("starting Xen and its dom0, for later labs to go on from there")
            asyncio.run(_make_template(folder, template))
    return machine.Place(folder, template.name)


def _folder(cache: Path) -> Path:
    return cache / "xen-lab"


def _packages(folder: Path) -> dict[str, str]:
    try:
        versions: dict[str, str] = json.loads((folder / "root/packages.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return versions


def _template(folder: Path) -> Path:
    """Where the template is that fits this QEMU, these packages and this bootsplice."""
    program = Path(shutil.which(machine.PROGRAM) or machine.PROGRAM).resolve()
    qemu = program.stat() if program.exists() else None
    key = (
        str(program),
        qemu and (qemu.st_size, qemu.st_mtime_ns),
        sorted(_packages(folder).items()),
        _INIT.read_text(),
        machine.arguments("", restore=False),
    )
    return folder / f"template-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"


async def _make_template(folder: Path, template: Path) -> None:
    beside = template.with_name(f"new-{template.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        (beside / "initramfs.cpio").write_bytes(_initramfs(folder / "root"))
        place = machine.Place(folder, beside.name)
        async with Lab.boot(place) as lab:
            await lab.save()
        _squeeze(beside / "ram")
        beside.rename(template)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _initramfs(root_folder: Path) -> bytes:
    entries: dict[str, Entry] = {}
    for path in sorted((root_folder / "root").rglob("*")):
        name = str(path.relative_to(root_folder / "root"))
        if path.is_symlink():
            entries[name] = Symlink(name, str(path.readlink()))
        elif path.is_dir():
            entries[name] = Directory(name)
        else:
            entries[name] = File(name, path.stat().st_mode & 0o777, path.read_bytes())
    for name in _EMPTY:
        for each in (*reversed(Path(name).parents[:-1]), Path(name)):
            entries.setdefault(str(each), Directory(str(each)))
    entries["modules"] = Directory("modules")
    for path in sorted((root_folder / "modules").iterdir()):
        entries[f"modules/{path.name}"] = File(f"modules/{path.name}", 0o644, path.read_bytes())
    entries["var/run"] = Symlink("var/run", "../run")
    entries["dev/console"] = CharacterDevice("dev/console", 5, 1)  # the kernel opens it for /init
    entries["init"] = File("init", 0o755, _INIT.read_bytes())
    return initramfs.newc(entries.values())


def _squeeze(path: Path) -> None:
    """Makes the pages of a file that are all zero holes in it."""
    beside = path.with_name("squeezed")
    with path.open("rb") as source, beside.open("wb") as target:
        size = os.fstat(source.fileno()).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                break
            end = os.lseek(source.fileno(), at, os.SEEK_HOLE)
            while at < end:
                page = os.pread(source.fileno(), _PAGE, at)
                if page.count(0) != len(page):
                    os.pwrite(target.fileno(), page, at)
                at += len(page)
        target.truncate(size)
    beside.replace(path)
