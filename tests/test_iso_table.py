"""Target `iso`: the load table in it, and whether what the table says boots."""

import zlib
from pathlib import Path

import pytest
import xxhash
from booting import boot, report
from fakekernel import filler, image, probe
from isofile import SECTOR, SEVERAL, TEXT, Made, make, unpacked

from pybuild.errors import InputError

MIB = 1 << 20


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An ISO with initrds of odd names and sizes."""
    return make(tmp_path_factory.mktemp("several"), *SEVERAL)


def initrds_in_memory(initrds: list[bytes]) -> bytes:
    """As the kernel's cpio reader wants them: each behind the first at a multiple of 4."""
    return b"".join(data + bytes(-len(data) % 4) for data in initrds[:-1]) + initrds[-1]


def check_table(made: Made) -> None:
    """What the loader will read is right, each byte of it, and lies in the file as it says."""
    needs, total, entries = made.table
    assert needs == made.plan.long_mode
    assert all(entry.size for entry in entries)
    read = [entry for entry in entries if entry.lba]
    assert total == sum(entry.size for entry in read)
    for entry in read:
        assert len(made.read(entry)) == entry.size > 0
        assert xxhash.xxh32_intdigest(made.read(entry)) == entry.checksum

    setup_size = made.kernel[0x1F1] * SECTOR + SECTOR
    setup = bytearray(made.kernel[:setup_size])
    for patch in made.plan.patches:
        setup[patch.offset : patch.offset + patch.size] = patch.new.to_bytes(patch.size, "little")
    expected = {
        "setup": bytes(setup),
        "cmdline": TEXT.encode() + b"\0",
        "kernel": made.kernel[setup_size:],
    }
    if any(made.initrds):
        expected["initrd"] = initrds_in_memory(made.initrds)
    loaded: dict[str, bytes] = {}
    for entry in read:
        start = made.plan.load(entry.name)
        assert start is not None
        assert entry.address == start.address + len(loaded.get(entry.name, b""))
        loaded[entry.name] = loaded.get(entry.name, b"") + made.read(entry)
    assert list(loaded)[-1] == "bootsect"
    bootsect = loaded.pop("bootsect")
    assert bootsect[510:] == b"\x55\xaa"
    assert loaded == expected
    assert {load.part: load.size for load in made.plan.loads} == {
        name: len(data) for name, data in [*loaded.items(), ("bootsect", bootsect)]
    }


def test_table(several: Made) -> None:
    check_table(several)
    names = [entry.name for entry in several.entries if entry.lba]
    assert names == ["setup", "cmdline", "kernel", *["initrd"] * 4, "bootsect"]


def test_table_names_what_must_be_ram(several: Made) -> None:
    memory = {e.name: (e.address, e.size) for e in several.entries if not e.lba}
    runtime = several.plan.runtime
    assert memory["init_size"] == (runtime.start, runtime.size)


def test_an_early_stage_is_read_too(tmp_path: Path) -> None:
    kernel = ("memdisk", image(0x203, code32_start=0x100000))
    made = make(tmp_path, ("a", b"initrd"), kernel=kernel, machine="xen-hvm")
    if made.plan.load("early") is None:
        pytest.fail("this kernel was to have an early stage")
    (entry,) = (e for e in made.entries if e.name == "early")
    assert xxhash.xxh32_intdigest(made.read(entry)) == entry.checksum
    names = [entry.name for entry in made.entries if entry.lba]
    assert names == ["setup", "cmdline", "early", "kernel", "initrd", "bootsect"]


SIZES = [0, 1, 3, 4, 511, 512, 513, 2047, 2048, 2049, 4096, 127 * SECTOR, 127 * SECTOR + 1]


@pytest.mark.parametrize("size", [*SIZES, 1 << 16, MIB + 1])
def test_sizes(size: int, tmp_path: Path) -> None:
    made = make(
        tmp_path,
        ("a.img", filler(size, 7)),
        ("b.img", filler(size + 1, 8)),
        kernel=("k", image(protected=size or 1, relocatable_kernel=1)),
    )
    check_table(made)


def test_without_initrds(tmp_path: Path) -> None:
    check_table(make(tmp_path))


def test_only_empty_initrds(tmp_path: Path) -> None:
    made = make(tmp_path, ("a", b""), ("b", b""))
    check_table(made)
    assert unpacked(made.path, tmp_path / "files")["b"] == b""


def test_as_many_initrds_as_the_table_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too many for the loader's table") as raised:
        make(tmp_path, *((f"{n}", b"x") for n in range(500)))
    fit = int(str(raised.value).split("table, ")[1].split()[0])
    assert not (tmp_path / "out.iso").exists()
    others = sum(1 for entry in make(tmp_path).entries)
    names = [(f"initrd-{n:03}-" + "n" * 200, b"%d" % n) for n in range(fit - others)]
    made = make(tmp_path, *names)
    check_table(made)
    files = unpacked(made.path, tmp_path / "files")
    assert all(files[name] == data for name, data in names)
    with pytest.raises(InputError, match="are too many"):
        make(tmp_path, *names, ("one more", b"x"))


@pytest.mark.boot
@pytest.mark.parametrize("drive", ["cdrom", "ide"])
def test_boots(drive: str, tmp_path: Path) -> None:
    kernel = probe("2.10", tmp_path / "build")
    initrds = [filler(2049, 1), b"", filler(70_001, 2), filler(6, 3)]
    named = [("initrd.img", data) for data in initrds]
    made = make(tmp_path, *named, kernel=("probe", kernel.read_bytes()))
    said = report(boot(made.path, "end=ok", drive=drive))  # type: ignore[arg-type]
    assert said["cmdline"] == TEXT
    assert int(said["initrd_crc"], 0) == zlib.crc32(initrds_in_memory(initrds))
