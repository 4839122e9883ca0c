"""What a command must not import: starting Python is most of the time that a small build takes.

Each module has the reason why it can stay out. What click or the standard library's basic modules
bring along is there in any case.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from fakekernel import image

_ANYWAY: Final = "import click, dataclasses, json, pathlib, re, sys, threading, typing"
_CHILD: Final = f"""
{_ANYWAY}
anyway = set(sys.modules)
from pybuild.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(set(sys.modules) - anyway)), file=sys.stderr)
"""

# What few commands need.
_RARE: Final = {
    "asyncio": "QEMU's monitor: boot",
    "qemu": "QEMU's monitor: boot",
    "pybuild.boot": "boot",
    "pybuild.debugging.session": "debug",
    "rich": "what is for a person to look at",
    "xml.etree": "plan --svg",
    "pybuild.drawing.sheet": "plan",
    "pybuild.drawing.planreport": "plan",
    "pybuild.drawing.picture": "plan",
    "pybuild.headphases": "plan",
    "pybuild.into": "build --into",
    "pybuild.partitions": "build --into",
    "pybuild.rawdisk": "build --into",
    "pybuild.gpt": "build --gpt",
    "pybuild.qemuimg": "build -o x.qcow2 and the like",
    "pycdlib": "build -o x.iso",
    "pybuild.iso9660": "build -o x.iso; the target's own file needs it only to write",
    "pybuild.isonames": "build -o x.iso",
    "lief": "the PE headers of an EFI stub that is moved",
    "elftools": "the linker: only when a source of the assembler's has changed",
    "pybuild.linker": "only when a source of the assembler's has changed",
    "pybuild.contract": "only when a source of the assembler's has changed",
    "unicorn": "trace",
    "pybuild.trace": "trace",
    "pybuild.emulate": "trace",
    "subprocess": "NASM: only when something has changed; qemu-img",
    "tempfile": "imports random and shutil: only where there are temporary files",
    "ctypes": "renameat2(2), for target ram, which replaces a folder",
    "platformdirs": "the cache: not for a checkout",
    "importlib.metadata": "bootsplice --version",
    "pybuild.imagereport": "inspect of an image",
    "pybuild.reading.images": "inspect of an image",
    "pkgutil": "targets/ is a folder: pathlib lists it",
}
_NOT_FOR_HELP: Final = {  # where click asks it how wide the terminal is
    "shutil": "imports every compression that there is: rmtree() and which() are not worth that",
}
_ONLY_TO_BUILD: Final = {
    "pybuild.build": "the whole flow",
    "pybuild.assembler": "the whole flow",
    "hashlib": "the assembler's digests, and a disk's identity: loads OpenSSL",
}


@pytest.mark.parametrize(
    ("arguments", "slow"),
    [
        (("build", "kernel", "--initrd", "kernel", "-o", "x.img"), {**_RARE, **_NOT_FOR_HELP}),
        (("inspect", "kernel"), {**_RARE, **_NOT_FOR_HELP, **_ONLY_TO_BUILD}),
        (("build", "--help"), {**_RARE, **_ONLY_TO_BUILD}),
    ],
    ids=["build", "inspect", "help"],
)
def test_what_is_slow_is_not_imported(
    tmp_path: Path, arguments: tuple[str, ...], slow: Mapping[str, str]
) -> None:
    (tmp_path / "kernel").write_bytes(image())
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    imported = set(json.loads(run.stderr.splitlines()[-1]))
    assert "pybuild.cli" in imported
    assert {name: why for name, why in slow.items() if name in imported} == {}
