"""Finds the shared libraries that programs need, and the Debian packages that have them.

A package's Depends name the packages of the libraries that its programs are linked with
(Debian policy 8.6), but not which of them has which library. Most are named after it (8.1); those
are downloaded first. A library that is still missing is in a package that all depend on whose
files need it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pybuild import apt
from pybuild.xen import elf
from pybuild.xen.packages import NEEDS, File, Packages, merged

# Where ld.so looks by itself, of amd64 and of i386.
_FOLDERS: Final = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/i386-linux-gnu",
    "usr/lib64",
    "usr/lib",
)


def resolve(programs: Iterable[File], packages: Packages) -> list[File]:
    """All the libraries that programs need, and those that these need, and their interpreters.

    Their packages are added to `packages`.

    Raises:
        apt.Unavailable: a library is in no package, or a package cannot be downloaded.
        BuildError: a program or a library is no ELF file that can be read.
    """
    new = list(programs)
    wanted: dict[str, list[File]] = {}  # sonames and interpreters, and which files need them
    found: dict[str, File] = {}
    while True:
        for file in new:
            for name in _needs(file):
                wanted.setdefault(name, []).append(file)
        missing = {name: files for name, files in wanted.items() if name not in found}
        here = {name: library for name in missing if (library := _find(name, packages))}
        found |= here
        new = list(here.values())
        if not missing:
            return list(found.values())
        if not here:
            packages.get(_providers(missing, packages))


def is_named_after(package: str, soname: str) -> bool:
    """Whether a package's name is a library's: libc6 and libc.so.6, libbz2-1.0 and libbz2.so.1.0.

    Hyphens don't count: libglib-2.0.so.0 is in libglib2.0-0. Nor does the t64 at the end of the
    names of those that were built anew for 64-bit time_t.
    """
    library = soname.replace(".so.", "").removesuffix(".so").lower()
    return _plain(package.removesuffix("t64")) == _plain(library)


def _plain(name: str) -> str:
    return re.sub("[-_]", "", name)


def _needs(file: File) -> list[str]:
    path = file.chain()[-1].path  # a link may be one from the root: not to this system's file
    interpreter = elf.interpreter(path)
    return [*elf.needed(path), *([interpreter] if interpreter else [])]


def _find(name: str, packages: Packages) -> File | None:
    """The file for a soname, or an interpreter's path, if an unpacked package has it."""
    paths = [merged(name[1:])] if name[0] == "/" else [f"{folder}/{name}" for folder in _FOLDERS]
    for path in paths:
        for package in packages.unpacked.values():
            if path in package.files:
                return File(package, path)
    return None


def _providers(missing: Mapping[str, Sequence[File]], packages: Packages) -> set[str]:
    """The packages to get next, for the libraries that are missing and the files that need them."""
    new = packages.known.difference(packages.unpacked)
    named: set[str] = set()
    shared: set[str] = set()
    for library, files in missing.items():
        depends = [new.intersection(file.package.depends) for file in files]
        named |= {name for each in depends for name in each if is_named_after(name, library)}
        shared |= frozenset.intersection(*depends)
    if not (named or shared):
        library, (file, *_) = next(iter(missing.items()))
        raise apt.Unavailable(
            f"{library}: in none of the packages that {file.package.name} depends on, and its "
            f"{file.name} needs it; {NEEDS}"
        )
    return named or shared
