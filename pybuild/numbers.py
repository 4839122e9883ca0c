"""Numbers as people type them."""

import re
from collections.abc import Iterable
from typing import Final

from pybuild.errors import InputError

_NUMBER: Final = re.compile(r"(0x[0-9a-f]+|[0-9]+)([kmg]?)", re.I | re.A)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse(text: str) -> int:
    """A number of bytes or an address: `0x200000`, `2097152` or `2M`; K, M and G are powers of two.

    Raises:
        ValueError: it is no such number; the message says what was found and what is expected.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"found {text!r}, expected a number, as 4096, 0x1000 or 4K")
    digits, unit = match.groups()
    return int(digits, 16 if digits[:2] in ("0x", "0X") else 10) * _UNITS[unit.lower()]


def settings(texts: Iterable[str]) -> dict[str, int]:
    """Values by their names, each from the text of a `--set NAME=NUMBER`.

    Raises:
        InputError: a text is something else, or a name is set twice.
    """
    given: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not name or name in given:
            what = f"'{name}' is set already" if name else "there is no name"
            raise InputError(f"--set {text}: {what}; the form is NAME=NUMBER, once for each name")
        try:
            given[name] = parse(number)
        except ValueError as error:
            raise InputError(f"--set {text}: {error}; the form is NAME=NUMBER") from error
    return given
