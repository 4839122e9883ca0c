"""What a file is called in each of a CD's three directories.

ISO 9660 alone allows little; Rock Ridge is what Linux shows, Joliet what Windows shows.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_SUFFIX: Final = re.compile(r"(.+)(\.\w{1,8})", re.DOTALL)
_NOT_IN_JOLIET: Final = frozenset("*/:;?\\")  # Joliet specification, "Allowable Characters"
_NOT_IN_ISO: Final = re.compile("[^A-Z0-9_]")  # ECMA-119 7.4.1, d-characters
_ISO_STEM, _ISO_SUFFIX = 8, 3  # ECMA-119 10.1, interchange level 1
# Bytes of UTF-8. Linux takes no longer Rock Ridge name (fs/isofs/rock.c), pycdlib no longer Joliet
# name (the specification's 64 are characters).
_LONGEST_ROCK_RIDGE: Final = 253
_LONGEST_JOLIET: Final = 64


@dataclass(frozen=True, slots=True)
class Names:
    """One file's names.

    Attributes:
        iso: in the ISO 9660 directory, without the version number.
        rock_ridge: in that directory's Rock Ridge entry.
        joliet: in the Joliet directory.
    """

    iso: str
    rock_ridge: str
    joliet: str


def choose(wanted: Sequence[str]) -> list[Names]:
    """Names for the files of one folder that are as wanted where that is possible.

    Names that are equal, if only but for their case, get a number.

    Args:
        wanted: file names as the system gives them, with whatever is not Unicode escaped.
    """
    taken: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    chosen = []
    for name in wanted:
        readable = "".join("_" if _is_odd(character) else character for character in name)
        forms = (_iso, _rock_ridge, _joliet)
        chosen.append(Names(*(_free(readable, t, f) for t, f in zip(taken, forms, strict=True))))
    return chosen


def _is_odd(character: str) -> bool:
    """Whether it is not allowed in Joliet, or is nothing that a person can read."""
    return character in _NOT_IN_JOLIET or not character.isprintable()


def _free(wanted: str, taken: set[str], form: Callable[[str, str, str], str]) -> str:
    """The first of `name.img`, `name-2.img`, `name-3.img` ... that no other file has."""
    match = _SUFFIX.fullmatch(wanted)
    stem, suffix = match.groups() if match else (wanted, "")
    name = form(stem, "", suffix)
    for number in itertools.count(2):
        if name.casefold() not in taken:
            break
        name = form(stem, f"-{number}", suffix)
    taken.add(name.casefold())
    return name


def _iso(stem: str, number: str, suffix: str) -> str:
    number = number.replace("-", "_")
    stem = _NOT_IN_ISO.sub("_", stem.upper())[: _ISO_STEM - len(number)]
    return f"{stem}{number}.{_NOT_IN_ISO.sub('_', suffix[1:].upper())[:_ISO_SUFFIX]}"


def _rock_ridge(stem: str, number: str, suffix: str) -> str:
    return _shortened(stem, number + suffix, _LONGEST_ROCK_RIDGE)


def _joliet(stem: str, number: str, suffix: str) -> str:
    return _shortened(stem, number + suffix, _LONGEST_JOLIET)


def _shortened(stem: str, end: str, limit: int) -> str:
    room = limit - len(end.encode())
    return stem.encode()[:room].decode(errors="ignore") + end
