"""A run to be traced, as scenes.py, headscene.py and diskscene.py make them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from pybuild.contract import Contract
from pybuild.emulate.machine import Start
from pybuild.emulate.run import Outcome
from pybuild.errors import InputError


@dataclass(frozen=True)
class Scene:
    """A run to be.

    Attributes:
        title: what is special about it; empty if nothing is.
        start: the run.
        hold: looks at what else is to be seen afterwards; raises ContractError.
        promise: what that is, for people.
    """

    title: str
    start: Start
    hold: Callable[[Outcome], None] | None = None
    promise: str = ""


def check_open(
    name: str, terms: Contract, given: Mapping[str, int], settable: Collection[str]
) -> None:
    """Raises InputError if something is set that the scene works out."""
    for key in sorted(given.keys() - set(terms.registers) - set(settable)):
        raise InputError(
            f"--set {key}: {name} gets it from what it runs in; "
            f"what can be set is: {', '.join(settable)}, and registers"
        )
