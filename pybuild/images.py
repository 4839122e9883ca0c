"""Builds every recipe's images, those only whose inputs have changed."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pybuild import apt, assembler, boot, build, flock, fresh, machine, material, paths, recipe
from pybuild.assembler import Tree
from pybuild.build import Order
from pybuild.errors import InputError
from pybuild.flat import binary_path, table_path
from pybuild.material import Workshop
from pybuild.progress import Progress, silent
from pybuild.recipe import Recipe


@dataclass
class Outcome:
    """What became of the images: names of those that were built, were up to date, were left out.

    `left_out` has the reason for each recipe that needs what cannot be fetched.
    """

    built: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def build_all(shop: Workshop, progress: Progress = silent) -> Outcome:
    """Builds the images of every recipe; one process at a time.

    Args:
        shop: where their materials are made.
        progress: is told which image is built.

    Raises:
        InputError: a recipe or a kernel is not usable.
        BuildError: something does not build.
    """
    outcome = Outcome()
    paths.IMAGES.mkdir(parents=True, exist_ok=True)
    with flock.held(paths.IMAGES / ".lock"):
        own_code = _own_code(assembler.own(progress))
        recipes = recipe.read_all(paths.KERNELS)
        for number, each in enumerate(recipes):
            if meter := progress(f"building the images of {each.name}"):
                meter(number / len(recipes))
            try:
                _build(each, shop, own_code, outcome)
            except apt.Unavailable as error:
                outcome.left_out[each.name] = str(error)
    return outcome


def fetch_all(shop: Workshop) -> list[Path]:
    """Fetches and makes what the recipes need from the Debian archive.

    Raises:
        apt.Unavailable: the archive cannot be reached.
    """
    found = []
    for each in recipe.read_all(paths.KERNELS):
        for number, wanted in enumerate((each.kernel, *each.initrd)):
            if material.is_fetched(wanted):
                found.append(material.make(wanted, each.folder, _part_name(each, number), shop))
    return found


def boot_image(name: str, timeout: float) -> None:
    """Boots an image by its name, or a recipe's first by the recipe's, to what it expects.

    Raises:
        InputError: there is no such recipe, or it has not been built.
        BuildError: it did not show what it expects.
    """
    for each in recipe.read_all(paths.KERNELS):
        if name in (each.name, *each.images):
            image = paths.IMAGES / (next(iter(each.images)) if name == each.name else name)
            pattern = re.compile(each.expect) if each.expect else None
            boot.boot(image, expect=pattern, timeout=timeout)
            return
    known = ", ".join(name for each in recipe.read_all(paths.KERNELS) for name in each.images)
    raise InputError(f"image '{name}': unknown, expected one of {known}")


def _build(each: Recipe, shop: Workshop, own_code: dict[str, str], outcome: Outcome) -> None:
    try:
        _build_each_machine(each, shop, own_code, outcome)
    except InputError as error:
        raise InputError(f"recipe {each.name}: {error}") from error


def _build_each_machine(
    each: Recipe, shop: Workshop, own_code: dict[str, str], outcome: Outcome
) -> None:
    files = [
        material.make(wanted, each.folder, _part_name(each, number), shop)
        for number, wanted in enumerate((each.kernel, *each.initrd))
    ]
    digests = [fresh.digest(path) for path in files]
    for name, of in each.images.items():
        out = paths.IMAGES / name
        stamp = paths.IMAGES / f".{name}.stamp"
        options = each.options_of(of.target)
        key: dict[str, object] = {
            "inputs": digests,
            "cmdline": each.cmdline,
            "machine": repr(machine.load(of.profile)),
            "target": of.target,
            "options": options,
            "move": each.move,
            "code": own_code,
        }
        if fresh.read_stamp(stamp) == {**key, "outputs": _names(out)}:
            outcome.unchanged.append(name)
            continue
        order = Order(
            kernel=files[0],
            initrds=tuple(files[1:]),
            cmdline=each.cmdline,
            machine=of.profile,
            target=of.target,
            move=each.move,
            options=options,
        )
        stamp.unlink(missing_ok=True)  # or a build that is killed leaves it to a newer image
        build.build(order, out)
        fresh.write_stamp(stamp, {**key, "outputs": _names(out)})
        outcome.built.append(name)


def _names(out: Path) -> list[str]:
    """The files of an image, in its folder or itself; none if it isn't there."""
    if out.is_dir():
        return sorted(path.name for path in out.iterdir())
    return [out.name] if out.is_file() else []


def _own_code(tree: Tree) -> dict[str, str]:
    """The digests of bootsplice itself and of its flat binaries."""
    stems = [tree.build / source.name for source in tree.sources()]
    files = [of(stem) for stem in stems for of in (binary_path, table_path)]
    return fresh.digests([*Path(__file__).parent.rglob("*.py"), *files], paths.ROOT)


def _part_name(each: Recipe, number: int) -> str:
    return each.name if number == 0 else f"{each.name}.initrd{number}"
