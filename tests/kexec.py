"""kexec: a running Linux, amd64 or i386, brings another kernel into memory and enters it.

Kernel and kexec are Debian's. What they run from is made once, in a folder of the cache:

    kexec-<architecture>/vmlinuz    the first kernel
    kexec-<architecture>/base.cpio  its initramfs, without what is to be booted

i386's packages come by an apt of its own, with lists of its own: the host need not know i386.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock

from loaders import Entry, Loader
from missing import missing

from bench.loaders import Payload
from pybuild import apt, debian, flock, initramfs, paths
from pybuild.initramfs import CharacterDevice, Directory, File, Symlink
from pybuild.xen import libraries
from pybuild.xen.packages import Packages

_INIT: Final = paths.KERNELS / "kexec" / "init"
_KERNELS: Final = {"amd64": "linux-image-cloud-amd64", "i386": "linux-image-686"}

# The first kernel is here only to start another: what it can do without takes a second.
_QUICKLY: Final = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off nopti tsc=reliable no_timer_check nosmp "
    "noapic acpi=off pnpbios=off cryptomgr.notests"
)
# RAM is at 16 MiB and up, and below 1 MiB: so says this kernel, and tells the next one.
_HOLE: Final = "memmap=15M$1M"
# Room for a kernel that is to run when this one has crashed, and for all that it may use: more if
# there is more, for a Linux.
_CRASH: Final = "crashkernel=0-512M:48M,512M-:192M@64M"
_LOAD: Final = "--load --kexec-syscall"
_LOAD_PANIC: Final = "--load-panic --kexec-syscall"
_MEMORY: Final = 128  # MiB; with more memtest86+ takes long
_CRASH_MEMORY: Final = 192  # for the first kernel, too, which sometimes panicked with less


@dataclass(frozen=True, slots=True)
class _Lab:
    """The first kernel and the base of its initramfs."""

    kernel: Path
    base: Path


def _kexec(architecture: str, options: str, more: str, cpu: str) -> Callable[[Payload], list[str]]:
    """kexec with these options, run by a kernel that has `more` on its command line."""

    def prepare(payload: Payload) -> list[str]:
        try:
            lab = _lab(architecture)
        except apt.Unavailable as error:
            missing(str(error))
        entries: list[initramfs.Entry] = [
            File("init", 0o755, _INIT.read_bytes()),
            File("options", 0o644, options.encode()),
            File("cmdline", 0o644, payload.cmdline.encode()),
            File("kernel", 0o644, payload.kernel.read_bytes()),
        ]
        if payload.initrd:
            entries.append(File("initrd", 0o644, payload.initrd.read_bytes()))
        archive = payload.kernel.parent / "initramfs.cpio"
        archive.write_bytes(lab.base.read_bytes() + initramfs.newc(entries))
        return [
            *("-M", "pc", "-cpu", cpu, "-kernel", str(lab.kernel), "-initrd", str(archive)),
            *("-append", f"{_QUICKLY} {more}"),
        ]

    return prepare


def _lab(architecture: str) -> _Lab:
    cache = paths.cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"kexec-{architecture}"
    with flock.held(cache / f".{folder.name}.lock"):
        if not folder.is_dir():
            _make(folder, architecture)
    return _Lab(folder / "vmlinuz", folder / "base.cpio")


def _make(folder: Path, architecture: str) -> None:
    """Makes the folder, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        room = Path(name)
        made = room / "made"
        made.mkdir()
        with _apt_of(architecture, room / "apt"):
            kernel = debian.fetch(
                _KERNELS[architecture], "boot/vmlinuz-*", room / "cache", progress=print
            )
            base = _base(room)
        shutil.copy(kernel, made / "vmlinuz")
        (made / "base.cpio").write_bytes(initramfs.newc(base))
        made.rename(folder)


def _base(room: Path) -> Iterable[initramfs.Entry]:
    packages = Packages(room, print)
    packages.get(["busybox-static", "kexec-tools"])
    kexec = packages.unpacked["kexec-tools"].file("usr/sbin/kexec")
    busybox = packages.unpacked["busybox-static"].file("usr/bin/busybox")
    files = [busybox, kexec, *libraries.resolve([kexec], packages)]
    entries: dict[str, initramfs.Entry] = {}
    for file in files:
        for parent in reversed(Path(file.name).parents[:-1]):
            entries.setdefault(str(parent), Directory(str(parent)))
        entries[file.name] = File(file.name, 0o755, file.chain()[-1].path.read_bytes())
    for name in ("dev", "proc", "sys"):
        entries[name] = Directory(name)
    for name in ("bin", "sbin", "lib", "lib64"):
        entries[name] = Symlink(name, f"usr/{name}")
    entries["usr/bin/sh"] = Symlink("usr/bin/sh", "busybox")
    entries["dev/console"] = CharacterDevice("dev/console", 5, 1)  # opened for /init
    return entries.values()


