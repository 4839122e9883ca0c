"""Recipes: `kernels/*.toml`, each a kernel to build images from.

kernel = "bzImage"              # a material (see pybuild/material.py): a path or a table
initrd = ["initrd.img"]         # a list of materials; also called ramdisk, as XenD did
cmdline = "console=ttyS0"       # also called extra
machine = ["pc", "xen-hvm"]     # one image for each; profile names or TOML files
target = ["ram", "disk"]        # one image for each; targets' names (disk if not given)
options = { size = "64M" }      # for those targets that have them: `bootsplice build --help`
move = "auto"                   # or hook, or early
expect = "end=ok"               # what `invoke boot` waits for, a regular expression
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pybuild import machine, material, mover, targets
from pybuild.errors import InputError

_ALIASES: Final = {"ramdisk": "initrd", "extra": "cmdline"}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "kernel": None,
    "initrd": [],
    "cmdline": "",
    "machine": ["pc"],
    "target": [targets.DEFAULT],
    "options": {},
    "move": "auto",
    "expect": "",
}


@dataclass(frozen=True, slots=True)
class Image:
    """What an image of a recipe is for: a machine profile's name or file, and a target's name."""

    profile: str
    target: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe; the attributes are its keys.

    Attributes:
        name: the file's name without its suffix.
        folder: where it lies; its paths are meant from there.
    """

    name: str
    folder: Path
    kernel: object
    initrd: tuple[object, ...]
    cmdline: str
    machine: tuple[str, ...]
    target: tuple[str, ...]
    options: Mapping[str, object]
    move: mover.Choice
    expect: str

    @property
    def profiles(self) -> tuple[str, ...]:
        """Its machines, those that are files by their path."""
        known = machine.names()
        return tuple(name if name in known else str(self.folder / name) for name in self.machine)

    @property
    def images(self) -> dict[str, Image]:
        """Its images by name: `<recipe>.<machine>`, with the target's suffix if that has one."""
        return {
            f"{self.name}.{Path(profile).stem}{_suffix(target)}": Image(profile, target)
            for profile in self.profiles
            for target in self.target
        }

    def options_of(self, target: str) -> dict[str, object]:
        """Those of its options that a target has."""
        having = targets.options()
        return {name: value for name, value in self.options.items() if target in having[name][1]}


def read(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        InputError: it cannot be read, or a key is unknown, missing or of the wrong kind.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a recipe: {error}") from error
    values: dict[str, Any] = dict(_DEFAULTS)
    for key, value in table.items():
        name = _ALIASES.get(key, key)
        if name not in _DEFAULTS:
            known = ", ".join([*_DEFAULTS, *_ALIASES])
            raise InputError(f"{path}: unknown key '{key}', expected one of {known}")
        if name != key and name in table:
            raise InputError(f"{path}: has both '{key}' and '{name}', which mean the same")
        values[name] = value
    for key in ("initrd", "machine", "target"):
        values[key] = tuple(values[key] if isinstance(values[key], list) else [values[key]])
    for key in ("cmdline", "move", "expect"):
        if not isinstance(values[key], str):
            raise InputError(f"{path}: {key} is {values[key]!r}, expected a string")
    if values["move"] not in get_args(mover.Choice):
        expected = ", ".join(get_args(mover.Choice))
        raise InputError(f"{path}: move is '{values['move']}', expected one of {expected}")
    machines = values["machine"]
    if not machines or not all(isinstance(name, str) for name in machines):
        raise InputError(f"{path}: machine is {machines!r}, expected names or files")
    if len({Path(name).stem for name in machines}) < len(machines):
        raise InputError(
            f"{path}: machine is {machines!r}: an image is named after each, "
            "so no name may be there more than once"
        )
    _check_targets(path, values["target"], values["options"])
    try:
        re.compile(values["expect"])
    except re.error as error:
        raise InputError(
            f"{path}: expect is {values['expect']!r}, not a regular expression: {error}"
        ) from error
    if values["kernel"] is None:
        raise InputError(f"{path}: has no 'kernel'")
    for key, value in [("kernel", values["kernel"]), *(("initrd", m) for m in values["initrd"])]:
        material.check(value, f"{path}: {key}")
    return Recipe(name=path.stem, folder=path.parent, **values)


def _check_targets(path: Path, names: Sequence[object], options: object) -> None:
    known = targets.names()
    for name in names:
        if name not in known:
            raise InputError(f"{path}: target is {name!r}, expected one of {', '.join(known)}")
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path}: target is {[*names]!r}, expected names, none of them twice")
    if not isinstance(options, dict):
        raise InputError(f"{path}: options is {options!r}, expected a table")
    having = {name: each for name, each in targets.options().items() if set(names) & set(each[1])}
    for name, value in options.items():
        if name not in having:
            expected = f"only {', '.join(having)}" if having else "none"
            raise InputError(
                f"{path}: options has '{name}', but target {' or '.join(map(str, names))} has "
                f"{expected}"
            )
        try:
            having[name][0].value(value)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _suffix(target: str) -> str:
    """What an image's name ends with: nothing where it is a folder."""
    return next(iter(targets.get(target).suffixes), "")


def read_all(folder: Path) -> list[Recipe]:
    """Every recipe in a folder, by name."""
    return [read(path) for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)]
