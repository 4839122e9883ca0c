"""Reads an ISO image by other people's tools, and by the specifications: what the tests of target
`iso` hold it to. And makes them.
"""

import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fakekernel import filler, image
from missing import missing

from pybuild import build
from pybuild.plan import Plan
from pybuild.targets import Options

CD_SECTOR: Final = 2048
SECTOR: Final = 512
TEXT: Final = "root=/dev/ram0 quiet"
PACKAGES: Final = {"xorriso": "xorriso", "isoinfo": "genisoimage", "sfdisk": "fdisk"}

KERNEL: Final = ("bzImage", image(relocatable_kernel=1))
# Initrds with odd names and sizes.
SEVERAL: Final = (
    ("initrd.img", filler(5001, 3)),
    ("initrd.img", b""),
    ("initrd.img", filler(2048, 4)),
    ("größe 2:1.cpio", filler(7, 5)),
    ("x" * 250, filler(2049, 6)),
)

_BOOT_RECORD: Final = 17  # the CD's sector: El Torito 1.0, "Boot Record Volume Descriptor"
_CATALOG_AT: Final = 0x47
_BOOT_ID: Final = struct.Struct("<4sQIHB")  # boot_id in asm/include/loadtable.inc, at 4
_TABLE: Final = struct.Struct("<IIQ")  # load_table
_ENTRY: Final = struct.Struct("<QQQI12s")  # load_entry


def run(tool: str, *arguments: str | Path) -> str:
    """What a tool prints, on either stream; it has to end well."""
    if shutil.which(tool) is None:
        missing(f"{tool} is not installed; apt-get install {PACKAGES[tool]}")
    done = subprocess.run([tool, *arguments], capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    return said


def unpacked(image: Path, folder: Path) -> dict[str, bytes]:
    """Every file by its Rock Ridge path, as xorriso reads it."""
    run("xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", folder)
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    run("chmod", "-R", "u+w", folder)  # they are read-only on the CD
    return found


def listed(image: Path, *options: str) -> list[str]:
    """The paths that isoinfo finds: `-R` by Rock Ridge, `-J` by Joliet."""
    return run("isoinfo", "-i", image, "-f", *options).splitlines()


def joliet_file(image: Path, path: str) -> bytes:
    """A file's content by its Joliet path."""
    return subprocess.run(
        ["isoinfo", "-i", image, "-J", "-x", path], capture_output=True, check=True
    ).stdout


@dataclass(frozen=True)
class Entry:
    """An entry of the load table."""

    name: str
    lba: int
    size: int
    address: int
    checksum: int


@dataclass(frozen=True)
class BootId:
    """What our boot sector says of itself."""

    loader_lba: int
    loader_sum: int
    loader_sectors: int
    sector_shift: int


def boot_id(sector: bytes) -> BootId:
    magic, *fields = _BOOT_ID.unpack_from(sector, 4)
    assert magic == b"Bspt"
    return BootId(*fields)


def el_torito(image: bytes) -> int:
    """The CD sector of the boot image; the catalog must be as El Torito 1.0 has it."""
    record = image[_BOOT_RECORD * CD_SECTOR :][:CD_SECTOR]
    assert record[:39] == b"\0CD001\x01EL TORITO SPECIFICATION".ljust(39, b"\0")
    (catalog_at,) = struct.unpack_from("<I", record, _CATALOG_AT)
    catalog = image[catalog_at * CD_SECTOR :][:CD_SECTOR]
    assert catalog[0] == 1  # validation entry
    assert catalog[1] == 0  # for 80x86
    assert catalog[0x1E:0x20] == b"\x55\xaa"
    assert sum(struct.unpack("<16H", catalog[:0x20])) & 0xFFFF == 0
    indicator, media, segment, system, _, count, lba = struct.unpack_from("<BBHBBHI", catalog, 0x20)
    assert (indicator, media, segment, system) == (0x88, 0, 0, 0)  # bootable, no emulation
    assert count == 4  # sectors of 512 bytes: every BIOS can do that
    assert not any(catalog[0x40:])
    assert isinstance(lba, int)
    return lba


def loader(image: bytes, sector: bytes) -> bytes:
    """The loader that a boot sector of ours reads."""
    said = boot_id(sector)
    size = 1 << said.sector_shift
    start = said.loader_lba * size
    return image[start : start + said.loader_sectors * size]


def table(loader_bytes: bytes, code_size: int) -> tuple[int, int, list[Entry]]:
    """The load table behind the loader's code: its needs, its total and its entries."""
    at = -(-code_size // 16) * 16
    count, needs, total = _TABLE.unpack_from(loader_bytes, at)
    at += _TABLE.size
    raw = [_ENTRY.unpack_from(loader_bytes, at + n * _ENTRY.size) for n in range(count)]
    assert not any(loader_bytes[at + count * _ENTRY.size :])
    entries = [
        Entry(name.rstrip(b"\0").decode(), lba, size, address, checksum)
        for lba, size, address, checksum, name in raw
    ]
    return needs, total, entries


@dataclass(frozen=True)
class Made:
    """An ISO, and what it was made of."""

    path: Path
    plan: Plan
    kernel: bytes
    initrds: list[bytes] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @property
    def entries(self) -> list[Entry]:
        """The load table's entries, by way of the El Torito boot sector."""
        return self.table[2]

    @property
    def table(self) -> tuple[int, int, list[Entry]]:
        cd_sector = self.data[el_torito(self.data) * CD_SECTOR :][:CD_SECTOR]
        code = build.code()["real/loader"].code
        return table(loader(self.data, cd_sector), len(code))

    def read(self, entry: Entry) -> bytes:
        """An entry's bytes in the file."""
        return self.data[entry.lba * SECTOR :][: entry.size]


def make(
    folder: Path,
    *initrds: tuple[str, bytes],
    kernel: tuple[str, bytes] = KERNEL,
    options: Options | None = None,
    machine: str = "pc",
    out: str = "out.iso",
) -> Made:
    """Makes an ISO; initrds with equal names lie in different folders."""
    inputs = folder / "inputs"
    paths = []
    for number, (name, data) in enumerate([kernel, *initrds]):
        paths.append(inputs / str(number) / name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(data)
    order = build.Order(
        kernel=paths[0],
        initrds=tuple(paths[1:]),
        cmdline=TEXT,
        machine=machine,
        target="iso",
        options=options or {},
    )
    plan = build.build(order, folder / out)
    return Made(folder / out, plan, kernel[1], [data for _, data in initrds])
