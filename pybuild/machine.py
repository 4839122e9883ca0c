"""Machine profiles: how much RAM there is, and which of it is not ours, and when.

A profile is a TOML file; `pybuild/machines/` has those that come with bootsplice.

    description = "..."             # one line
    base = "pc"                     # nearly always: start from that profile and add to it;
                                    # without it nothing is kept free but what is listed here
    ram = 0x20000000                # bytes of RAM from address 0 on, less than 0xb0000000
                                    # (targets disk and iso: the most that the image may need)

    [[reserved]]                    # never to be written
    [[busy_while_loading]]          # the firmware's until the boot sector runs
    [[overwritten_by_firmware]]     # lost if it is written before the firmware has run
    name = "..."
    start = 0x100000                # physical addresses, end exclusive;
    end = 0x200000
    below_top = 0x20000             # or instead of both: the last so many bytes of RAM
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pybuild.errors import InputError
from pybuild.regions import Region

_PROFILES: Final = Path(__file__).parent / "machines"
_LISTS: Final = ("reserved", "busy_while_loading", "overwritten_by_firmware")
_KEYS: Final = ("description", "base", "ram", *_LISTS)
_FOUR_GIB: Final = 1 << 32
_PAGE: Final = 0x1000
# From here on QEMU moves a part of the RAM above 4 GiB (q35 keeps 2 GiB below, pc 3), and where it
# ends below is no longer where the profile says.
_RAM_LIMIT: Final = 0xB0000000


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine profile.

    Attributes:
        name: the profile's name, or its file's without the suffix.
        description: one line for a person; bootsplice itself has no use for it.
        ram: bytes of RAM from address 0 on, below 4 GiB.
        reserved: never to be written.
        busy_while_loading: the firmware's until the boot sector runs.
        overwritten_by_firmware: lost if it is written before the firmware has run.
    """

    name: str
    description: str
    ram: int
    reserved: tuple[Region, ...] = ()
    busy_while_loading: tuple[Region, ...] = ()
    overwritten_by_firmware: tuple[Region, ...] = ()

    def busy(self, *, before_firmware: bool) -> tuple[Region, ...]:
        """What must not be loaded over; more of it if that happens before the firmware runs."""
        wiped = self.overwritten_by_firmware if before_firmware else ()
        return self.reserved + self.busy_while_loading + wiped


def names() -> list[str]:
    """The profiles that come with bootsplice."""
    return sorted(path.stem for path in _PROFILES.glob("*.toml"))


def file(name: str) -> Path:
    """Where the profile of this name is; the name itself if none that comes with us has it."""
    return _PROFILES / f"{name}.toml" if name in names() else Path(name)


def load(name: str, *, boots_anywhere: bool = False) -> Machine:
    """Reads a profile by its name, or from a file if `name` is the path of one.

    Args:
        name: the profile.
        boots_anywhere: for images whose loader looks for itself how much RAM there is. What a
            profile that comes with bootsplice says is then no limit; a file of the user's is.

    Raises:
        InputError: there is no such profile, or it says something that makes no sense.
    """
    path = file(name)
    table = _read(path, name)
    ram = table.get("ram")
    if type(ram) is not int or not 0 < ram < _RAM_LIMIT or ram % _PAGE:
        raise InputError(
            f"{path}: ram is {ram!r}, expected bytes below {_RAM_LIMIT:#x}, a multiple of {_PAGE}"
        )
    if boots_anywhere and name in names():
        ram = _RAM_LIMIT - _PAGE
    lists = {key: _regions(path, key, table[key], ram) for key in _LISTS}
    return Machine(name=path.stem, description=str(table.get("description", "")), ram=ram, **lists)


def _read(path: Path, name: str) -> dict[str, Any]:
    """The table in a file, with what it is based on merged in: lists add up, the rest replaces."""
    try:
        if path.is_fifo():  # reading it would wait for somebody to write
            raise InputError(f"{path}: not a machine profile: it is no regular file")
        table = tomllib.loads(path.read_text())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(
            f"machine '{name}': no such profile or file; profiles are {', '.join(names())}"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: not a machine profile: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, no TOML, a NUL in the name
        shown = str(path).replace("\0", "\\0")
        raise InputError(f"{shown}: not a machine profile: {error}") from error
    for key in table:
        if key not in _KEYS:
            raise InputError(f"{path}: unknown key '{key}', expected one of {', '.join(_KEYS)}")
    base = table.pop("base", None)
    if base is not None and base not in names():
        raise InputError(f"{path}: base is {base!r}, expected one of {', '.join(names())}")
    parent = {} if base is None else _read(_PROFILES / f"{base}.toml", base)
    for key in _LISTS:
        own = table.get(key, [])
        if not isinstance(own, list) or not all(isinstance(entry, dict) for entry in own):
            raise InputError(f"{path}: {key} is no list of tables; write [[{key}]]")
        table[key] = [*parent.get(key, []), *own]
    return {**parent, **table}


def _regions(path: Path, key: str, entries: list[dict[str, Any]], ram: int) -> tuple[Region, ...]:
    return tuple(
        _region(f"{path}: [[{key}]] {entry.get('name', 'without a name')!r}", entry, ram)
        for entry in entries
    )


def _region(where: str, entry: dict[str, Any], ram: int) -> Region:
    keys = set(entry)
    if keys == {"name", "below_top"}:
        below_top = entry["below_top"]
        if type(below_top) is not int or below_top <= 0:
            raise InputError(f"{where}: below_top is {below_top!r}, expected bytes, more than 0")
        start, end = max(0, ram - below_top), ram
    elif keys == {"name", "start", "end"}:
        start, end = entry["start"], entry["end"]
    else:
        raise InputError(
            f"{where}: has {', '.join(sorted(keys)) or 'nothing'}, "
            "expected name, start and end, or name and below_top"
        )
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= _FOUR_GIB:
        raise InputError(
            f"{where}: from {start!r} to {end!r}, expected 0 <= start < end <= {_FOUR_GIB:#x}"
        )
    return Region(str(entry["name"]), start, end)
