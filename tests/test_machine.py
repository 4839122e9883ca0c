import os
import re
from pathlib import Path

import pytest

from pybuild import machine
from pybuild.errors import InputError
from pybuild.machine import Machine
from pybuild.regions import Region

MIB = 1 << 20


def load(folder: Path, text: str, name: str = "mine") -> Machine:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return machine.load(str(path))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert message.startswith(f"{folder}/mine.toml: ")
    assert message.isprintable()
    return message


def test_names() -> None:
    assert machine.names() == ["pc", "xen-hvm"]


@pytest.mark.parametrize("name", machine.names())
def test_profiles_that_come_with_bootsplice(name: str) -> None:
    profile = machine.load(name)
    assert profile.name == name
    assert profile.description
    assert "\n" not in profile.description
    assert profile.ram % MIB == 0
    regions = profile.reserved + profile.busy_while_loading + profile.overwritten_by_firmware
    assert len({r.name for r in regions}) == len(regions)
    assert all(0 <= r.start < r.end <= profile.ram for r in regions)


def test_pc() -> None:
    profile = machine.load("pc")
    assert profile.ram == 512 * MIB
    assert profile.busy_while_loading == ()
    assert Region("BIOS's own data", 0, 0x600) in profile.reserved
    assert Region("EBDA, video, ROMs", 0x9FC00, MIB) in profile.reserved
    # What SeaBIOS was measured to overwrite, in DESIGN.md.
    low, high = profile.overwritten_by_firmware
    assert (low.start, low.end) == (0x6700, 0x90000)
    assert (high.start, high.end) == (profile.ram - 17 * MIB, profile.ram)


def test_xen_hvm_is_a_pc_with_hvmloader() -> None:
    xen, pc = machine.load("xen-hvm"), machine.load("pc")
    assert xen.busy_while_loading == (Region("hvmloader", 0x100000, 0x200000),)
    assert (xen.ram, xen.reserved) == (pc.ram, pc.reserved)
    assert xen.overwritten_by_firmware == pc.overwritten_by_firmware
    assert xen.description != pc.description


def test_what_is_busy_depends_on_when_the_parts_are_loaded() -> None:
    profile = machine.load("xen-hvm")
    always = profile.reserved + profile.busy_while_loading
    assert profile.busy(before_firmware=False) == always
    assert profile.busy(before_firmware=True) == always + profile.overwritten_by_firmware


def test_a_file_says_all(tmp_path: Path) -> None:
    text = """
        description = "mine"
        ram = 0x4000000
        [[reserved]]
        name = "a"
        start = 0
        end = 1
        [[reserved]]
        name = "b"
        below_top = 0x1000
        [[busy_while_loading]]
        name = "c"
        start = 2
        end = 0x100000000
        [[overwritten_by_firmware]]
        name = "d"
        below_top = 0xffffffff
    """
    assert load(tmp_path, text) == Machine(
        name="mine",
        description="mine",
        ram=0x4000000,
        reserved=(Region("a", 0, 1), Region("b", 0x3FFF000, 0x4000000)),
        busy_while_loading=(Region("c", 2, 1 << 32),),
        overwritten_by_firmware=(Region("d", 0, 0x4000000),),
    )


def test_a_file_may_say_little(tmp_path: Path) -> None:
    assert load(tmp_path, "ram = 1048576") == Machine("mine", "", MIB)


