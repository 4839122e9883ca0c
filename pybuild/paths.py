"""Where things are: the sources, what is built from them, and the cache of fetched kernels.

In a checkout the assembler's sources are in asm/ beside this package and build/ is beside them. An
installed bootsplice brings its sources along inside the package and builds them in the cache.
"""

import os
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent
_IS_CHECKOUT: Final = not (_PACKAGE / "asm").is_dir()


def cache_directory() -> Path:
    """Where fetched packages are kept: $BOOTSPLICE_CACHE, else the user's cache directory."""
    override = os.environ.get("BOOTSPLICE_CACHE")
    if override:
        return Path(override)
    import platformdirs  # a build in a checkout does without

    return Path(platformdirs.user_cache_dir("bootsplice"))


ROOT: Final = _PACKAGE.parent if _IS_CHECKOUT else _PACKAGE  # has asm/
BUILD: Final = ROOT / "build" if _IS_CHECKOUT else cache_directory() / "build"
KERNELS: Final = ROOT / "kernels"
IMAGES: Final = BUILD / "images"
