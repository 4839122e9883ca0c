"""The originals under other people's loaders: what bootsplice's images are held to beside them."""

import zlib
from collections.abc import Callable
from pathlib import Path

import loaders
import pytest
from booting import named, report
from loaders import Loader
from probes import original, value

from pybuild import paths

pytestmark = pytest.mark.boot

CMDLINE = "probe=1 hello world"
INITRD = paths.ROOT / "LICENSE"

# Where each puts a relocatable kernel, if it is not 0x100000.
ELSEWHERE = {"grub-cutmem": 0x1000000}


def check_probe(name: str, said: dict[str, str], address: int) -> None:
    """All of the kernel, the command line and the initrd arrived, and it runs at the address."""
    assert value(said, "run") == address
    assert value(said, "crc") == zlib.crc32(original(named(name)).protected)
    assert f" {CMDLINE} " in f" {said['cmdline']} "
    assert value(said, "initrd_crc") == zlib.crc32(INITRD.read_bytes())


@pytest.mark.parametrize("name", ["probe-2.10", "probe-relocatable"])
@pytest.mark.parametrize("loader", loaders.ALL, ids=str)
def test_probe(loader: Loader, name: str, built: Callable[[str], Path], tmp_path: Path) -> None:
    built(f"{name}.pc")
    kernel = paths.BUILD / "kernels" / f"{name}.bin"
    result = loader.boot(kernel, expect="^end=ok", room=tmp_path, initrd=INITRD, cmdline=CMDLINE)
    said = report(result.serial)
    assert ("setup" in said) is (loader.entry != "16-bit")
    elsewhere = name == "probe-relocatable" and ELSEWHERE.get(loader.name)
    check_probe(name, said, elsewhere or 0x100000)
