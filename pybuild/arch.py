"""An architecture: a folder below asm/, and what its arch.toml says of all the sources in it.

description = "x86-64, long mode"   # for people; may be left out
bits = 64                           # the word size: of an address, of a general register
format = "elf64"                    # NASM's -f
enter = "long64"                    # the mode in which each source is entered
relocations = "x86_64"              # the ABI whose table the objects use: relocations.py has it
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild.errors import BuildError

FILE: Final = "arch.toml"
# What goes with a word size. A 16-bit source is an elf32 object, too (R_386_16 and so on).
_FITTING: Final[Mapping[int, Mapping[str, str]]] = {
    16: {"format": "elf32", "enter": "real16", "relocations": "i386"},
    32: {"format": "elf32", "enter": "protected32", "relocations": "i386"},
    64: {"format": "elf64", "enter": "long64", "relocations": "x86_64"},
}
MODES: Final = tuple(fitting["enter"] for fitting in _FITTING.values())
_NAMES: Final = ("format", "enter", "relocations")
_KEYS: Final = ("description", "bits", *_NAMES)


@dataclass(frozen=True, slots=True)
class Arch:
    """What an arch.toml says.

    Attributes:
        path: the arch.toml.
        description: for people.
        bits: the word size: 16, 32 or 64.
        format: NASM's output format.
        enter: the mode that the contract of each source must name.
        relocations: the table of its objects' relocation types, by its name in relocations.TABLES.
    """

    path: Path
    description: str
    bits: int
    format: str
    enter: str
    relocations: str


def read(path: Path) -> Arch:
    """Reads an arch.toml.

    Raises:
        BuildError: a key is missing, unknown or has a value that makes no sense, alone or beside
            the others.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8, no TOML
        raise BuildError(f"{path}: {error}") from error
    for key in table:
        if key not in _KEYS:
            raise BuildError(f"{path}: unknown key '{key}', expected one of {', '.join(_KEYS)}")
    description = table.get("description", "")
    if not isinstance(description, str):
        raise BuildError(f"{path}: description is {description!r}, expected text")
    bits = table.get("bits")
    if type(bits) is not int or bits not in _FITTING:
        raise _unexpected(path, table, "bits", list(_FITTING))
    for key in _NAMES:
        if table.get(key) != _FITTING[bits][key]:
            known = list(dict.fromkeys(fitting[key] for fitting in _FITTING.values()))
            if table.get(key) not in known:
                raise _unexpected(path, table, key, known)
            raise BuildError(
                f"{path}: {key} is {table[key]!r}, which does not go with bits = {bits}; "
                f"expected {_FITTING[bits][key]!r}"
            )
    return Arch(path, description, bits, **_FITTING[bits])


def _unexpected(
    path: Path, table: Mapping[str, object], key: str, known: list[int] | list[str]
) -> BuildError:
    found = f"{key} is {table[key]!r}" if key in table else f"{key} is missing"
    return BuildError(f"{path}: {found}, expected one of {', '.join(map(str, known))}")
