"""A plan read back from what `Plan.to_json` wrote."""

import dataclasses
import json
import types
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pybuild.plan import Plan


def parse(text: str | bytes) -> Plan:
    """The plan.

    Raises:
        ValueError: the text is not as `to_json` writes it.
    """
    try:
        plan: Plan = _value(Plan, json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return plan


def _value(kind: Any, found: object) -> Any:  # noqa: ANN401  what `kind` says
    """What JSON has in place of a value of this type, as a value of this type."""
    origin, of = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(found, dict):
        hints = get_type_hints(kind)
        if hints.keys() == found.keys():
            return kind(**{name: _value(hints[name], found[name]) for name in hints})
    elif origin is tuple and isinstance(found, list):
        return tuple(_value(of[0], each) for each in found)
    elif origin is types.UnionType and found is None:
        return None
    elif origin is types.UnionType:
        return _value(of[0], found)
    elif (origin is Literal and found in of) or type(found) is kind:
        return found
    raise ValueError(f"{found!r:.50} in place of {kind}")