@contextlib.contextmanager
def _apt_of(architecture: str, folder: Path) -> Iterator[None]:
    """Within it apt is that architecture's; it knows this system's sources, not its packages."""
    if architecture == "amd64":
        yield
        return
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "status").touch()
    configuration = folder / "apt.conf"
    configuration.write_text(
        f'APT::Architecture "{architecture}";\n'
        f'APT::Architectures {{ "{architecture}"; }};\n'
        f'Dir::State "{folder}";\n'
        f'Dir::State::Lists "{folder}/lists";\n'
        f'Dir::State::Status "{folder}/status";\n'
        f'Dir::Cache "{folder}";\n'
        'APT::Sandbox::User "root";\n'
    )
    with mock.patch.dict(os.environ, APT_CONFIG=str(configuration)):
        # It may fail, as when a mirror lacks one of the indices: the others may do.
        subprocess.run(["apt-get", "update"], capture_output=True, check=False)
        yield


def _loader(
    name: str,
    entry: Entry,
    architecture: str,
    options: str,
    more: str = "",
    *,
    cpu: str = "max",
    memory: int = _MEMORY,
) -> Loader:
    return Loader(name, entry, _kexec(architecture, options, more, cpu), memory=memory)


# A relocatable kernel goes to the first multiple of its kernel_alignment from 0x100000 on, with
# the probe 0x200000; any other to 0x100000. But one that has a 64-bit entry, and may be loaded
# above 4 GiB, goes as near to the end of RAM as it can, relocatable or not, and is entered there.
KEXEC: Final = _loader("kexec", "32-bit", "amd64", _LOAD)
KEXEC_I386: Final = _loader("kexec-i386", "32-bit", "i386", _LOAD)
# Those kernels only, by the kernel's own loader: at 16 MiB or above, from the end of RAM, too.
# It refuses one without XLF_5LEVEL where there are five levels of page tables.
_FILE: Final = "--load --kexec-file-syscall"
KEXEC_FILE: Final = _loader("kexec-file", "64-bit", "amd64", _FILE, cpu="max,la57=off")
# Those kernels as any other.
KEXEC_32: Final = _loader("kexec-entry-32bit", "32-bit", "amd64", f"{_LOAD} --entry-32bit")
# By the setup code. kexec puts the command line where Linux's own setup code writes over it; the
# probe's leaves it alone.
KEXEC_16: Final = _loader("kexec-real-mode", "16-bit", "amd64", f"{_LOAD} --real-mode")
# From 32 MiB on: for a 64-bit entry only, as all else needs a place below 1 MiB for its parameters
# and is refused, relocatable or not ("Could not find a free area of memory").
KEXEC_MEM_MIN: Final = _loader("kexec-mem-min", "64-bit", "amd64", f"{_LOAD} --mem-min=0x2000000")
# 0x1000000 for a relocatable kernel; any other is refused: "Invalid memory segment 0x100000".
KEXEC_HOLE: Final = _loader("kexec-hole", "32-bit", "amd64", _LOAD, _HOLE)
KEXEC_HOLE_I386: Final = _loader("kexec-hole-i386", "32-bit", "i386", _LOAD, _HOLE)
# 0x4000000 for a relocatable kernel; any other is refused: "BzImage is not relocatable".
KEXEC_CRASH: Final = _loader(
    "kexec-crash", "32-bit", "amd64", _LOAD_PANIC, _CRASH, memory=_CRASH_MEMORY
)
KEXEC_CRASH_I386: Final = _loader(
    "kexec-crash-i386", "32-bit", "i386", _LOAD_PANIC, _CRASH, memory=_CRASH_MEMORY
)

ALL: Final = (
    KEXEC,
    KEXEC_I386,
    KEXEC_FILE,
    KEXEC_32,
    KEXEC_16,
    KEXEC_HOLE,
    KEXEC_HOLE_I386,
    KEXEC_CRASH,
    KEXEC_CRASH_I386,
)
