"""What a path on the command line of `bootsplice trace` is: a source, or a flat binary."""

import re
from pathlib import Path
from typing import Final

from pybuild import arch, paths
from pybuild.assembler import Tree
from pybuild.errors import InputError

_NUMBER: Final = re.compile(r"(0x[0-9a-fA-F]+|[0-9]+)([KMG]?)", re.I)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def find(path: Path) -> tuple[Tree, str]:
    """The tree and the `<arch>/<name>` of a source, or of a flat binary (`.bin`).

    Raises:
        InputError: it is neither, or there is no source for it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a source below asm/, or a flat binary")
    whole = path.resolve()
    if whole.suffix == ".bin":
        return _binary(path, whole)
    for folder in whole.parents:
        if folder.name == "asm" and whole.suffix == ".asm":
            name = str(whole.relative_to(folder).with_suffix(""))
            if (folder / name.partition("/")[0] / arch.FILE).is_file():
                return _tree(folder.parent), name
    raise InputError(
        f"{path}: is no source: expected asm/<arch>/<name>.asm, with an {arch.FILE} in asm/<arch>/"
    )


def _tree(root: Path) -> Tree:
    return Tree(root, paths.BUILD if root == paths.ROOT else root / "build")


def _binary(path: Path, whole: Path) -> tuple[Tree, str]:
    for folder in whole.parents:
        root = paths.ROOT if folder == paths.BUILD else folder.parent
        name = str(whole.relative_to(folder).with_suffix(""))
        if (folder.name == "build" or folder == paths.BUILD) and (
            root / f"asm/{name}.asm"
        ).is_file():
            return Tree(root, folder), name
    raise InputError(
        f"{path}: has no contract: expected build/<arch>/<name>.bin, whose source is "
        "asm/<arch>/<name>.asm beside build/"
    )


def settings(texts: tuple[str, ...]) -> dict[str, int]:
    """What `--set NAME=VALUE` gives; a value is 0x..., or decimal, with K, M or G behind it.

    Raises:
        InputError: it is something else, or a name stands there twice.
    """
    given: dict[str, int] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        match = _NUMBER.fullmatch(value)
        if not (name and equals and match) or name in given:
            what = "a name that was not set before" if name in given else "NAME=VALUE"
            raise InputError(
                f"--set {text}: expected {what}, where VALUE is as 0x200000, 4096, 64K or 8M"
            )
        given[name] = (
            int(match[1], 0 if match[1].startswith(("0x", "0X")) else 10) * _UNITS[match[2].upper()]
        )
    return given
