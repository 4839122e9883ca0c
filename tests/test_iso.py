"""Target `iso`: what other people's tools read in it, and what its loader will."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import isofile
import pytest
from fakekernel import image
from isofile import (
    CD_SECTOR,
    SECTOR,
    SEVERAL,
    TEXT,
    Made,
    el_torito,
    joliet_file,
    listed,
    loader,
    make,
    unpacked,
)

from pybuild import iso9660
from pybuild.errors import InputError

MIB = 1 << 20
CYLINDER = 16 * 63 * SECTOR
ENVIRONMENT = ("SOURCE_DATE_EPOCH", "TZ")


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """The machine's own date and time zone, again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        yield
    time.tzset()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An ISO with initrds of odd names and sizes."""
    return make(tmp_path_factory.mktemp("several"), *SEVERAL)


def test_a_mounted_iso_shows_the_files(several: Made, tmp_path: Path) -> None:
    files = unpacked(several.path, tmp_path / "files")
    boot_file, catalog = files.pop("bootsplice/loader.bin"), files.pop("bootsplice/boot.cat")
    assert boot_file[510:512] == b"\x55\xaa"
    assert len(catalog) == CD_SECTOR
    assert files == {
        "bzImage": several.kernel,  # nothing has to be spliced into this one
        "initrd.img": several.initrds[0],
        "initrd-2.img": several.initrds[1],
        "initrd-3.img": several.initrds[2],
        "größe 2_1.cpio": several.initrds[3],
        "x" * 250: several.initrds[4],
        "bootsplice/cmdline.txt": TEXT.encode() + b"\n",
        "bootsplice/plan.json": several.plan.to_json().encode(),
    }


def test_windows_sees_the_same_files(several: Made) -> None:
    rock_ridge = {path[1:] for path in listed(several.path, "-R")}
    joliet = {path[1:] for path in listed(several.path, "-J")}
    assert {path for path in rock_ridge ^ joliet if path.isascii()} == {"x" * 250, "x" * 64}
    assert joliet_file(several.path, "/initrd-3.img") == several.initrds[2]
    assert joliet_file(several.path, "/" + "x" * 64) == several.initrds[4]
    assert joliet_file(several.path, "/bzImage") == several.kernel


def test_an_initrd_called_as_our_folder_gives_way(tmp_path: Path) -> None:
    made = make(tmp_path, ("BootSplice", b"one"), ("bzImage", b"two"))
    files = unpacked(made.path, tmp_path / "files")
    assert files["BootSplice-2"] == b"one"
    assert files["bzImage-2"] == b"two"
    assert "bootsplice/loader.bin" in files


def test_spliced_kernel(tmp_path: Path) -> None:
    """The file is the image with the relocator, which any other loader can boot, too."""
    made = make(tmp_path, kernel=("vmlinuz", image(pref_address=0x100000)), machine="xen-hvm")
    spliced = unpacked(made.path, tmp_path / "files")["vmlinuz"]
    setup_size = spliced[0x1F1] * SECTOR + SECTOR
    assert spliced[setup_size:].startswith(made.kernel[setup_size:])
    assert len(spliced) > len(made.kernel)
    (entry,) = (e for e in made.entries if e.name == "kernel")
    assert made.read(entry) == spliced[setup_size:]


def test_xorriso_finds_the_boot_image(several: Made) -> None:
    said = isofile.run("xorriso", "-indev", several.path, "-report_el_torito", "plain")
    lba = el_torito(several.data)
    assert f"El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4  {lba:10d}" in said
    assert "El Torito img path :   1  /bootsplice/loader.bin" in said
    assert "El Torito cat path : /bootsplice/boot.cat" in said
    said = isofile.run("xorriso", "-indev", several.path, "-find", "/", "-exec", "report_lba")
    assert f"File data lba:  0 , {lba:8d} ," in said


def test_boot_sectors_read_the_same_loader(several: Made) -> None:
    data = several.data
    place = el_torito(data)
    for_cd, for_disk = data[place * CD_SECTOR :][:CD_SECTOR], data[:SECTOR]
    assert not any(for_cd[SECTOR:])
    assert not any(data[SECTOR : 16 * CD_SECTOR])  # the rest of the system area
    cd, disk = isofile.boot_id(for_cd), isofile.boot_id(for_disk)
    assert (cd.sector_shift, disk.sector_shift) == (11, 9)
    assert (cd.loader_lba, disk.loader_lba) == (place + 1, (place + 1) * 4)
    assert disk.loader_sectors == cd.loader_sectors * 4
    assert disk.loader_sum == cd.loader_sum
    assert loader(data, for_disk) == loader(data, for_cd)


def test_hybrid_partition(several: Made, tmp_path: Path) -> None:
    table = json.loads(isofile.run("sfdisk", "--json", several.path))["partitiontable"]
    size = len(several.data)
    assert size % CYLINDER == 0
    assert table["label"] == "dos"
    assert int(table["id"], 16)
    (partition,) = table["partitions"]
    del partition["node"]
    whole = {"start": 0, "size": size // SECTOR, "type": "17", "bootable": True}
    assert partition == whole
    said = isofile.run("xorriso", "-indev", several.path, "-report_system_area", "plain")
    assert f"MBR partition      :   1   0x80  0x17            0 {size // SECTOR:12d}" in said
    other = make(tmp_path, ("initrd.img", b"other"))
    assert other.data[0x1B8:0x1BC] != several.data[0x1B8:0x1BC]  # the disk signature


def end_of_files(made: Made) -> int:
    """The CD sector behind the last that anything is in."""
    said = isofile.run("xorriso", "-indev", made.path, "-find", "/", "-exec", "report_lba")
    rows = re.findall(r"^File data lba: +0 , +(\d+) , +(\d+) ,", said, re.MULTILINE)
    return max(int(start) + int(sectors) for start, sectors in rows)


@pytest.mark.parametrize("left_over", [0, 1, 149, 150])
def test_a_cd_drive_can_read_ahead(left_over: int, tmp_path: Path) -> None:
    """150 sectors behind the last file, in whole cylinders; all of it is the volume's."""
    made = make(tmp_path, ("initrd.img", b"x"))
    more = len(made.data) // CD_SECTOR - end_of_files(made) - left_over
    made = make(tmp_path, ("initrd.img", bytes((more + 1) * CD_SECTOR)))
    size = len(made.data) // CD_SECTOR
    assert (size * CD_SECTOR) % CYLINDER == 0
    assert size - end_of_files(made) == (150 if left_over == 150 else left_over + 252)
    said = isofile.run("isoinfo", "-d", "-i", made.path)
    assert f"Volume size is: {size}\n" in said


