"""ELF files of our own, small and real: what they hold is which others they need."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from nasm import assemble, tool

LD_SO = "/lib64/ld-linux-x86-64.so.2"


def shared_object(
    folder: Path, soname: str, needs: Sequence[str] = (), interpreter: str | None = None
) -> bytes:
    """A shared library, or with an interpreter a program, that needs libraries."""
    folder = folder / f"elf-{soname}"
    folder.mkdir()
    linker = [tool("ld"), "--no-as-needed"]
    for name in needs:
        empty = assemble(folder, "section .text", "elf64")
        stub = ["-shared", "-soname", name, "-o", str(folder / name), str(empty)]
        subprocess.run([*linker, *stub], check=True)
    main = assemble(folder, "section .text\nglobal _start\n_start: ret", "elf64")
    kind = ["-dynamic-linker", interpreter] if interpreter else ["-shared", "-soname", soname]
    inputs = [str(main), *(str(folder / name) for name in needs)]
    subprocess.run([*linker, *kind, "-o", str(folder / "made"), *inputs], check=True)
    return (folder / "made").read_bytes()


def module(folder: Path, depends: str) -> bytes:
    fields = f"section .modinfo\ndb 'license=GPL', 0, 'depends={depends}', 0, 'name=x', 0\n"
    return assemble(folder, fields, "elf64").read_bytes()
