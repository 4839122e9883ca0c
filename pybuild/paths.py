"""Where things are: the source tree, what is built from it, and the cache of fetched kernels."""

import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parent.parent
ASM = ROOT / "asm"
KERNELS = ROOT / "kernels"
BUILD = ROOT / "build"
IMAGES = BUILD / "images"


def cache_directory() -> Path:
    """Where fetched packages are kept: $BOOTSPLICE_CACHE, else the user's cache directory."""
    override = os.environ.get("BOOTSPLICE_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("bootsplice"))
