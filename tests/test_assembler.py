import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from nasm import ARCH, CONTRACT, NasmLog, make_tree, tool

from pybuild import assembler
from pybuild.assembler import Tree
from pybuild.errors import BuildError
from pybuild.paths import ROOT

FILES = {
    "i386/arch.toml": ARCH[32],
    "i386/a.asm": '%include "shared.inc"\n',
    "i386/b.asm": "bits 32\n    nop\n",
    "i386/blob.asm": 'incbin "asm/i386/blob.dat"\n',
    "i386/blob.dat": "blob",
    "x86_64/arch.toml": ARCH[64],
    "x86_64/sub/c.asm": 'bits 64\n%include "own.inc"\n    ret\n',
    "x86_64/own.inc": '%include "deep.inc"\n',
    "include/shared.inc": '%include "deep.inc"\nshared equ 1\n',
    "include/deep.inc": "    times 3 nop\n",
    "include/other.inc": "; nobody includes it\n",
}
ALL = ["i386/a", "i386/b", "i386/blob", "x86_64/sub/c"]
SUFFIXES = (".bin", ".d", ".lines.json", ".lst", ".o", ".rel.json")
ALL_LONG = {n: t for n, t in FILES.items() if n.startswith("i386")} | {"i386/arch.toml": ARCH[64]}
Change = Callable[[Tree, NasmLog], object]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NasmLog:
    """A nasm on PATH that notes its calls."""
    log = NasmLog(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{log.directory}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.fixture
def tree(tmp_path: Path, log: NasmLog) -> Tree:
    """A small tree, built."""
    tree = make_tree(tmp_path / "tree", FILES)
    assert assembler.build(tree) == ALL
    assert sorted(log.take()) == ["-v", *(f"{name}.asm" for name in ALL)]
    return tree


def outputs(tree: Tree) -> dict[str, bytes]:
    """Every output by its path under build/."""
    files = sorted(path for path in tree.build.rglob("*") if path.name.endswith(SUFFIXES))
    return {
        str(path.relative_to(tree.build)): (
            contents(path) if path.suffix == ".o" else path.read_bytes()
        )
        for path in files
    }


def contents(target: Path) -> bytes:
    """What an object has, but for what DWARF says of the folder that its source is in."""
    with target.open("rb") as stream:
        sections = list(ELFFile(stream).iter_sections())
        kept = [s for s in sections if "debug" not in s.name or s.name.endswith(".debug_line")]
        return b"".join(s.name.encode() + b"\0" + s.data() for s in kept)


def append(tree: Tree, name: str, text: str) -> None:
    path = tree.asm / name
    path.write_text(path.read_text() + text)


def adds(name: str, text: str) -> Change:
    return lambda tree, _: append(tree, name, text)


def test_each_source_has_its_outputs(tree: Tree) -> None:
    assert sorted(outputs(tree)) == sorted(f"{name}{suffix}" for name in ALL for suffix in SUFFIXES)
    made = {suffix: (tree.build / f"i386/a{suffix}") for suffix in SUFFIXES}
    assert made[".bin"].read_bytes() == b"\x90\x90\x90"
    assert json.loads(made[".rel.json"].read_text()) == {"relocations": [], "symbols": {}}
    assert re.search(r"00000000 90<rep 3h>", made[".lst"].read_text())
    assert made[".o"].read_bytes().startswith(b"\x7fELF\x01")
    assert (tree.build / "x86_64/sub/c.o").read_bytes().startswith(b"\x7fELF\x02")
    assert not list(tree.build.rglob(".asm.*"))


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("i386/a", ["a.asm", "arch.toml", "../include/deep.inc", "../include/shared.inc"]),
        ("i386/blob", ["blob.asm", "arch.toml", "blob.dat"]),
        ("x86_64/sub/c", ["sub/c.asm", "../include/deep.inc", "arch.toml", "own.inc"]),
    ],
)
def test_dependency_file_is_a_rule_for_make(tree: Tree, name: str, needs: list[str]) -> None:
    makefile = tree.build / f"{name}.d"
    target, _, prerequisites = makefile.read_text().replace("\\\n", " ").partition(": ")
    folder = f"asm/{name.partition('/')[0]}"
    assert target == f"{name}.o"
    assert prerequisites.split() == [os.path.normpath(f"{folder}/{path}") for path in needs]
    # And make itself reads it: nothing is missing, and there is no recipe to run.
    run = subprocess.run(
        [tool("make"), "-f", str(makefile), f"{name}.o"],
        cwd=tree.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Nothing to be done" in run.stdout


CHANGES: dict[str, tuple[Change, list[str]]] = {
    "source": (adds("i386/b.asm", "    nop\n"), ["i386/b"]),
    "incbin": (adds("i386/blob.dat", "!"), ["i386/blob"]),
    "include": (adds("include/shared.inc", "; more\n"), ["i386/a"]),
    "transitive": (adds("include/deep.inc", "; more\n"), ["i386/a", "x86_64/sub/c"]),
    "own-include": (adds("x86_64/own.inc", "; more\n"), ["x86_64/sub/c"]),
    "unused": (adds("include/other.inc", "; more\n"), []),
    "arch": (adds("x86_64/arch.toml", 'description = "another"\n'), ALL[3:]),
    "word-size": (lambda t, _: make_tree(t.root, ALL_LONG), ALL[:3]),
    "touched": (lambda t, _: (t.asm / "i386/b.asm").touch(), []),
    "touched-include": (lambda t, _: (t.asm / "include/shared.inc").touch(), []),
    "version": (lambda _, log: log.script("[ $1 = -v ] && echo NASM version 9 && exit"), ALL),
    "same-version": (lambda _, log: log.script(": the same version from another file"), []),
    # Where NASM finds %include "deep.inc" has changed.
    "shadowing": (lambda t, _: (t.asm / "i386/deep.inc").write_text("    hlt\n"), ["i386/a"]),
}


@pytest.mark.parametrize(("change", "stale"), CHANGES.values(), ids=CHANGES)
def test_only_what_changed_is_assembled(
    tree: Tree, log: NasmLog, change: Change, stale: list[str]
) -> None:
    change(tree, log)
    assert assembler.build(tree) == stale
    assert [call for call in log.take() if call != "-v"] == [f"{name}.asm" for name in stale]
    assert assembler.build(tree) == []
    assert log.take() == []


def test_nothing_changed_calls_nasm_not_once(tree: Tree, log: NasmLog) -> None:
    before = outputs(tree)
    for _ in range(2):
        assert assembler.build(tree) == []
    assert log.take() == []
    assert outputs(tree) == before


def test_unchanged_tree_needs_no_nasm(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tree.root))
    assert assembler.build(tree) == []
    assert tree.load("i386/b").bind({}) == b"\x90"
    append(tree, "i386/b.asm", "    nop\n")
    with pytest.raises(BuildError, match="nasm is not installed; run `apt-get install nasm`"):
        assembler.build(tree)