def test_same_inputs_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(tmp_path / "first", *SEVERAL).data
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    second = make(Path("deeper"), *SEVERAL, out="other.iso")
    for path in Path("deeper/inputs").rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert second.data == first
    assert str(tmp_path).encode() not in first


@pytest.mark.parametrize(
    ("epoch", "date", "file_date"),
    [
        (None, "1980010100000000", "Jan  1 1980"),
        ("0", "0000000000000000", "Jan  1 1970"),
        ("1700000000", "2023111422132000", "Nov 14 2023"),
        ("5869583999", "2155123123595900", "Dec 31 2155"),
    ],
)
def test_dates(
    epoch: str | None, date: str, file_date: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    if epoch is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    made = make(tmp_path, ("initrd.img", b"x"))
    monkeypatch.setenv("TZ", "UTC")  # of the tools
    said = isofile.run("xorriso", "-indev", made.path, "-pvd_info")
    for name in ("Creation Time:", "Modif. Time  :", "Eff. Time    :"):
        assert f"{name} {date}" in said
    for options in ("-R", "-J"):
        lines = isofile.run("isoinfo", "-i", made.path, "-l", options).splitlines()
        records = [line for line in lines if line[:1] in ("-", "d")]
        assert len(records) == 11
        assert all(file_date in line for line in records), lines


@pytest.mark.parametrize(
    "epoch", ["", "-1", "1e9", "5869584000", "\uff19", "9" * 5000, "yesterday"]
)
def test_no_date(epoch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(InputError, match=r"^SOURCE_DATE_EPOCH=.*expected seconds since 1970"):
        make(tmp_path)
    assert not (tmp_path / "out.iso").exists()


@pytest.mark.parametrize(
    "volume_id", ["A", "LIVE_2024", "X" * 16, "THIRTY_TWO_CHARACTERS_ARE_ENOUGH"]
)
def test_volume_id(volume_id: str, tmp_path: Path) -> None:
    made = make(tmp_path, options={"volume-id": volume_id})
    assert f"Volume id: {volume_id}\n" in isofile.run("isoinfo", "-d", "-i", made.path)
    joliet = made.data[18 * CD_SECTOR :][:CD_SECTOR]  # ECMA-119 8.5, the Joliet specification
    assert joliet[:6] == b"\x02CD001"
    assert joliet[40:72].decode("utf-16-be").rstrip() == volume_id[:16]


def test_volume_id_of_no_choice(several: Made) -> None:
    assert "Volume id: BOOTSPLICE\n" in isofile.run("isoinfo", "-d", "-i", several.path)


@pytest.mark.parametrize("volume_id", ["", "X" * 33, "lower", "A B", "A-B", "Ä", "A\n", "1.0"])
def test_no_volume_id(volume_id: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^option volume-id is .*expected 1 to 32 of"):
        make(tmp_path, options={"volume-id": volume_id})
    assert not (tmp_path / "out.iso").exists()


def test_out_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "out.iso").mkdir()
    with pytest.raises(InputError, match=r"out\.iso: is a directory"):
        make(tmp_path)


def test_an_older_image_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "out.iso").write_bytes(bytes(5 * MIB))
    assert make(tmp_path).data == make(tmp_path, out="new.iso").data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs", "new.iso", "out.iso"]


@pytest.mark.parametrize("grown", [b"longer than it was", b"short", b"x" * 6])
def test_an_initrd_that_changes_meanwhile(
    grown: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initrd = tmp_path / "inputs" / "1" / "initrd.img"
    write = iso9660.write

    def change(*arguments: object, **keywords: object) -> iso9660.Places:
        initrd.write_bytes(grown)
        return write(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(iso9660, "write", change)
    (tmp_path / "out.iso").write_text("old")
    with pytest.raises(InputError, match=r"initrd\.img: .*changed while it was read"):
        make(tmp_path, ("initrd.img", b"123456"))
    assert (tmp_path / "out.iso").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs", "out.iso"]


LARGE = 700 * MIB
PEAK = """
import re, sys
from pathlib import Path
from pybuild import build
order = build.Order(Path(sys.argv[1]), (Path(sys.argv[2]),), target="iso")
build.build(order, Path(sys.argv[3]))
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_large_initrds_are_streamed(tmp_path: Path) -> None:
    kernel, initrd, out = tmp_path / "k", tmp_path / "initrd.img", tmp_path / "out.iso"
    kernel.write_bytes(image(relocatable_kernel=1))
    with initrd.open("wb") as stream:
        stream.truncate(LARGE)
        stream.seek(LARGE - 5)
        stream.write(b"at the end")
    command = [sys.executable, "-c", PEAK, str(kernel), str(initrd), str(out)]
    # Not by getrusage(2): what it says of a new program begins with what its parent had.
    peak = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert peak < 100 << 10
    assert out.stat().st_size > LARGE
    assert out.stat().st_blocks * SECTOR < 4 * MIB  # a hole stays a hole
    said = isofile.run("xorriso", "-indev", out, "-find", "/initrd.img", "-exec", "report_lba")
    assert f" {LARGE + 5} , '/initrd.img'" in said


def test_pycdlib_is_imported_only_when_it_writes() -> None:
    check = (
        "import sys; from pybuild import cli, targets; targets.names(); assert targets.get('iso');"
        "print('pycdlib' in sys.modules)"
    )
    command = [sys.executable, "-c", check]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert said == "False\n"
