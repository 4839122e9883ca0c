"""A copy of the project: what a test may edit, build and run as its reader would."""

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pybuild.paths import BUILD, KERNELS, ROOT

_PARTS: Final = ("asm", "docs", "kernels", "pybuild", "tests")
_FILES: Final = ("LICENSE", "Makefile", "README.md", "pyproject.toml", "tasks.py")
_COMMANDS: Final = {  # and what Python is given for each
    "bootsplice": "-m pybuild.cli",
    "invoke": "-m invoke",
    "pytest": "-m pytest",
    "python": "",
}
_INSTALLED: Final = ("bin/pip", ".runtime", ".dev")  # what `make` looks at in .venv


def copy_project(root: Path, recipes: Sequence[str] = (), *, built: bool = False) -> Path:
    """Copies the sources; `.venv/bin/` in the copy has the commands that the documents call.

    Args:
        root: where to.
        recipes: those of kernels/ that the copy has.
        built: whether what is built of asm/ is there, too.
    """
    root.mkdir()
    for name in _FILES:
        shutil.copy(ROOT / name, root)
    for name in _PARTS:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (root / KERNELS.name).glob("*.toml"):
        if path.stem not in recipes:
            path.unlink()
    if built:
        for folder in (path.name for path in (ROOT / "asm").iterdir()):
            if (BUILD / folder).is_dir():
                shutil.copytree(BUILD / folder, root / BUILD.name / folder)
        shutil.copy(BUILD / "nasm.json", root / BUILD.name)
    commands = root / ".venv/bin"
    commands.mkdir(parents=True)
    for name, arguments in _COMMANDS.items():
        path = commands / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    for name in _INSTALLED:
        (root / ".venv" / name).touch()
    return root


def environment(root: Path) -> dict[str, str]:
    """For what runs in a copy: its commands and its modules are found before those installed."""
    not_for_it = ("PYTEST_", "PYTHONDONTWRITEBYTECODE")  # the copy may be written to
    kept = {name: value for name, value in os.environ.items() if not name.startswith(not_for_it)}
    path = f"{root / '.venv/bin'}:{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(root), "COLUMNS": "100"}
