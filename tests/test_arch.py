"""arch.toml: what it may say, what is refused, and that the sources beside it are held to it."""

from pathlib import Path

import pytest
from nasm import ARCH, assemble, make_tree

from pybuild import arch, assembler, linker, relocations
from pybuild.arch import Arch
from pybuild.assembler import Tree
from pybuild.errors import BuildError
from pybuild.paths import BUILD, ROOT


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (16, ("elf32", "real16", "i386")),
        (32, ("elf32", "protected32", "i386")),
        (64, ("elf64", "long64", "x86_64")),
    ],
)
def test_every_word_size(tmp_path: Path, bits: int, said: tuple[str, str, str]) -> None:
    path = tmp_path / "arch.toml"
    path.write_text(ARCH[bits])
    assert arch.read(path) == Arch(path, "", bits, *said)
    path.write_text(f'description = "Mine"\n{ARCH[bits]}')
    assert arch.read(path) == Arch(path, "Mine", bits, *said)
    assert said[1] in arch.MODES
    assert said[2] in relocations.TABLES


@pytest.mark.parametrize(
    ("name", "bits"),
    [("real/early", 16), ("i386/relocator", 32), ("i386", 32), ("x86_64/relocator", 64)],
)
def test_the_word_size_by_the_name_of_a_binary(name: str, bits: int) -> None:
    assert Tree(ROOT, BUILD).arch(name).bits == bits


BAD = {
    "no TOML": ("bits = 32", "bits = ", r"Invalid value \(at line 1, column 8\)"),
    "no text": ("bits", "\udcff", "'utf-8' codec can't decode byte 0xff"),
    "empty": (ARCH[32], "", "bits is missing, expected one of 16, 32, 64"),
    "no bits": ("bits = 32\n", "", "bits is missing, expected one of 16, 32, 64"),
    "other bits": ("32\nf", "8\nf", "bits is 8, expected one of 16, 32, 64"),
    "text for bits": ("32\nf", "'32'\nf", "bits is '32', expected one of 16, 32, 64"),
    "fraction": ("32\nf", "32.0\nf", r"bits is 32\.0, expected one of 16, 32, 64"),
    "no format": ('format = "elf32"\n', "", "format is missing, expected one of elf32, elf64"),
    "other format": ("elf32", "coff", "format is 'coff', expected one of elf32, elf64"),
    "list": ('"elf32"', '["elf32"]', r"format is \['elf32'\], expected one of elf32, elf64"),
    "no mode": (
        'enter = "protected32"\n',
        "",
        "enter is missing, expected one of real16, protected32, long64",
    ),
    "no table": (
        'relocations = "i386"\n',
        "",
        "relocations is missing, expected one of i386, x86_64",
    ),
    "description": ("bits", "description = 1\nbits", "description is 1, expected text"),
    "unknown": (
        "bits",
        "word = 32\nbits",
        "unknown key 'word', expected one of description, bits, format, enter, relocations",
    ),
    "format does not go with bits": (
        "elf32",
        "elf64",
        "format is 'elf64', which does not go with bits = 32; expected 'elf32'",
    ),
    "enter does not": (
        "protected32",
        "real16",
        "enter is 'real16', which does not go with bits = 32; expected 'protected32'",
    ),
    "relocations do not": (
        "i386",
        "x86_64",
        "relocations is 'x86_64', which does not go with bits = 32; expected 'i386'",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), BAD.values(), ids=BAD)
def test_what_makes_no_sense(tmp_path: Path, old: str, new: str, message: str) -> None:
    tree = make_tree(tmp_path, {"new/arch.toml": ARCH[32], "new/x.asm": ""})
    path = tree.asm / "new/arch.toml"
    assert ARCH[32].count(old) == 1
    path.write_bytes(ARCH[32].replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(BuildError, match=rf"^{path}: {message}") as raised:
        assembler.build(tree)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["new/x.asm", "include/x.asm", "x.asm"])
def test_a_source_without_an_architecture(tmp_path: Path, name: str) -> None:
    tree = make_tree(tmp_path, {name: ""})
    folder = tree.asm / Path(name).parts[0]
    message = f"^{tree.asm / name}: its architecture has no {folder / 'arch.toml'}$"
    with pytest.raises(BuildError, match=message):
        assembler.build(tree)


@pytest.mark.parametrize(("bits", "other"), [(16, 32), (32, 16), (32, 64), (64, 32)])
def test_a_source_that_is_entered_in_another_mode(tmp_path: Path, bits: int, other: int) -> None:
    tree = make_tree(tmp_path, {"new/arch.toml": ARCH[bits], "new/x.asm": ""})
    source, path = tree.asm / "new/x.asm", tree.asm / "new/arch.toml"
    wanted, found = (next(m for m in arch.MODES if str(b) in m) for b in (bits, other))
    source.write_text(f"; enter     {found}\n; leaves    0x1000\n; limit     16\n")
    message = f"^{source}: .*`enter`: found {found}, expected {wanted}, as {path} has it$"
    for _ in range(2):
        with pytest.raises(BuildError, match=message):
            assembler.build(tree)
    source.write_text(source.read_text().replace(found, wanted))
    assert assembler.build(tree) == ["new/x"]


def test_an_object_for_another_machine(tmp_path: Path) -> None:
    objects = {bits: assemble(tmp_path, "", f"elf{bits}").read_bytes() for bits in (32, 64)}
    target = tmp_path / "t.o"
    for bits, table, machines in (
        (32, "x86_64", "EM_386, expected .* for EM_X86_64"),
        (64, "i386", "EM_X86_64, expected .* for EM_386"),
    ):
        target.write_bytes(objects[bits])
        with pytest.raises(BuildError, match=rf"^{target}: ET_REL for {machines}$"):
            linker.link(target, "t/t", table)
        (right,) = relocations.TABLES.keys() - {table}
        assert linker.link(target, "t/t", right).code == b""


def test_what_is_no_file_is_no_source(tmp_path: Path) -> None:
    """Emacs' lock of a file that is being edited is a link to nowhere."""
    tree = make_tree(tmp_path, {"new/arch.toml": ARCH[32], "new/x.asm": ""})
    (tree.asm / "new/.#x.asm").symlink_to("me@here.4711:1763870798")
    (tree.asm / "new/folder.asm").mkdir()
    assert assembler.build(tree) == ["new/x"]


def test_what_cannot_be_linked_is_said_of_the_source(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path, {"new/arch.toml": ARCH[32], "new/x.asm": "bits 32\n    jmp 0x8000\n"}
    )
    with pytest.raises(BuildError, match=r"^asm/new/x\.asm: \.text\+0x1: R_386_PC32 against an"):
        assembler.build(tree)
