"""What a boot loader itself must take from the command line.

Source: boot.rst, "Special Command Line Options": vga=, and mem= because the initrd must lie
below it.
"""

import itertools
import re
from typing import Final

from pybuild.errors import InputError

_VID_MODES: Final = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}
_SUFFIXES: Final = {"": 0, "K": 10, "M": 20, "G": 30}
_NUMBER: Final = re.compile(r"(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)([KMG]?)", re.IGNORECASE)


def encode(text: str) -> bytes:
    """The command line as the kernel gets it, without its NUL.

    Raises:
        InputError: it has a NUL or a line break in it.
    """
    for character in "\0\n\r":
        if character in text:
            raise InputError(f"command line: has {character!r} in it; a kernel reads only one line")
    return text.encode("utf-8", "surrogateescape")


def vid_mode(text: str) -> int | None:
    """The header's vid_mode for the last vga= option: normal, ext, ask, or a number in C form.

    Raises:
        InputError: the option has none of these forms.
    """
    values = _options(text, "vga=")
    if not values:
        return None
    mode = _VID_MODES.get(values[-1])
    if mode is None:
        number = _NUMBER.fullmatch(values[-1])
        mode = _in_c_form(number[1]) if number and not number[2] else -1
    if not 0 <= mode <= 0xFFFF:
        raise InputError(
            f"command line: vga={values[-1]}, expected {', '.join(_VID_MODES)} "
            "or a number up to 0xffff"
        )
    return mode


def memory_limit(text: str) -> int | None:
    """The bytes of the smallest mem= option that names a limit, as the kernel applies them all."""
    limits = [
        _in_c_form(number[1]) << _SUFFIXES[number[2].upper()]
        for value in _options(text, "mem=")
        if (number := _NUMBER.match(value))
    ]
    return min((limit for limit in limits if limit), default=None)


def _options(text: str, prefix: str) -> list[str]:
    """The values of an option, up to the `--` behind which everything is for init."""
    words = itertools.takewhile(lambda word: word != "--", text.split())
    return [word.removeprefix(prefix) for word in words if word.startswith(prefix)]


def _in_c_form(text: str) -> int:
    """A number as C's strtoul reads it: 0x is hexadecimal, 0 is octal."""
    if text.lower().startswith("0x"):
        return int(text, 16)
    return int(text, 8 if text.startswith("0") else 10)
