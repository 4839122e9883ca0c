"""The wheel: the same bytes wherever it is made, and all that a machine without NASM needs."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from fakekernel import image, probe
from intodisk import disk_of

from pybuild import __version__, build, paths, targets
from pybuild.build import Order

_NAME: Final = f"bootsplice-{__version__}"
# What `boot` and `debug` run, and nothing else is on PATH: not NASM, not qemu-img.
_PROGRAMS: Final = ("qemu-system-x86_64", "setpriv", "gdb")


@dataclass(frozen=True)
class Dist:
    """What hatchling makes of the project."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Installed:
    """A fresh virtual environment that has the wheel and what it depends on."""

    folder: Path

    def run(self, room: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The command, in an environment where nothing says where a checkout or NASM is."""
        environment = {
            "PATH": str(self.folder / "programs"),
            "HOME": str(self.folder / "home"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [self.folder / "venv/bin/bootsplice", *arguments],
            cwd=room,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    def files(self) -> dict[str, tuple[int, int]]:
        """Each file below the folder, with its size and its last change."""
        found = {path: path.lstat() for path in self.folder.rglob("*") if not path.is_dir()}
        return {str(path): (s.st_size, s.st_mtime_ns) for path, s in found.items()}


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


def hatchling(root: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *arguments],
        cwd=root,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    """The wheel and the sdist, made in the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    done = hatchling(paths.ROOT, "-d", str(folder), path=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    return Dist(folder / f"{_NAME}-py3-none-any.whl", folder / f"{_NAME}.tar.gz")


@pytest.fixture(scope="module")
def installed(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, installed with pip."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv")
    python = folder / "venv/bin/python"
    pip("--python", python, "install", "-q", "--no-compile", dist.wheel)
    (folder / "programs").mkdir()
    for name in _PROGRAMS:
        if found := shutil.which(name):
            (folder / "programs" / name).symlink_to(found)
    return Installed(folder)


def test_the_wheel_has_what_is_read_of_the_flat_binaries(dist: Dist) -> None:
    with zipfile.ZipFile(dist.wheel) as wheel:
        names = set(wheel.namelist())
        texts = b"".join(wheel.read(name) for name in names)
    sources = {str(path.relative_to(paths.ROOT)) for path in paths.ROOT.glob("asm/*/*.asm")}
    assert {f"pybuild/{source}" for source in sources} <= names
    assert {name for name in names if name.startswith("pybuild/assembled/")} == {
        f"pybuild/assembled/{source.removeprefix('asm/').removesuffix('.asm')}{suffix}"
        for source in sources
        for suffix in (".bin", ".rel.json", ".lines.json")
    }
    assert "pybuild/wheel.py" not in names
    assert str(paths.ROOT).encode() not in texts


def test_a_wheel_of_the_sdist_is_the_same(dist: Dist, tmp_path: Path) -> None:
    """It is made in another folder, where nothing is assembled yet."""
    umask = os.umask(0o077)
    try:
        pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, dist.sdist)
    finally:
        os.umask(umask)
    assert (tmp_path / dist.wheel.name).read_bytes() == dist.wheel.read_bytes()


def test_a_wheel_is_not_made_without_nasm(dist: Dist, tmp_path: Path) -> None:
    shutil.unpack_archive(dist.sdist, tmp_path)
    done = hatchling(tmp_path / _NAME, "-t", "wheel", path=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("bootsplice: nasm is not installed; ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.whl"))


@pytest.mark.boot
def test_images_are_those_of_the_checkout_and_boot(installed: Installed, tmp_path: Path) -> None:
    """Byte for byte, made from a package where nothing is written, without a cache."""
    kernel = probe("2.10", tmp_path / "probe")  # not relocatable
    before = installed.files()
    for name in ("disk.img", "cd.iso", "k.bzImage", "ram"):
        here = tmp_path / "here" / name
        target = "ram" if name == "ram" else targets.of_output(here)
        order = ("--initrd", kernel, "--machine", "xen-hvm", "--target", target)
        installed.run(tmp_path, "build", kernel, *order, "-o", name)
        build.build(Order(kernel, (kernel,), machine="xen-hvm", target=target), here)
        for path in here.iterdir() if here.is_dir() else [here]:
            made = tmp_path / path.relative_to(tmp_path / "here")
            assert made.read_bytes() == path.read_bytes()
    for name in ("disk.img", "cd.iso"):
        assert "end=ok" in installed.run(tmp_path, "boot", name, "--expect", "end=ok").stdout
    assert installed.files() == before


def test_the_other_commands(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(image())
    assert installed.run(tmp_path, "--version").stdout == f"bootsplice, version {__version__}\n"

    fields = json.loads(installed.run(tmp_path, "inspect", "kernel", "--json").stdout)["fields"]
    assert fields["code32_start"]["value"] == 0x100000

    disk = tmp_path / "disk.img"
    before = disk_of("mbr", disk)[:512]
    installed.run(tmp_path, "build", "kernel", "--into", disk)
    assert disk.read_bytes()[:512] != before
    assert str(disk) in installed.run(tmp_path, "xl", disk).stdout
    installed.run(tmp_path, "restore", disk)
    assert disk.read_bytes()[:512] == before

    told = json.loads(installed.run(tmp_path, "plan", "kernel", "--json").stdout)
    assert told["kernel"] == "kernel"
    for found in ("asm/i386/relocator.asm", "assembled/real/early.bin"):
        (path,) = installed.folder.glob(f"venv/lib/*/site-packages/pybuild/{found}")
        assert ": contract kept\n" in installed.run(tmp_path, "trace", path).stdout

    assert "_BOOTSPLICE_COMPLETE" in installed.run(tmp_path, "completion", "zsh").stdout
    assert "not there yet" in installed.run(tmp_path, "lab", "xen", "--status").stdout


@pytest.mark.boot
def test_gdb_has_no_source_lines_where_there_are_no_objects(
    installed: Installed, tmp_path: Path
) -> None:
    """It is said; and all else is as in a checkout, the line of the place, too."""
    kernel = probe("2.10", tmp_path / "probe")
    order = ("build", kernel, "--machine", "xen-hvm", "--target", "ram", "-o", "ram")
    installed.run(tmp_path, *order)
    done = installed.run(tmp_path, "debug", "ram", "--memory", "64", "--", "-nic", "none")
    place = r": stopped at hook \(0x\w+, 32-bit\): asm/i386/relocator\.asm:\d+\n"
    assert re.search(place, done.stderr)
    assert "an installed bootsplice has no source lines for gdb; a checkout has\n" in done.stderr
    assert re.search(r"=> 0x\w+:\tcld *\n.*:\tcli *\n", done.stdout)
