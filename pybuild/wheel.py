"""The build hook of the wheel: NASM is needed where it is built, and not where it is installed.

hatchling runs it (pyproject.toml) for a wheel, from a checkout or an sdist. It is itself no part of
the wheel.
"""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class FlatBinaries(BuildHookInterface[Any]):
    """Assembles what has changed, and packs the flat binaries as paths.py expects them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the wheel's files.

        Args:
            version: "standard"; or "editable" for a checkout, which assembles when it builds.
            build_data: `force_include` has more files, each with its place in the wheel.
        """
        if version == "editable":
            return
        sys.path.insert(0, self.root)  # an isolated build has no pybuild, and others another one
        from pybuild import assembler, flat, lines
        from pybuild.errors import reported

        tree = assembler.Tree(Path(self.root), Path(self.root, "build"))
        with reported(lambda message, _: sys.exit(message)):
            assembler.build(tree)
        # Not the objects: they name the folder that they were made in.
        for source in tree.sources():
            for file_of in (flat.binary_path, flat.table_path, lines.table_path):
                path = file_of(tree.build / source.name)
                place = f"pybuild/assembled/{path.relative_to(tree.build)}"
                build_data["force_include"][str(path)] = place
