import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pybuild import images, machine, material, paths, recipe, targets
from pybuild.errors import BuildError, InputError
from pybuild.material import Workshop
from pybuild.recipe import Recipe

ALL = recipe.read_all(paths.KERNELS)
KERNEL = '{ source = "probe/probe.asm", defines = { PM_SIZE = 4097, PROTOCOL = 0x20a } }'


def read(folder: Path, text: str) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(text)
    return recipe.read(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert message.startswith(f"{folder}/mine.toml: ")
    assert message.isprintable()
    return message


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_recipes_that_come_with_bootsplice(each: Recipe) -> None:
    assert each.folder == paths.KERNELS
    assert each.expect
    assert re.compile(each.expect, re.MULTILINE)
    assert each.target in targets.names()
    for profile in each.profiles:
        assert machine.load(profile).name == Path(profile).stem
    for part in (each.kernel, *each.initrd):
        if isinstance(part, str):
            assert (each.folder / part).is_file()
        elif isinstance(part, dict):
            for key in part.keys() & {"source", "initramfs"}:
                assert (each.folder / part[key]).is_file()


def test_recipes_are_read_by_name_and_their_images_differ() -> None:
    names = [each.name for each in ALL]
    assert names == sorted(names)
    assert {f"{name}.toml" for name in names} == {
        path.name for path in paths.KERNELS.glob("*.toml")
    }
    of_all = [name for each in ALL for name in each.images]
    assert len(of_all) == len(set(of_all))
    assert "probe-2.00.xen-hvm" in of_all
    fetched = {
        each.name for each in ALL if any(map(material.is_fetched, (each.kernel, *each.initrd)))
    }
    assert "debian" in fetched
    assert not any(name.startswith("probe") for name in fetched)


def test_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, 'kernel = "k"') == Recipe(
        name="mine",
        folder=tmp_path,
        kernel="k",
        initrd=(),
        cmdline="",
        machine=("pc",),
        target="ram",
        move="auto",
        expect="",
    )


def test_every_key(tmp_path: Path) -> None:
    each = read(
        tmp_path,
        """
        kernel = { source = "a.asm", defines = { A = 1, B = 0x10 } }
        initrd = ["one", { package = "p", file = "f" }, { initramfs = "init" }]
        cmdline = "quiet"
        machine = ["xen-hvm", "boards/mine.toml"]
        target = "ram"
        move = "hook"
        expect = "^x"
        """,
    )
    assert each.kernel == {"source": "a.asm", "defines": {"A": 1, "B": 16}}
    assert each.initrd == ("one", {"package": "p", "file": "f"}, {"initramfs": "init"})
    assert (each.cmdline, each.target, each.move, each.expect) == ("quiet", "ram", "hook", "^x")
    assert each.machine == ("xen-hvm", "boards/mine.toml")
    assert each.profiles == ("xen-hvm", str(tmp_path / "boards/mine.toml"))
    assert each.images == ("mine.xen-hvm", "mine.mine")


def test_one_may_stand_without_a_list(tmp_path: Path) -> None:
    each = read(tmp_path, 'kernel = "k"\ninitrd = { initramfs = "i" }\nmachine = "xen-hvm"')
    assert each.initrd == ({"initramfs": "i"},)
    assert each.machine == ("xen-hvm",)


def test_xends_names(tmp_path: Path) -> None:
    each = read(tmp_path, 'kernel = "k"\nramdisk = "i"\nextra = "ro"')
    assert (each.initrd, each.cmdline) == (("i",), "ro")
    assert read(tmp_path, 'kernel = "k"\nramdisk = ["i", "j"]').initrd == ("i", "j")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("initrd = 'a'\nramdisk = 'b'", "has both 'ramdisk' and 'initrd', which mean the same"),
        ("ramdisk = 'b'\ninitrd = 'a'", "has both 'ramdisk' and 'initrd', which mean the same"),
        ("extra = 'b'\ncmdline = 'b'", "has both 'extra' and 'cmdline', which mean the same"),
        (
            "kernels = 'x'",
            "unknown key 'kernels', expected one of kernel, initrd, .*ramdisk, extra",
        ),
        ("cmdline = ['a']", "cmdline is .*, expected a string"),
        ("extra = 5", "cmdline is 5, expected a string"),
        ("target = 5", "target is 5, expected a string"),
        ("expect = true", "expect is True, expected a string"),
        ("move = 5", "move is 5, expected a string"),
        ("move = 'sideways'", "move is 'sideways', expected one of auto, hook, early"),
        ("machine = 5", "machine is .*, expected names or files"),
        ("machine = ['pc', 5]", "machine is .*, expected names or files"),
        ("machine = []", "machine is .*, expected names or files"),
        ("machine = ['pc', 'pc']", "machine is .*more than once"),
        ("machine = ['pc', 'boards/pc.toml']", "machine is .*more than once"),
        ("initrd = 5", "initrd: 5, expected a path or a table: "),
        ("initrd = [['a']]", "initrd: .*, expected a path or a table: "),
        ("initrd = { sauce = 'a' }", "initrd: .*, expected a path or a table"),
        ("initrd = { package = 'a' }", "initrd: .*, expected a path or a table"),
        ("initrd = { source = 'a', file = 'b' }", "initrd: .*, expected a path or a table"),
        ("initrd = { source = 5 }", "initrd: .*, expected "),
        ("initrd = { source = 'a', defines = 5 }", "initrd: .*, expected "),
        ("initrd = { source = 'a', defines = { A = 'x' } }", "initrd: .*, expected "),
        ("initrd = { package = 'a', file = 5 }", "initrd: .*, expected "),
        ("expect = '('", "expect is '\\(', .*: missing \\)"),
        ("kernel = 'again'", "not a recipe: "),
        ("nonsense", "not a recipe: "),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, why: str) -> None:
    assert re.search(f": {why}", refusal(tmp_path, f"kernel = 'k'\n{text}"))


