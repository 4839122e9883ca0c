import re
from pathlib import Path

import pytest

from pybuild import machine, material, paths, recipe, targets
from pybuild.errors import InputError
from pybuild.recipe import Image, Recipe

ALL = recipe.read_all(paths.KERNELS)


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
    assert set(each.target) in ({"bzimage"}, set(targets.names()) - {"bzimage"})
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
    assert {"probe-2.00.xen-hvm", "probe-2.00.xen-hvm.img", "probe-2.00.pc.iso"} <= {*of_all}
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
        target=("disk",),
        options={},
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
        target = ["ram", "disk", "iso"]
        options = { size = "64M", gpt = true, volume-id = "MINE" }
        move = "hook"
        expect = "^x"
        """,
    )
    assert each.kernel == {"source": "a.asm", "defines": {"A": 1, "B": 16}}
    assert each.initrd == ("one", {"package": "p", "file": "f"}, {"initramfs": "init"})
    assert (each.cmdline, each.move, each.expect) == ("quiet", "hook", "^x")
    assert each.target == ("ram", "disk", "iso")
    assert each.options == {"size": "64M", "gpt": True, "volume-id": "MINE"}
    assert each.options_of("ram") == {}
    assert each.options_of("disk") == {"size": "64M", "gpt": True}
    assert each.options_of("iso") == {"volume-id": "MINE"}
    assert each.machine == ("xen-hvm", "boards/mine.toml")
    assert each.profiles == ("xen-hvm", str(tmp_path / "boards/mine.toml"))
    board = str(tmp_path / "boards/mine.toml")
    assert each.images == {
        "mine.xen-hvm": Image("xen-hvm", "ram"),
        "mine.xen-hvm.img": Image("xen-hvm", "disk"),
        "mine.xen-hvm.iso": Image("xen-hvm", "iso"),
        "mine.mine": Image(board, "ram"),
        "mine.mine.img": Image(board, "disk"),
        "mine.mine.iso": Image(board, "iso"),
    }


def test_one_may_stand_without_a_list(tmp_path: Path) -> None:
    each = read(
        tmp_path, 'kernel = "k"\ninitrd = { initramfs = "i" }\nmachine = "xen-hvm"\ntarget = "ram"'
    )
    assert each.initrd == ({"initramfs": "i"},)
    assert each.machine == ("xen-hvm",)
    assert each.target == ("ram",)


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
        ("target = 5", "target is 5, expected one of bzimage, disk, iso, ram"),
        ("target = 'tape'", "target is 'tape', expected one of bzimage, disk, iso, ram"),
        ("target = ['ram', 'tape']", "target is 'tape', expected one of bzimage, disk, iso, ram"),
        ("target = ['ram', 'ram']", r"target is \['ram', 'ram'\], expected names, none .*twice"),
        ("target = []", r"target is \[\], expected names"),
        ("options = 5", "options is 5, expected a table"),
        (
            "options = { tape = 1 }",
            "options has 'tape', but target disk has only gpt, size, floppy",
        ),
        (
            "options = { volume-id = 'X' }",
            "options has 'volume-id', but target disk has only gpt, ",
        ),
        ("target = 'ram'\noptions = { gpt = true }", "options has 'gpt', but target ram has none"),
        ("options = { gpt = 'yes' }", "option gpt is 'yes', expected true or false"),
        ("options = { size = 'big' }", "option size is 'big', expected bytes, as in 64M"),
        ("options = { size = true }", "option size is True, expected bytes, as in 64M"),
        ("options = { size = -1 }", "option size is -1, expected bytes, as in 64M"),
        ("target = 'iso'\noptions = { volume-id = 5 }", "option volume-id is 5, expected a text"),
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
