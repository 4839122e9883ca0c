"""A copy of the project: what a test may edit, build and run as its reader would."""

import os
import shlex
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

from pybuild.paths import ROOT

_PARTS: Final = ("asm", "docs", "pybuild", "pyproject.toml", "tasks.py", "tests")
_COMMANDS: Final = {  # and what Python is given for each
    "bootsplice": "-m pybuild.cli",
    "invoke": "-m invoke",
    "pytest": "-m pytest",
    "python": "",
}


def copy_project(root: Path) -> Path:
    """Copies the sources; `.venv/bin/` in the copy has the commands that the documents call."""
    root.mkdir()
    for name in _PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root)
    for name, arguments in _COMMANDS.items():
        path = root / ".venv/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return root


def environment(root: Path) -> dict[str, str]:
    """For what runs in a copy: Python finds the copy's modules before those that are installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTHONPATH": str(root), "COLUMNS": "100"}
