"""Makes images that a PC boots by itself, boots any with the real `bootsplice boot`, reads what
the guest then said.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from missing import missing

from pybuild import apt, build, flock, material, paths, recipe
from pybuild.drives import Drive
from pybuild.recipe import Recipe
from pybuild.targets import Options

TIMEOUT = 120  # seconds: many times what a boot takes, for a machine that is busy


@dataclass(frozen=True)
class Made:
    """An image, the recipe that its kernel is of, and its plan as `plan` gives it."""

    path: Path
    recipe: Recipe
    plan: dict[str, Any]


def make(
    each: Recipe,
    profile: str,
    out: Path,
    options: Options,
    *,
    shop: material.Workshop,
    more: tuple[Path, ...] = (),
) -> Made:
    """Makes an image of a recipe's kernel and initrds, and of `more` initrds.

    The target is what `out` ends in: an ISO, a folder for target ram if it has no suffix, or else
    a disk image.
    """
    kernel, *initrds = parts(each, shop)
    order = build.Order(
        kernel=kernel,
        initrds=(*initrds, *more),
        cmdline=each.cmdline,
        machine=profile,
        target={".iso": "iso", "": "ram"}.get(out.suffix, "disk"),
        options=options,
    )
    return Made(out, each, json.loads(build.build(order, out).to_json()))


def parts(each: Recipe, shop: material.Workshop) -> list[Path]:
    """A recipe's kernel and initrds, as they are before anything is built of them.

    Those that cannot be fetched are a skip, but a failure in CI.
    """
    wanted = {each.name: each.kernel}
    wanted |= {f"{each.name}.initrd{n}": initrd for n, initrd in enumerate(each.initrd, start=1)}
    paths.IMAGES.mkdir(parents=True, exist_ok=True)
    with flock.held(paths.IMAGES / ".lock"):  # whoever makes the same in another process
        try:
            return [material.make(part, each.folder, name, shop) for name, part in wanted.items()]
        except apt.Unavailable as error:
            missing(str(error))


def named(name: str) -> Recipe:
    """The recipe of this name in kernels/."""
    return recipe.read(paths.KERNELS / f"{name}.toml")


def boot(image: Path, expect: str, *qemu: str, drive: Drive | None = None) -> str:
    """Boots to the expected text and returns the serial log; a failure shows log and screen."""
    return _boot(image, expect, *(["--drive", drive] if drive else []), "--", "-nic", "none", *qemu)


def boot_on_xen(image: Path, expect: str, *options: str) -> str:
    """The same as an HVM guest of a real Xen."""
    return _boot(image, expect, "--on", "xen", *options)


def _boot(image: Path, expect: str, *options: str) -> str:
    command = [sys.executable, "-m", "pybuild.cli", "boot", str(image)]
    command += ["--expect", expect, "--timeout", str(TIMEOUT), *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def report(log: str) -> dict[str, str]:
    """The `key=value` lines of a log."""
    return dict(line.split("=", 1) for line in log.splitlines() if "=" in line)


def plan(image: Path) -> dict[str, Any]:
    """The image's plan."""
    loaded: dict[str, Any] = json.loads((image / "plan.json").read_text())
    return loaded
