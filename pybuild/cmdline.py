"""What a boot loader itself must take from the command line.

Source: boot.rst, "Special Command Line Options": vga=, and mem= because the initrd must lie
below it.
"""

from typing import Final

from pybuild.errors import InputError

_VID_MODES: Final = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}
_SUFFIXES: Final = {"K": 10, "M": 20, "G": 30}


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
    value = _last_option(text, "vga=")
    if value is None:
        return None
    mode = _VID_MODES.get(value)
    if mode is None:
        mode = _number(value)
    if mode is None or not 0 <= mode <= 0xFFFF:
        raise InputError(
            f"command line: vga={value}, expected {', '.join(_VID_MODES)} or a number to 0xffff"
        )
    return mode


def memory_limit(text: str) -> int | None:
    """The bytes of the last mem= option that names a limit; its other forms are the kernel's."""
    value = _last_option(text, "mem=")
    if not value:
        return None
    shift = _SUFFIXES.get(value[-1].upper(), 0)
    number = _number(value[:-1] if shift else value)
    return number << shift if number is not None and number > 0 else None


def _last_option(text: str, prefix: str) -> str | None:
    found = [word.removeprefix(prefix) for word in text.split() if word.startswith(prefix)]
    return found[-1] if found else None


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
