import subprocess
import sys
from pathlib import Path

import pytest
from elffile import LD_SO, module, shared_object
from nasm import assemble, tool

from pybuild.errors import BuildError
from pybuild.xen import elf


def test_what_a_real_program_needs() -> None:
    python = Path(sys.executable).resolve()
    listed = subprocess.run(
        [tool("readelf"), "-dl", str(python)], capture_output=True, text=True, check=True
    ).stdout
    needed = elf.needed(python)
    assert "libc.so.6" in needed
    assert [f"Shared library: [{name}]" in listed for name in needed] == [True] * len(needed)
    assert listed.count("(NEEDED)") == len(needed)
    assert f"interpreter: {elf.interpreter(python)}]" in listed


def test_what_our_own_programs_need(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(shared_object(tmp_path, "p", ["libtwo.so.2", "libone.so.1"], LD_SO))
    assert elf.needed(path) == ("libtwo.so.2", "libone.so.1")
    assert elf.interpreter(path) == LD_SO
    path.write_bytes(shared_object(tmp_path, "alone.so"))
    assert (elf.needed(path), elf.interpreter(path)) == ((), None)
    static = assemble(tmp_path, "global _start\n_start: ret", "elf64")
    subprocess.run([tool("ld"), "-o", str(path), str(static)], check=True)
    assert (elf.needed(path), elf.interpreter(path)) == ((), None)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF"])
def test_what_is_no_elf_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    for ask in (elf.needed, elf.interpreter):
        with pytest.raises(BuildError, match="file: not a readable ELF file"):
            ask(tmp_path / "file")
    with pytest.raises(BuildError, match="kernel module: not a readable ELF file"):
        elf.module_depends(content)


@pytest.mark.parametrize(
    ("depends", "names"),
    [("", ()), ("virtio", ("virtio",)), ("crc-t10dif,t10_pi", ("crc_t10dif", "t10_pi"))],
)
def test_what_a_kernel_module_needs(tmp_path: Path, depends: str, names: tuple[str, ...]) -> None:
    assert elf.module_depends(module(tmp_path, depends)) == names


def test_object_that_is_no_kernel_module(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="field depends"):
        elf.module_depends(assemble(tmp_path, "nop", "elf64").read_bytes())
