"""Fixtures that more than one file of tests uses."""

from collections.abc import Callable
from pathlib import Path

import pytest
from missing import missing

from pybuild import assembler, images, paths
from pybuild.assembler import Tree
from pybuild.material import Workshop


@pytest.fixture(scope="session", autouse=True)
def _flat_binaries() -> None:
    """The project's own flat binaries are up to date."""
    assembler.build(Tree(paths.ROOT, paths.BUILD))


@pytest.fixture(scope="session")
def built() -> Callable[[str], Path]:
    """Builds the images of kernels/; gives the folder of one by its name, `<recipe>.<machine>`.

    An image that needs the Debian archive when that cannot be reached is a skip, but a failure
    in CI.
    """
    shop = Workshop(paths.ROOT, paths.BUILD, paths.cache_directory(), print)
    outcome = images.build_all(shop)

    def image(name: str) -> Path:
        why = outcome.left_out.get(name.rpartition(".")[0])
        if why:
            missing(why)
        return paths.IMAGES / name

    return image
