"""Assembles what changed: every `asm/<arch>/**/*.asm` to an object, a listing and a flat binary.

Under `build/<arch>/` each source `name.asm` has `name.o`, `name.lst` (the listing), `name.d`
(its dependencies, as make wants them), `name.bin` and `name.rel.json` (the flat binary),
`name.lines.json` (its source lines), and `name.stamp` (digests of all that these were made from).

Every image that is built asks first whether anything here has changed. What is needed only if
something has (subprocess, tempfile, the linker with pyelftools) is imported there: it takes longer
than the answer.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pybuild import arch, flat, flock, fresh, paths
from pybuild.arch import Arch
from pybuild.errors import BuildError
from pybuild.flat import FlatBinary
from pybuild.progress import Progress, silent

# Relocations against what a source leaves open are what we are about; the linker refuses those
# that do not fit. NASM 2.16.01 knows no group of such warnings, and has fewer of them.
_WARNINGS: Final = ("-Wall", "-Wno-unknown-warning", "-Wno-reloc", "-Werror=label-orphan")
# Source lines, for the tracer and the debugger; the code is the same.
_DEBUG: Final = ("-g", "-F", "dwarf")
_OUTPUTS: Final = (".o", ".lst", ".d", ".bin", ".rel.json", ".lines.json")
_INCLUDE: Final = re.compile(r"""^\s*%include\s+(?:["'`]([^"'`]+)["'`])?""", re.I | re.M)
# A change in how objects are read and linked makes the flat binaries anew, too.
_LINKING: Final = tuple(
    Path(__file__).with_name(f"{module}.py")
    for module in ("arch", "contract", "dwarf", "flat", "linker", "lines", "relocations")
)


@dataclass(frozen=True)
class Source:
    """An assembler source.

    Attributes:
        path: where it is.
        name: `<arch>/<name>`, as messages and the planner call it.
        arch: what the architecture's arch.toml says.
    """

    path: Path
    name: str
    arch: Arch


@dataclass(frozen=True)
class Tree:
    """A source tree and what is built from it.

    Attributes:
        root: the directory that has asm/.
        build: where the outputs go.
    """

    root: Path
    build: Path

    @property
    def asm(self) -> Path:
        """The sources."""
        return self.root / "asm"

    def sources(self) -> list[Source]:
        """Every source, by name.

        Raises:
            BuildError: a directory with sources has no usable arch.toml.
        """
        found = []
        known: dict[str, Arch] = {}
        for path in sorted(self.asm.rglob("*.asm")):
            if not path.is_file():  # a lock of Emacs' is a link to nowhere
                continue
            relative = path.relative_to(self.asm)
            folder = relative.parts[0]
            if folder not in known:
                try:
                    known[folder] = self.arch(folder)
                except (FileNotFoundError, NotADirectoryError) as error:
                    raise BuildError(f"{path}: its architecture has no {error.filename}") from error
            found.append(Source(path, str(relative.with_suffix("")), known[folder]))
        return found

    def arch(self, name: str) -> Arch:
        """The architecture `<arch>`, or that of the source or flat binary `<arch>/<name>`.

        Raises:
            BuildError: its arch.toml makes no sense.
            OSError: it has none.
        """
        return arch.read(self.asm / name.partition("/")[0] / arch.FILE)

    def load(self, name: str) -> FlatBinary:
        """The flat binary of `<arch>/<name>`, as build() left it."""
        return flat.load(name, self.build / name)


def own(progress: Progress = silent) -> Tree:
    """Bootsplice's own sources and their flat binaries, assembled anew where one has changed.

    Raises:
        BuildError: as by `build`.
    """
    tree = Tree(paths.ROOT, paths.BUILD)
    build(tree, progress)
    return tree


def build(tree: Tree, progress: Progress = silent) -> list[str]:
    """Brings every flat binary up to date.

    An installed bootsplice has its own ready in its package, where nothing is ever written.

    Args:
        tree: the sources.
        progress: is told what is assembled.

    Returns:
        The names of the sources that were assembled; empty if nothing had changed.

    Raises:
        BuildError: NASM is missing or refuses a source, or a source breaks its contract.
    """
    if tree.build == paths.BUILD and not paths.IS_CHECKOUT:
        return []
    tree.build.mkdir(parents=True, exist_ok=True)
    with flock.held(tree.build / ".lock"):
        for left_over in tree.build.glob(".asm.*"):  # by a build that was killed
            import shutil

            shutil.rmtree(left_over, ignore_errors=True)
        version = NasmVersion(tree.build / "nasm.json")
        linking = {path.name: fresh.digest(path) for path in _LINKING}
        return [
            source.name
            for source in tree.sources()
            if _assemble_if_stale(tree, source, version, linking, progress)
        ]


def nasm() -> str:
    """Where NASM is.

    Raises:
        BuildError: it isn't installed.
    """
    found = _which_nasm()
    if found is None:
        raise BuildError("nasm is not installed; run `apt-get install nasm` (or see nasm.us)")
    return found


def _which_nasm() -> str | None:
    """Like shutil.which(): importing shutil takes longer than all that is done here."""
    for directory in os.get_exec_path():
        path = Path(directory, "nasm")
        if os.access(path, os.X_OK) and path.is_file():
            return str(path)
    return None


class NasmVersion:
    """NASM's version, asked for once as long as the program itself stays the same file."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._version: str | None = None

    def __call__(self) -> str:
        """What `nasm -v` prints; if NASM is gone, what it printed when it was there.

        Raises:
            BuildError: NASM isn't installed and never was, or doesn't run.
        """
        if self._version is None:
            known = fresh.read_stamp(self._memory) or {}
            version = known.get("version")
            if _which_nasm() is None and isinstance(version, str):
                return version  # what it has made is as good without it
            path = Path(nasm()).resolve()
            status = path.stat()
            key = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
            if isinstance(version, str) and {name: known.get(name) for name in key} == key:
                self._version = version
            else:
                import subprocess

                run = subprocess.run([path, "-v"], capture_output=True, text=True, check=False)
                if run.returncode:
                    raise BuildError(f"{path} -v: failed: {run.stderr.strip() or run.returncode}")
                self._version = run.stdout.strip()
                fresh.write_stamp(self._memory, {**key, "version": self._version})
        return self._version


def _assemble_if_stale(
    tree: Tree,
    source: Source,
    version: NasmVersion,
    linking: dict[str, str],
    progress: Progress,
) -> bool:
    stem = tree.build / source.name
    stamp = stem.with_name(stem.name + ".stamp")
    outputs = [stem.with_name(stem.name + suffix) for suffix in _OUTPUTS]
    known = fresh.read_stamp(stamp)
    if known is not None and all(path.exists() for path in outputs):
        made_from = known.get("inputs")
        if isinstance(made_from, dict):
            inputs = [tree.root / name for name in made_from]
            digests = fresh.digests([source.path, *inputs], tree.root)
            if known == _key(source, version(), digests, linking):
                return False
    import tempfile

    progress(f"assembling {source.name}")
    stem.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".asm.", dir=tree.build) as scratch:
        includes = _includes(tree, source)
        before = fresh.digests(includes, tree.root)
        inputs = _assemble(tree, source, Path(scratch) / stem.name, includes)
        stamp.unlink(missing_ok=True)  # from here on the outputs are of two makes
        for suffix, path in zip(_OUTPUTS, outputs, strict=True):
            (Path(scratch) / (stem.name + suffix)).replace(path)
    # What was edited while NASM ran is taken as it was before, and so assembled again next time.
    digests = {**fresh.digests(inputs, tree.root), **before}
    fresh.write_stamp(stamp, _key(source, version(), digests, linking))
    return True


def _key(
    source: Source, version: str, digests: dict[str, str], linking: dict[str, str]
) -> dict[str, object]:
    return {
        "nasm": version,
        "flags": _flags(source),
        "inputs": digests,
        "linking": linking,
    }


def _include_path(source: Source) -> tuple[str, str]:
    """Where %include looks, relative to the tree's root: the architecture's own files first."""
    return f"asm/{source.name.partition('/')[0]}/", "asm/include/"


def _flags(source: Source) -> list[str]:
    path = [f"-I{directory}" for directory in _include_path(source)]
    return ["-f", source.arch.format, *_DEBUG, *path, *_WARNINGS]


def _assemble(tree: Tree, source: Source, stem: Path, includes: set[Path]) -> list[Path]:
    """Runs NASM and the linker; returns the source and what its outputs depend on."""
    import subprocess

    from pybuild import contract, dwarf, lines, linker

    terms = contract.read(source.path)
    if terms.enter != source.arch.enter:
        raise BuildError(
            f"{source.path}: contract line `enter`: found {terms.enter}, "
            f"expected {source.arch.enter}, as {source.arch.path} has it"
        )
    relative = str(source.path.relative_to(tree.root))
    command = [nasm(), *_flags(source), "-o", f"{stem}.o", "-l", f"{stem}.lst"]
    command += ["-MD", f"{stem}.d", "-MT", f"{source.name}.o", relative]
    environment = {name: value for name, value in os.environ.items() if name != "NASMENV"}
    run = subprocess.run(
        command, cwd=tree.root, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode or run.stderr.strip():
        verb = "refuses" if run.returncode else "warns about"
        raise BuildError(f"nasm {verb} {relative}:\n{run.stderr.strip()}")
    inputs = {*includes, *_dependencies(tree, Path(f"{stem}.d"))}
    _write_dependencies(tree, source, Path(f"{stem}.d"), {p for p in inputs if p.is_file()})
    written = Path(f"{stem}.o")
    binary = linker.link(written, source.name, source.arch.relocations, shown=Path(relative))
    terms.check(binary)
    binary.save(stem)
    lines.of_object(written).save(stem)
    dwarf.correct(written)
    return sorted(inputs)


def _dependencies(tree: Tree, makefile: Path) -> list[Path]:
    """The prerequisites of the one rule in NASM's dependency file."""
    rule = makefile.read_text().replace("\\\n", " ").splitlines()[0]
    names = re.split(r"(?<!\\)\s+", rule.partition(": ")[2].strip())
    return [tree.root / name.replace("\\ ", " ") for name in names]


def _includes(tree: Tree, source: Source) -> set[Path]:
    """A source and its arch.toml, the files included below it, and where NASM looked first.

    A file that comes to be in such a place later is what NASM would include from then on.
    NASM 2.16's -MD leaves them out, and its -M cannot read a source that has `%if $ - start`.
    """
    found = {source.path, source.arch.path}
    to_read = [source.path]
    while to_read:
        reading = to_read.pop()
        text = reading.read_text(encoding="utf-8", errors="replace")
        for match in _INCLUDE.finditer(text):
            if match[1] is None:
                line = text.count("\n", 0, match.end()) + 1
                raise BuildError(
                    f"{reading.relative_to(tree.root)}:{line}: %include of something else than "
                    "a file's name in quotes: what this source depends on cannot be seen"
                )
            for directory in (".", *_include_path(source)):
                path = tree.root / directory / match[1]
                if path.is_file() and path not in found:
                    to_read.append(path)
                found.add(path)
                if path.is_file():
                    break
    return found


def _write_dependencies(tree: Tree, source: Source, path: Path, inputs: set[Path]) -> None:
    names = [
        str(name.relative_to(tree.root)).replace(" ", "\\ ")
        for name in sorted(inputs - {source.path})
    ]
    rule = " \\\n  ".join([f"{source.name}.o: {source.path.relative_to(tree.root)}", *names])
    path.write_text(rule + "\n")