def test_a_file_need_not_be_called_toml(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("ram = 4096")
    assert machine.load(str(tmp_path / "box")).name == "box"


def test_a_base_is_added_to(tmp_path: Path) -> None:
    text = """
        base = "xen-hvm"
        ram = 0x2000000
        [[reserved]]
        name = "more"
        start = 0x300000
        end = 0x400000
    """
    mine, base = load(tmp_path, text), machine.load("xen-hvm")
    assert mine.name == "mine"
    assert mine.description == base.description
    assert mine.ram == 32 * MIB
    assert mine.busy_while_loading == base.busy_while_loading
    assert mine.reserved[:2] == base.reserved[:2]
    assert mine.reserved[-1] == Region("more", 0x300000, 0x400000)
    # What counts from the top of RAM follows the new top.
    assert mine.reserved[2].end == mine.overwritten_by_firmware[1].end == 32 * MIB
    assert mine.overwritten_by_firmware[1].start == 15 * MIB
    # The base itself stays as it is.
    assert machine.load("xen-hvm") == base


def test_a_base_gives_the_ram_and_is_described_anew(tmp_path: Path) -> None:
    mine = load(tmp_path, 'base = "pc"\ndescription = "other"')
    assert mine.description == "other"
    assert mine.ram == machine.load("pc").ram
    assert mine.overwritten_by_firmware == machine.load("pc").overwritten_by_firmware


def test_a_profiles_name_wins_over_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pc").write_text("ram = 4096")
    monkeypatch.chdir(tmp_path)
    assert machine.load("pc").ram == 512 * MIB
    assert machine.load("./pc").ram == 4096


@pytest.mark.parametrize("name", ["vax", "", ".", "pc.toml", "x/pc", "x" * 999, "pc\0"])
def test_what_is_no_profile(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"profile") as caught:
        machine.load(name)
    assert str(caught.value).isprintable()
    if len(name) < 99 and "\0" not in name:
        assert str(caught.value) == (
            f"machine '{name}': no such profile or file; profiles are pc, xen-hvm"
        )


@pytest.mark.timeout(10)
def test_a_pipe_is_no_profile(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="fifo: not a machine profile"):
        machine.load(str(tmp_path / "fifo"))  # and doesn't wait for somebody to write


@pytest.mark.parametrize("content", [b"\xff\xfe", b"ram = ", b"ram = 1\nram = 2", b"\0"])
def test_what_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: not a machine profile: ")) as caught:
        machine.load(str(path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "ram", ["0", "-1", "0xb0000000", "0x100000000", "4097", "'512M'", "1.5", "[1]", "true"]
)
def test_ram_is_pages_that_qemu_keeps_below_4_gib(tmp_path: Path, ram: str) -> None:
    assert ": ram is " in (message := refusal(tmp_path, f"ram = {ram}"))
    assert message.endswith(", expected bytes below 0xb0000000, a multiple of 4096")


def test_ram_must_be_there(tmp_path: Path) -> None:
    assert ": ram is None, expected bytes" in refusal(tmp_path, "")


def test_an_unknown_key(tmp_path: Path) -> None:
    assert refusal(tmp_path, "ram = 1\nrom = 2").endswith(
        ": unknown key 'rom', expected one of description, base, ram, reserved, "
        "busy_while_loading, overwritten_by_firmware"
    )


@pytest.mark.parametrize("base", ["'vax'", "'mine'", "5", "['pc']", "'../machines/pc'", "{}"])
def test_a_base_must_be_one_of_ours(tmp_path: Path, base: str) -> None:
    message = refusal(tmp_path, f"base = {base}")
    assert ": base is " in message
    assert message.endswith(", expected one of pc, xen-hvm")


@pytest.mark.parametrize("value", ["5", "'0x100'", "[5]", "[{name = 'a', below_top = 1}, 5]"])
def test_regions_are_tables(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, f"ram = 4096\nreserved = {value}")
    assert message.endswith(": reserved is no list of tables; write [[reserved]]")


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("", "nothing"),
        ("name = 'a'", "name"),
        ("start = 1\nend = 2", "end, start"),
        ("name = 'a'\nstart = 1", "name, start"),
        ("name = 'a'\nstart = 1\nend = 2\nbelow_top = 1", "below_top, end, name, start"),
        ("name = 'a'\nstart = 1\nend = 2\nsize = 1", "end, name, size, start"),
    ],
)
def test_a_regions_keys(tmp_path: Path, keys: str, found: str) -> None:
    message = refusal(tmp_path, f"ram = 4096\n[[busy_while_loading]]\n{keys}")
    name = "a" if "name" in found else "without a name"
    assert message.endswith(
        f": [[busy_while_loading]] '{name}': has {found}, "
        "expected name, start and end, or name and below_top"
    )


@pytest.mark.parametrize(
    ("start", "end"),
    [("2", "2"), ("2", "1"), ("-1", "1"), ("0", "0x100000001"), ("'0'", "1"), ("0", "1.0")],
)
def test_a_regions_range(tmp_path: Path, start: str, end: str) -> None:
    region = f"[[reserved]]\nname = 'a'\nstart = {start}\nend = {end}"
    message = refusal(tmp_path, f"base = 'pc'\n{region}")
    assert re.search(
        r": \[\[reserved\]\] 'a': from .* to .*, expected 0 <= start < end <=", message
    )


@pytest.mark.parametrize("below_top", ["0", "-1", "'1M'", "1.5"])
def test_a_regions_below_top(tmp_path: Path, below_top: str) -> None:
    region = f"[[reserved]]\nname = 'a'\nbelow_top = {below_top}"
    message = refusal(tmp_path, f"ram = 4096\n{region}")
    assert ": [[reserved]] 'a': below_top is " in message
