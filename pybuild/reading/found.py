"""What is found in an image, as data. Offsets and sizes are bytes, addresses physical."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pybuild.kernel import Kernel
from pybuild.partitions import Table
from pybuild.saved import Saved

Kind = Literal["disk", "iso", "bzimage", "ram"]


@dataclass(frozen=True, slots=True)
class Sum:
    """A checksum.

    Attributes:
        method: which.
        stored: what the image says.
        computed: what it should say; None if that was not all there.
    """

    method: str
    stored: int
    computed: int | None

    @property
    def holds(self) -> bool:
        """Whether the two are the same."""
        return self.stored == self.computed


@dataclass(frozen=True, slots=True)
class Code:
    """Guest code of ours.

    Attributes:
        source: the name of its source.
        symbols: what it is bound to; None if it is not what this version's source assembles to.
    """

    source: str
    symbols: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Part:
    """Something in an image.

    Attributes:
        name: the plan's name for it, or what it is.
        offset: where it begins in the file; None if it is only a place in memory.
        size: of it.
        address: where it goes; None if it stays where it is.
        sum: what it is held to; None if nothing.
        code: guest code in it.
        damage: what is wrong with it.
    """

    name: str
    offset: int | None
    size: int
    address: int | None = None
    sum: Sum | None = None
    code: tuple[Code, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def is_damaged(self) -> bool:
        """Whether anything is wrong with it."""
        return bool(self.damage) or (self.sum is not None and not self.sum.holds)


@dataclass(frozen=True, slots=True)
class Change:
    """A header field that the kernel does not have as it was in its own file.

    Attributes:
        field: its name.
        old: what it was; None if the image does not say.
        new: what it is.
    """

    field: str
    old: int | None
    new: int


@dataclass(frozen=True, slots=True)
class File:
    """A file that a mounted CD shows, by its path there, or that a folder has."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image that bootsplice built.

    Attributes:
        path: its file.
        size: of it.
        kind: the target that wrote it.
        mark: how it was recognised.
        parts: what is in it, by the way of a boot.
        kernel: the kernel inside, perhaps no more of it than its real-mode part.
        changes: of its header, by offset.
        cmdline: the command line; None if it is not in the image.
        table: a disk's partition table.
        record: what `build --into` saved.
        files: a CD's or a folder's.
        arguments: what QEMU is given.
        facts: what else there is to say, by what it is about.
        damage: what is wrong with it that is in no part.
    """

    path: str
    size: int
    kind: Kind
    mark: str
    parts: tuple[Part, ...]
    kernel: Kernel | None = None
    changes: tuple[Change, ...] = ()
    cmdline: str | None = None
    table: Table | None = None
    record: Saved | None = None
    files: tuple[File, ...] = ()
    arguments: tuple[str, ...] = ()
    facts: Mapping[str, int | str] = field(default_factory=dict)
    damage: tuple[str, ...] = ()

    @property
    def is_damaged(self) -> bool:
        """Whether anything is wrong with it."""
        return bool(self.damage) or any(part.is_damaged for part in self.parts)
