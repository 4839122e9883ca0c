"""A new architecture is a folder below asm/: nothing else is touched, and its sources are held."""

import filecmp
import re
import shutil
import subprocess
import sys
from pathlib import Path

from copied import copy_project, environment

from pybuild.paths import ROOT

NEW = "i386ng"
HELD = {
    "test_within_limit_and_reads_what_it_declares",
    "test_what_it_needs_can_be_had",
    "test_relocator_moves_and_enters",
    "test_relocator_moves_megabytes",
    "test_relocator_moves_short_ones_by_every_distance",
    "test_relocator_moves_megabytes_by_a_little",
}


def edit(path: Path, old: str, new: str) -> None:
    """Replaces the first of them."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def run(tree: Path, *arguments: str, status: int = 0) -> str:
    """Runs a module's command in the tree, as its reader would; gives what it printed."""
    ran = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tree,
        env=environment(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == status, ran.stdout
    return ran.stdout


def contract_tests(tree: Path, which: str, status: int = 0) -> dict[str, str]:
    """Runs those of the contract tests; gives each one's result, and all the output as ""."""
    command = ("pytest", "-v", "-m", "contract", "--tb=line", "tests/test_contract.py", "-k", which)
    output = run(tree, *command, status=status)
    results = re.findall(r"(?m)^tests/test_contract\.py::(\S+) (PASSED|FAILED)", output)
    return {"": output, **dict(results)}


def test_a_copied_and_edited_architecture_is_built_and_held(tmp_path: Path) -> None:
    tree = copy_project(tmp_path / "tree")
    folder, source = tree / "asm" / NEW, tree / "asm" / NEW / "relocator.asm"
    shutil.copytree(tree / "asm/i386", folder)
    edit(source, "    xor ebx, ebx\n", "    mov ebx, 0\n")
    edit(folder / "arch.toml", 'description = "', 'description = "another ')

    # What is built is in the copy: so it is the copy's pybuild that built it.
    assert re.search(rf"^assembled: .*\b{NEW}/relocator\b", run(tree, "invoke", "build"))
    old, new = ((tree / f"build/{a}/relocator.bin").read_bytes() for a in ("i386", NEW))
    assert new == old.replace(b"\x31\xdb", b"\xbb\0\0\0\0") != old
    assert run(tree, "invoke", "build") == "nothing has changed\n"

    results = contract_tests(tree, NEW)
    assert {f"{name}[{NEW}/relocator]": "PASSED" for name in HELD}.items() <= results.items()

    edit(source, "    cld\n", "")
    assert run(tree, "invoke", "build") == f"assembled: {NEW}/relocator\n"
    results = contract_tests(tree, f"{NEW}/relocator] and short", status=1)
    failed = f"test_relocator_moves_short_ones_by_every_distance[{NEW}/relocator]"
    assert results[failed] == "FAILED"
    assert re.search(rf"ContractError: {NEW}/relocator at 0x", results[""])

    for part in ("pybuild", "tests"):
        names = {str(p.relative_to(ROOT)) for p in (ROOT / part).rglob("*.py")}
        assert names == {str(p.relative_to(tree)) for p in (tree / part).rglob("*.py")}
        same, _, _ = filecmp.cmpfiles(ROOT, tree, sorted(names), shallow=False)
        assert set(same) == names
