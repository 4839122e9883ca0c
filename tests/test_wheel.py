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
    arguments = ["build", str(kernel), "--machine", "xen-hvm", "-o", str(tmp_path / "out")]
    run = subprocess.run(
        [sys.executable, "-m", "pybuild.cli", *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "cache" / "build" / "i386" / "relocator.bin").exists()

    build.build(build.Order(kernel, machine="xen-hvm"), tmp_path / "here")
    for path in (tmp_path / "here").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
