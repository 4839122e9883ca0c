"""Disk images in the forms that qemu-img makes."""

import re
import subprocess
from pathlib import Path

import pytest
from diskimage import make, noise, parse, write
from disks import tool

from pybuild import assembler
from pybuild.errors import BuildError

FORMATS = ("qcow2", "vmdk", "vdi", "vhdx")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [100, 5_000_000])
def test_other_forms_are_the_same_disk_and_always_the_same(
    tmp_path: Path, form: str, size: int
) -> None:
    qemu_img = tool("qemu-img")
    content = (noise(size),)
    seen = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        made = make(tmp_path / folder, f"disk.{form}", content)
        seen.append(made.read_bytes())
        names = {"kernel", "initrd0", made.name}
        assert {path.name for path in made.parent.iterdir()} == names
    assert seen[0] == seen[1]
    raw = make(tmp_path / "one", "disk.img", content)
    assert parse(raw.read_bytes()).part("initrd") == content[0]
    for command in (
        ["compare", "-f", "raw", "-F", form, str(raw), str(made)],
        ["check", "-f", form, str(made)],
    ):
        subprocess.run([qemu_img, *command], capture_output=True, check=True)
    other = make(tmp_path / "two", f"other.{form}", (noise(size, 2),))
    assert other.read_bytes()[:0x400000] != seen[0][:0x400000]


def test_the_name_in_a_vmdk(tmp_path: Path) -> None:
    tool("qemu-img")
    made = make(tmp_path, 'my "d\u00efsk.VMDK').read_bytes()
    assert re.search(rb'^RW \d+ SPARSE "my__d_sk.VMDK"$', made[:20000], re.MULTILINE)


def test_qemu_img_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = write(
        tmp_path, "qemu-img", b"#!/bin/sh\necho 'qemu-img: no' >&2\necho space >&2\nexit 1\n"
    )
    bad.chmod(0o755)
    old = write(tmp_path, "out.vdi", b"old")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(BuildError, match=r"out\.vdi: not written: qemu-img: no space"):
            make(tmp_path, "out.vdi")
        patched.setenv("PATH", "/nonexistent")
        patched.setattr(assembler, "build", lambda *_: [])
        with pytest.raises(BuildError, match="apt-get install qemu-utils"):
            make(tmp_path, "out.vdi")
    assert old.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "qemu-img", "out.vdi"}