def test_a_recipe_must_have_a_kernel(tmp_path: Path) -> None:
    assert refusal(tmp_path, "").endswith(": has no 'kernel'")
    assert "kernel: 5, expected a path or a table" in refusal(tmp_path, "kernel = 5")
    (tmp_path / "mine.toml").write_bytes(b"\xff")
    for path in (tmp_path / "mine.toml", tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match=re.escape(f"{path}: not a recipe: ")):
            recipe.read(path)


# Images of a small tree of our own.
ALL_IMAGES = ["first.pc", "first.board", "second.pc"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the source tree with two recipes, built nowhere else."""
    root = tmp_path / "tree"
    kernels = root / "kernels"
    shutil.copytree(paths.ROOT / "asm", root / "asm")
    shutil.copytree(paths.KERNELS / "probe", kernels / "probe")
    (kernels / "one").write_bytes(b"first initrd")
    (root / "board.toml").write_text('base = "pc"\nram = 0x4000000\n')
    write_recipe(kernels, "first", 'initrd = "one"', 'machine = ["pc", "../board.toml"]')
    write_recipe(kernels, "second", 'cmdline = "quiet"')
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "KERNELS", kernels)
    monkeypatch.setattr(paths, "BUILD", root / "build")
    monkeypatch.setattr(paths, "IMAGES", root / "build" / "images")
    return root


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
        lambda root: write_recipe(root / "kernels", "second", 'cmdline = "debug"'),
        ["second.pc"],
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
            root / "kernels", "second", 'cmdline = "quiet"', kernel=KERNEL.replace("4097", "4098")
        ),
        ["second.pc"],
    ),
    "a source of the probe": (
        lambda root: append(root / "kernels/probe/setup.inc", "\n        nop\n"),
        ALL_IMAGES,
    ),
    "a stage of ours": (
        lambda root: append(root / "asm/real/early.asm", "\n        nop\n"),
        ALL_IMAGES,
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
    assert built() == ["second.pc"]
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
        (['target = "tape"'], InputError, "target 'tape': unknown, expected one of "),
        (['initrd = { source = "one" }'], BuildError, "nasm refuses .*one"),
    ],
)
def test_a_recipe_that_cannot_be_built(
    tree: Path, lines: list[str], error: type[Exception], why: str
) -> None:
    write_recipe(tree / "kernels", "second", *lines)
    with pytest.raises(error, match=why):
        images.build_all(shop())
    assert not (tree / "build/images/second.pc").exists()
    assert (tree / "build/images/first.pc").is_dir()


def test_a_source_may_lie_beside_its_recipe(tree: Path) -> None:
    (tree / "kernels/floppy.asm").write_text("db 'a floppy'\n")
    write_recipe(tree / "kernels", "second", 'initrd = { source = "floppy.asm" }')
    assert "second.pc" in built()
    assert (tree / "build/images/second.pc/initrd.bin").read_bytes() == b"a floppy"


def test_images_are_booted_by_name(tree: Path) -> None:
    with pytest.raises(
        InputError, match=r"image 'third': unknown, expected one of first\.pc, first"
    ):
        images.boot_image("third", 1)
    with pytest.raises(InputError, match=r"images/first\.pc: "):
        images.boot_image("first", 1)
    assert material.is_fetched({"initramfs": "x"})
    assert not (tree / "build").exists()
