"""Real kernels and tools for the tests, from the Debian archive."""

from pathlib import Path

from missing import missing

from pybuild.apt import Unavailable
from pybuild.debian import fetch
from pybuild.paths import cache_directory


def real_kernel(package: str, member: str) -> Path:
    """A file of a Debian package, fetched once into the user's cache (see pybuild.debian.fetch).

    Where the archive cannot be reached the test is skipped, but fails in CI.
    """
    try:
        return fetch(package, member, cache_directory(), progress=print)
    except Unavailable as error:
        missing(str(error))
