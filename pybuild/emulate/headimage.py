"""A kernel image with a head, made by the real flow, and what it was made of."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pybuild import cmdline, headplan, headsplice, kernel
from pybuild.assembler import Tree
from pybuild.flat import FlatBinary
from pybuild.headplan import HeadPlan, Request
from pybuild.kernel import Kernel
from pybuild.mover import Choice
from pybuild.splice import HEAD_32, HEAD_64, RELOCATOR, RELOCATOR_64

_CODE: Final = (HEAD_32, HEAD_64, RELOCATOR, RELOCATOR_64)

Code = Mapping[str, FlatBinary]


@dataclass(frozen=True, repr=False)
class Made:
    """The image.

    Attributes:
        kernel: as it was.
        plan: what was worked out for it.
        image: the kernel with the head.
        text: the built-in command line.
        replace: whether the loader's is not appended to that.
        initrd: the built-in one.
        places: where the code of each source is in it, bytes from its protected-mode part's first.
    """

    kernel: Kernel
    plan: HeadPlan
    image: Kernel
    text: bytes
    replace: bool
    initrd: bytes
    places: Mapping[str, int]

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: ANN401 - hypothesis's
        """What hypothesis shows: none of the bytes."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        return f"Made({dataclasses.replace(self.plan, patches=())})"

    @property
    def memory(self) -> int:
        """What its header asks for, bytes."""
        return self.image["init_size"]


def code_of(tree: Tree) -> dict[str, FlatBinary]:
    """What a head is made of."""
    return {name: tree.load(name) for name in _CODE}


def make(
    original: Kernel,
    code: Code,
    *,
    text: str = "",
    replace: bool = False,
    initrd: bytes = b"",
    move: Choice = "auto",
) -> Made:
    """An image of that kernel.

    Raises:
        InputError: a head cannot help it, or something does not fit.
    """
    request = Request(
        cmdline=text,
        replace=replace,
        initrd_size=len(initrd),
        code_size=headsplice.code_size(code),
        relocator_size=headsplice.relocator_size(code),
        has_crc=headsplice.crc_holds(original),
        move=move,
    )
    plan = headplan.place(_source(original), request)
    places = headsplice.code_places(code)
    made = Made(original, plan, original, cmdline.encode(text), replace, initrd, places)
    return splice(made, request, code)


def splice(made: Made, request: Request, code: Code) -> Made:
    """The same with an image by its plan."""
    source = _source(made.kernel)
    image, _ = headsplice.splice(made.kernel, source, made.plan, code, request, [made.initrd])
    return dataclasses.replace(made, image=kernel.parse("image", image.data))


def _source(original: Kernel) -> Kernel:
    return headsplice.raised(headsplice.bare(original)[0])