def test_fresh_tree_without_nasm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="nasm is not installed; run `apt-get install nasm`"):
        assembler.build(make_tree(tmp_path, FILES))


BAD_SOURCES = {
    "syntax": (CONTRACT + "    nop\n    mov eax\n", r"(?m)^asm/i386/b\.asm:5: error: "),
    "undefined": (CONTRACT + "    dd nowhere\n", r"(?m)^asm/i386/b\.asm:4: error: .*nowhere"),
    "include": (CONTRACT + '%include "no.inc"\n', r"asm/i386/b\.asm:4: .*no\.inc"),
    # What it includes cannot be known without NASM, so it could not be seen to have changed.
    "macro-include": (
        CONTRACT + '%define FILE "other.inc"\n%include FILE\n',
        r"asm/i386/b\.asm:5: %include ",
    ),
    "in-include": (CONTRACT + '%include "bad.inc"\n', r"(?m)^asm/include/bad\.inc:1: error: "),
    "own-words": (CONTRACT + "%error too big\n", r"asm/i386/b\.asm:4: error: too big"),
    "warning": (CONTRACT + "    db 0x1ff\n", r"warns about .*\n?asm/i386/b\.asm:4: warning"),
    "orphan": (CONTRACT + "label\n", r"asm/i386/b\.asm:4: .*label"),
    "no-contract": ("    nop\n", r"asm/i386/b\.asm: the header comment has no `enter` line"),
    "no-limit": (CONTRACT[: CONTRACT.index("; limit")], r"asm/i386/b\.asm: .* no `limit` line"),
    "other-mode": (
        CONTRACT.replace("protected32", "real16"),
        r"i386/b\.asm: .* `enter`: found real16, expected protected32, as .*i386/arch\.toml has it",
    ),
    "mode": (CONTRACT.replace("protected32", "real32"), r"asm/i386/b\.asm:1: .*'real32'.*real16"),
    "undeclared": (
        CONTRACT + "extern src\n    dd src\n",
        r"b\.asm: symbol 'src' is undefined in the code, but no `reads` line declares it",
    ),
    "unused": (
        CONTRACT + "; reads     src address 0..9\n",  # below, the header is over: it still counts
        r"b\.asm: symbol 'src' is declared by `reads`, but the code has no relocation for it",
    ),
    "limit": (CONTRACT + "    times 4097 nop\n", r"b\.asm: 4097 bytes, but its `limit` is 4096"),
    "not-text": (CONTRACT + "; \udcff\n    nop\n", r"asm/i386/b\.asm: .*"),
    "absolute": (CONTRACT + "bits 32\n    jmp 0x1000\n", r"\.text\+0x1: .*absolute"),
}


