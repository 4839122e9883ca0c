"""What an image can be written as: one file here for each target, with one registered class."""

import importlib
import pkgutil
from pathlib import Path
from typing import Final, Protocol, TypeVar

from pybuild.errors import InputError
from pybuild.plan import Plan
from pybuild.splice import Parts


class Target(Protocol):
    """One output format.

    Attributes:
        name: what the user calls it.
        before_firmware: whether its parts are in memory before the firmware runs.
    """

    name: str
    before_firmware: bool

    def write(self, plan: Plan, parts: Parts, out: Path) -> None:
        """Writes the image to `out`, whole or not at all."""


_T = TypeVar("_T", bound=type)
_REGISTERED: Final[dict[str, type]] = {}


def register(target: _T) -> _T:
    """A class decorator that makes a target known by its name."""
    _REGISTERED[target.name] = target  # type: ignore[attr-defined]
    return target


def names() -> list[str]:
    """Every target that there is."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
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
