"""Where things are: the sources, what is built from them, and the cache of fetched kernels.

In a checkout the assembler's sources are in asm/ beside this package, and build/ is beside them. An
installed bootsplice has its flat binaries inside the package, ready to use, and the sources, which
say what they promise, to read: to edit them takes a checkout.
"""

import os
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent
IS_CHECKOUT: Final = not (_PACKAGE / "asm").is_dir()


def cache_directory() -> Path:
    """Where fetched packages are kept: $BOOTSPLICE_CACHE, else the user's cache directory."""
    override = os.environ.get("BOOTSPLICE_CACHE")
    if override:
        return Path(override)
    import platformdirs  # a build does without

    return Path(platformdirs.user_cache_dir("bootsplice"))


ROOT: Final = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE  # has asm/
BUILD: Final = ROOT / "build" if IS_CHECKOUT else _PACKAGE / "assembled"  # only read, if installed
KERNELS: Final = ROOT / "kernels"
IMAGES: Final = BUILD / "images"
