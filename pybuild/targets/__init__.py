"""What an image can be written as: one file here for each target, with one registered class."""

import contextlib
import functools
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar

from pybuild import numbers
from pybuild.errors import InputError
from pybuild.plan import Plan
from pybuild.progress import Meter
from pybuild.splice import Parts

DEFAULT: Final = "disk"

_BYTES: Final = re.compile(r"i?b$", re.IGNORECASE)  # behind a size: 64MB and 64MiB are 64M


@dataclass(frozen=True, slots=True)
class Option:
    """Something that a user may ask of a target: `--name` on the command line.

    Attributes:
        name: its name, which is also its key in a recipe's `options`.
        kind: bool for a flag, str for a text, int for a number of bytes (with K, M, G for a unit).
        help: one line for `bootsplice build --help`.
    """

    name: str
    kind: type[bool] | type[str] | type[int]
    help: str

    def value(self, given: object) -> bool | str | int:
        """What was given, as the target takes it.

        Raises:
            InputError: it is of another kind.
        """
        if self.kind is int and isinstance(given, str):
            for text in (given, _BYTES.sub("", given)):
                with contextlib.suppress(ValueError):
                    return numbers.parse(text)
        elif type(given) is self.kind and not (type(given) is int and given < 0):
            return given
        expected = {bool: "true or false", str: "a text", int: "bytes, as in 64M"}[self.kind]
        raise InputError(f"option {self.name} is {given!r}, expected {expected}")


# What was asked for, by the options' names; those that were not are not in it.
Options: TypeAlias = Mapping[str, bool | str | int]


class Target(Protocol):
    """One output format.

    Attributes:
        name: what the user calls it.
        suffixes: of output files that mean this target when the user names none; the first is
            that of a recipe's image. One without any writes folders.
        before_firmware: whether its parts are in memory before the firmware runs.
        options: what may be asked of it.
    """

    name: str
    suffixes: tuple[str, ...]
    before_firmware: bool
    options: tuple[Option, ...]

    def check(self, plan: Plan, parts: Parts, options: Options) -> None:
        """Writes nothing.

        Raises:
            InputError: `write` cannot make an image of these, wherever it is to be.
        """

    def write(
        self, plan: Plan, parts: Parts, out: Path, options: Options, meter: Meter | None = None
    ) -> None:
        """Writes the image to `out`, whole or not at all; `meter` is told how much is written."""


_T = TypeVar("_T", bound=type)
_REGISTERED: Final[dict[str, type]] = {}


def register(target: _T) -> _T:
    """A class decorator that makes a target known by its name."""
    _REGISTERED[target.name] = target  # type: ignore[attr-defined]
    return target


def names() -> list[str]:
    """Every target that there is."""
    _import_all()
    return sorted(_REGISTERED)


def get(name: str) -> Target:
    """The target of this name.

    Raises:
        InputError: there is none.
    """
    if name not in names():
        raise InputError(f"target '{name}': unknown, expected one of {', '.join(names())}")
    target: Target = _REGISTERED[name]()
    return target


def every() -> list[Target]:
    """Every target, by name."""
    return [get(name) for name in names()]


def of_output(out: Path) -> str:
    """The name of the target that writes files with this suffix; the default for any other."""
    suffix = out.suffix.lower()
    return next((target.name for target in every() if suffix in target.suffixes), DEFAULT)


def options() -> dict[str, tuple[Option, list[str]]]:
    """Every option by its name, with the names of the targets that have it."""
    found: dict[str, tuple[Option, list[str]]] = {}
    for target in every():
        for option in target.options:
            known, having = found.setdefault(option.name, (option, []))
            if known.kind is not option.kind:
                raise AssertionError(f"{option.name} is of another kind in {target.name}")
            having.append(target.name)
    return found


@functools.cache
def _import_all() -> None:
    for path in Path(__file__).parent.glob("[!_]*.py"):
        importlib.import_module(f"{__name__}.{path.stem}")


def check_options(target: Target, given: Mapping[str, object]) -> Options:
    """What was asked of a target, as the target takes it.

    Raises:
        InputError: it has no such option, or the value is of another kind.
    """
    known = {option.name: option for option in target.options}
    for name in given:
        if name not in known:
            having = options().get(name, (None, []))[1]
            only = f"only {' and '.join(having)}" if having else "and no other target has"
            raise InputError(f"option {name}: target '{target.name}' has none such, {only}")
    return {name: known[name].value(value) for name, value in given.items()}
