"""How long each image takes to build, beside `cat` of the same bytes."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import loaders, tools
from bench.loaders import Loader, Payload

INTERPRETER: Final = "the interpreter's start"
CAT: Final = "`cat` of the same bytes"
_CAT_SYNC: Final = "`cat`, then `sync` of that file"

_GENISOIMAGE: Final = Loader(
    f"{loaders.ISOLINUX.name}, by genisoimage",
    "cd",
    loaders.isolinux_by_genisoimage,
    (*loaders.ISOLINUX_NEEDS, loaders.GENISOIMAGE),
    is_peer=True,
)
LOADERS: Final = (
    loaders.DISK,
    loaders.ISO,
    loaders.SYSLINUX,
    loaders.GRUB,
    loaders.ISOLINUX,
    _GENISOIMAGE,
)


def timers(
    payload: Payload, directory: Path, wanted: Callable[[Loader], bool]
) -> dict[str, Callable[[], float]]:
    """What tells the seconds of one build, by the row's name."""

    def timed(out: Path, build: Callable[[], object]) -> Callable[[], float]:
        def seconds() -> float:
            out.unlink(missing_ok=True)
            os.sync()  # what the one before left to be written is not this one's
            began = time.perf_counter()
            build()
            return time.perf_counter() - began

        return seconds

    def by(loader: Loader) -> Callable[[], float]:
        out = directory / f"built{loader.suffix}"
        return timed(out, lambda: loader.build(payload, directory, out))

    plain = directory / "built"
    cat = 'out=$1; shift; cat "$@" >"$out"'
    files = [str(path) for path in (plain, *payload.files)]
    return {
        INTERPRETER: timed(plain, lambda: tools.run(sys.executable, "-c", "pass")),
        CAT: timed(plain, lambda: tools.run("sh", "-c", cat, "sh", *files)),
        _CAT_SYNC: timed(plain, lambda: tools.run("sh", "-c", f'{cat}; sync "$out"', "sh", *files)),
        **{loader.name: by(loader) for loader in LOADERS if wanted(loader)},
    }
