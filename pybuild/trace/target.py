"""What a path on the command line of `bootsplice trace` is: a source, or a flat binary."""

from pathlib import Path

from pybuild import arch, paths
from pybuild.assembler import Tree
from pybuild.errors import InputError


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
