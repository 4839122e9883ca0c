"""An installed bootsplice, away from any checkout, brings its assembler sources along."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from fakekernel import image

from pybuild import build, paths


def test_installed_package_builds_the_same_image(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path, paths.ROOT], check=True, timeout=120)
    (wheel,) = tmp_path.glob("bootsplice-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")

    kernel = tmp_path / "bzImage"
    kernel.write_bytes(image(setup_sects=4))
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "site"),
        "BOOTSPLICE_CACHE": str(tmp_path / "cache"),
    }

    def installed(target: str, out: str) -> Path:
        arguments = ["build", kernel, "--target", target, "--machine", "xen-hvm", "-o", out]
        run = subprocess.run(
            [sys.executable, "-m", "pybuild.cli", *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return tmp_path / out

    def here(target: str, out: str) -> Path:
        order = build.Order(kernel, machine="xen-hvm", target=target)
        build.build(order, tmp_path / "here" / out)
        return tmp_path / "here" / out

    (tmp_path / "here").mkdir()
    ram = installed("ram", "ram")
    assert (tmp_path / "cache" / "build" / "i386" / "relocator.bin").exists()
    for path in here("ram", "ram").iterdir():
        assert (ram / path.name).read_bytes() == path.read_bytes()
    for target, out in (("disk", "disk.img"), ("iso", "cd.iso")):
        assert installed(target, out).read_bytes() == here(target, out).read_bytes()
