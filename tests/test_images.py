"""Images of a small tree of our own: which are built, from what, and when again."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pybuild import images, material, paths, recipe
from pybuild.errors import BuildError, InputError
from pybuild.material import Workshop

KERNEL = '{ source = "probe/probe.asm", defines = { PM_SIZE = 4097, PROTOCOL = 0x20a } }'
ALL_IMAGES = ["first.pc", "first.board", "second.pc", "second.pc.img"]
BOTH = ["second.pc", "second.pc.img"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the source tree with two recipes, built nowhere else."""
    root = tmp_path / "tree"
    kernels = root / "kernels"
    shutil.copytree(paths.ROOT / "asm", root / "asm")
    shutil.copytree(paths.KERNELS / "probe", kernels / "probe")
    (kernels / "one").write_bytes(b"first initrd")
    (root / "board.toml").write_text('base = "pc"\nram = 0x4000000\n')
    machines = 'machine = ["pc", "../board.toml"]'
    write_recipe(kernels, "first", 'initrd = "one"', machines, 'target = "ram"')
    write_recipe(kernels, "second", 'cmdline = "quiet"', TARGETS)
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "KERNELS", kernels)
    monkeypatch.setattr(paths, "BUILD", root / "build")
    monkeypatch.setattr(paths, "IMAGES", root / "build" / "images")
    return root


TARGETS = 'target = ["ram", "disk"]'


def write_recipe(kernels: Path, name: str, *lines: str, kernel: str = KERNEL) -> None:
    (kernels / f"{name}.toml").write_text("\n".join([f"kernel = {kernel}", *lines]))


def shop() -> Workshop:
    return Workshop(paths.ROOT, paths.BUILD, paths.ROOT / "cache", print)


def built() -> list[str]:
    """What building all builds; the rest must be unchanged."""
    outcome = images.build_all(shop())
    assert outcome.left_out == {}
    names = [name for each in recipe.read_all(paths.KERNELS) for name in each.images]
    assert sorted(outcome.built + outcome.unchanged) == sorted(names)
    return outcome.built


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing": (lambda _: None, []),
    "a file is touched": (lambda root: os.utime(root / "kernels/one"), []),
    "a comment in a recipe": (lambda root: append(root / "kernels/first.toml", "\n# yes"), []),
    "its expect": (lambda root: append(root / "kernels/second.toml", "\nexpect = 'x'"), []),
    "a recipe": (
        lambda root: write_recipe(root / "kernels", "second", 'cmdline = "debug"', TARGETS),
        BOTH,
    ),
    "an initrd": (
        lambda root: append(root / "kernels/one", "more"),
        ["first.pc", "first.board"],
    ),
    "a machine": (
        lambda root: append(
            root / "board.toml", "[[reserved]]\nname = 'a'\nstart = 0x300000\nend = 0x400000\n"
        ),
        ["first.board"],
    ),
    "a recipe's define": (
        lambda root: write_recipe(
            *(root / "kernels", "second", 'cmdline = "quiet"', TARGETS),
            kernel=KERNEL.replace("4097", "4098"),
        ),
        BOTH,
    ),
    "a source of the probe": (
        lambda root: append(root / "kernels/probe/setup.inc", "\n        nop\n"),
        ALL_IMAGES,
    ),
    "a stage of ours": (
        lambda root: append(root / "asm/real/early.asm", "\n        nop\n"),
        ALL_IMAGES,
    ),
    "an option of a target": (
        lambda root: append(root / "kernels/second.toml", "\noptions = { size = '16M' }"),
        ["second.pc.img"],
    ),
    "a disk is gone": (
        lambda root: (root / "build/images/second.pc.img").unlink(),
        ["second.pc.img"],
    ),
    "an image is gone": (
        lambda root: shutil.rmtree(root / "build/images/first.pc"),
        ["first.pc"],
    ),
    "a file of an image is gone": (
        lambda root: (root / "build/images/second.pc/setup.bin").unlink(),
        ["second.pc"],
    ),
    "a stamp is broken": (
        lambda root: (root / "build/images/.second.pc.stamp").write_text("{"),
        ["second.pc"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_just_what_has_changed_is_built_anew(tree: Path, change: str) -> None:
    assert built() == ALL_IMAGES
    make, expected = CHANGES[change]
    make(tree)
    assert built() == expected
    assert built() == []
    kept = {path.name for path in (tree / "build/images").iterdir()} - {".lock"}
    assert kept == {*ALL_IMAGES, *(f".{name}.stamp" for name in ALL_IMAGES)}


def test_an_image_whose_build_was_killed_is_built_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the recipe is changed back to what the older stamp is of."""
    built()
    recipe_file = tree / "kernels/second.toml"
    before = recipe_file.read_text()
    recipe_file.write_text(before.replace("quiet", "debug"))
    with monkeypatch.context() as patched:
        patched.setattr("pybuild.fresh.write_stamp", interrupt)
        with pytest.raises(KeyboardInterrupt):
            images.build_all(shop())
    recipe_file.write_text(before)
    assert built() == ["second.pc"]  # the disk was not begun
    assert (tree / "build/images/second.pc/cmdline.bin").read_bytes() == b"quiet\0"


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_image_is_of_its_recipe(tree: Path) -> None:
    built()
    folder = tree / "build/images/first.board"
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["machine"], plan["ram"]) == ("board", 0x4000000)
    assert (folder / "initrd.bin").read_bytes() == b"first initrd"
    assert (tree / "build/images/second.pc/cmdline.bin").read_bytes() == b"quiet\0"


@pytest.mark.parametrize(
    ("lines", "error", "why"),
    [
        (['initrd = "none"'], InputError, "none: cannot be read as an initrd: No such file"),
        (['initrd = "probe"'], InputError, "probe: .*directory"),
        (['machine = "vax"'], InputError, "recipe second: machine '.*vax'"),
        (['initrd = { source = "none.asm" }'], InputError, "recipe second: .*none.asm: no such"),
        (['initrd = { initramfs = "none" }'], InputError, "recipe second: .*none: no such file"),
        (['options = { size = "1M" }'], InputError, "recipe second: option size is 1048576 bytes"),
        (['initrd = { source = "one" }'], BuildError, "nasm refuses .*one"),
    ],
)
def test_a_recipe_that_cannot_be_built(
    tree: Path, lines: list[str], error: type[Exception], why: str
) -> None:
    write_recipe(tree / "kernels", "second", *lines)
    with pytest.raises(error, match=why):
        images.build_all(shop())
    assert not (tree / "build/images/second.pc.img").exists()
    assert (tree / "build/images/first.pc").is_dir()


def test_a_source_may_lie_beside_its_recipe(tree: Path) -> None:
    (tree / "kernels/floppy.asm").write_text("db 'a floppy'\n")
    write_recipe(tree / "kernels", "second", 'initrd = { source = "floppy.asm" }', TARGETS)
    assert "second.pc" in built()
    assert (tree / "build/images/second.pc/initrd.bin").read_bytes() == b"a floppy"


def test_images_are_booted_by_name(tree: Path) -> None:
    with pytest.raises(
        InputError, match=r"image 'third': unknown, expected one of first\.pc, first"
    ):
        images.boot_image("third", 1)
    for name, image in (("first", "first.pc"), ("second.pc.img", "second.pc.img")):
        with pytest.raises(InputError, match=rf"images/{re.escape(image)}: "):
            images.boot_image(name, 1)
    assert material.is_fetched({"initramfs": "x"})
    assert not (tree / "build").exists()