@pytest.mark.parametrize(("text", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_bad_source_leaves_what_was_built(tree: Tree, text: str, message: str) -> None:
    before = outputs(tree)
    source = tree.asm / "i386/b.asm"
    good = source.read_text()
    (tree.asm / "include/bad.inc").write_text("    mov eax\n")
    source.write_bytes(text.encode(errors="surrogateescape"))
    for _ in range(2):  # the second time, too: the failure is not taken for a success
        with pytest.raises(BuildError, match=message):
            assembler.build(tree)
    assert outputs(tree) == before
    assert not list(tree.build.rglob(".asm.*"))
    source.write_text(good)
    assert assembler.build(tree) == []


def test_new_architecture_is_found(tree: Tree, log: NasmLog) -> None:
    make_tree(tree.root, {"mine/arch.toml": ARCH[64], "mine/x.asm": "bits 64\n    push r15\n"})
    assert assembler.build(tree) == ["mine/x"]
    assert log.take() == ["mine/x.asm"]
    assert tree.load("mine/x").bind({}) == b"\x41\x57"


def test_same_inputs_same_bytes_wherever_they_are(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "much" / "longer" / "with a blank"]
    trees = [make_tree(place, FILES) for place in places]
    for tree in trees:
        (tree.root / "asm/real").symlink_to(ROOT / "asm/real")
        (tree.root / "asm/include/bootproto.inc").symlink_to(ROOT / "asm/include/bootproto.inc")
        assert assembler.build(tree) == ALL
    first, second = (outputs(tree) for tree in trees)
    assert first == second
    assert not [name for name, data in first.items() if str(tmp_path).encode() in data]


def test_environment_does_not_change_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASMENV", "-DFOO")
    tree = make_tree(
        tmp_path, {"i386/arch.toml": ARCH[32], "i386/x.asm": "%ifndef FOO\nnop\n%endif"}
    )
    assembler.build(tree)
    assert tree.load("i386/x").code == b"\x90"


BUILD = "import sys; from pathlib import Path; from pybuild import assembler as a; "
BUILD += "t = Path(sys.argv[1]); print(a.build(a.Tree(t, t / 'build')))"


def start(tree: Tree) -> subprocess.Popen[str]:
    """Another process that builds the tree."""
    command = [sys.executable, "-c", BUILD, str(tree.root)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def test_two_processes_do_not_disturb_each_other(tmp_path: Path, log: NasmLog) -> None:
    tree, alone = (make_tree(tmp_path / name, FILES) for name in ("both", "alone"))
    assembler.build(alone)
    log.take()
    log.script("sleep 0.1")
    ends = [process.communicate() for process in [start(tree), start(tree), start(tree)]]
    assert sorted(stdout for stdout, _ in ends) == [f"{ALL}\n", "[]\n", "[]\n"], ends
    assert sorted(log.take()) == ["-v", *(f"{name}.asm" for name in ALL)]
    assert outputs(tree) == outputs(alone)


def test_killed_build_recovers(tree: Tree, log: NasmLog) -> None:
    before = outputs(tree)
    for name in ("a", "b"):
        append(tree, f"i386/{name}.asm", "; more\n")
    log.script(after="case $* in *b.asm) kill -9 $PPID; esac")
    assert start(tree).wait() == -signal.SIGKILL
    assert log.take()[-2:] == ["i386/a.asm", "i386/b.asm"]
    log.script()
    assert assembler.build(tree) == ["i386/b"]
    assert {n: d for n, d in outputs(tree).items() if not n.endswith(".lst")} == {
        n: d for n, d in before.items() if not n.endswith(".lst")
    }
    assert not list(tree.build.rglob(".asm.*"))


@pytest.mark.parametrize("at", range(8))
def test_interrupted_between_two_outputs(
    tree: Tree, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = outputs(tree)
    source = tree.asm / "i386/b.asm"
    good = source.read_text()
    source.write_text(good.replace("nop", "hlt"))
    steps = iter(range(at))

    def replace(self: Path, target: Path) -> Path:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        self.rename(target)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            assembler.build(tree)
    source.write_text(good)
    assembler.build(tree)
    assert outputs(tree) == before


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "{}", '{"inputs": []}', '{"inputs": {"asm": 1}}']
)
@pytest.mark.parametrize("victim", ["i386/b.stamp", "nasm.json"])
def test_damaged_stamp_recovers(tree: Tree, victim: str, damage: str) -> None:
    before = outputs(tree)
    (tree.build / victim).write_text(damage)
    assert assembler.build(tree) == (["i386/b"] if victim == "i386/b.stamp" else [])
    assert outputs(tree) == before


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".stamp"])
def test_missing_output_is_made_again(tree: Tree, suffix: str) -> None:
    before = outputs(tree)
    (tree.build / f"i386/b{suffix}").unlink()
    assert assembler.build(tree) == ["i386/b"]
    assert outputs(tree) == before


def test_edit_during_the_build_is_not_lost(tree: Tree, log: NasmLog) -> None:
    source = tree.asm / "i386/b.asm"
    append(tree, "i386/b.asm", "    nop\n")
    log.script(after=f"case $* in *b.asm) grep -q hlt {source} || echo hlt >>{source};; esac")
    assembler.build(tree)
    assembler.build(tree)
    assert tree.load("i386/b").code == b"\x90\x90\xf4"


def test_a_nasm_that_does_not_run(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "fake" / "nasm"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    with pytest.raises(BuildError, match="nasm -v: failed: broken"):
        assembler.build(tree)
