import os
import re

import pytest
from held import examples
from hypothesis import given
from hypothesis import strategies as st

from pybuild import isonames
from pybuild.isonames import Names

EASY = st.sampled_from(
    ["a", "a.img", "A.IMG", "a-2.img", "a_2.img", "abcdefgh.img", "abcdefg2.imgs"]
)
ANY = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("bzImage", Names("BZIMAGE.", "bzImage", "bzImage")),
        ("initrd.img", Names("INITRD.IMG", "initrd.img", "initrd.img")),
        ("linux-6.1.0-56-amd64", Names("LINUX_6_.", *["linux-6.1.0-56-amd64"] * 2)),
        ("rootfs.cpio.gz", Names("ROOTFS_C.GZ", "rootfs.cpio.gz", "rootfs.cpio.gz")),
        (".hidden", Names("_HIDDEN.", ".hidden", ".hidden")),
        ("größe.img", Names("GR_SSE.IMG", "größe.img", "größe.img")),
        ("with space", Names("WITH_SPA.", "with space", "with space")),
        ("a\nb:c*d?e\\f;g.x", Names("A_B_C_D_.X", "a_b_c_d_e_f_g.x", "a_b_c_d_e_f_g.x")),
        (os.fsdecode(b"\xff.img"), Names("_.IMG", "_.img", "_.img")),
        ("x" * 300 + ".img", Names("XXXXXXXX.IMG", "x" * 249 + ".img", "x" * 60 + ".img")),
        ("é" * 200, Names("________.", "é" * 126, "é" * 32)),
    ],
)
def test_one_name(name: str, names: Names) -> None:
    assert isonames.choose([name]) == [names]


def test_equal_names_are_numbered() -> None:
    chosen = isonames.choose(["initrd.img", "initrd.img", "Initrd.img", "initrd-2.img", "initrd"])
    assert [each.rock_ridge for each in chosen] == [
        "initrd.img",
        "initrd-2.img",
        "Initrd-3.img",
        "initrd-2-2.img",
        "initrd",
    ]
    assert [each.joliet for each in chosen] == [each.rock_ridge for each in chosen]
    assert [each.iso for each in chosen] == [
        "INITRD.IMG",
        "INITRD_2.IMG",
        "INITRD_3.IMG",
        "INITRD_4.IMG",
        "INITRD.",
    ]


def test_a_number_is_not_cut_off() -> None:
    chosen = isonames.choose(["i" * 300] * 120)
    assert chosen[-1] == Names("IIII_120.", "i" * 249 + "-120", "i" * 60 + "-120")


@given(st.lists(st.one_of(EASY, ANY), max_size=30))
@examples(300)
def test_any_names(wanted: list[str]) -> None:
    chosen = isonames.choose(wanted)
    assert len(chosen) == len(wanted)
    for form in ("iso", "rock_ridge", "joliet"):
        assert len({getattr(each, form).casefold() for each in chosen}) == len(wanted)
    for each in chosen:
        assert re.fullmatch(r"[A-Z0-9_]{1,8}\.[A-Z0-9_]{0,3}", each.iso)
        assert 1 <= len(each.rock_ridge.encode()) <= 253
        assert 1 <= len(each.joliet.encode()) <= 64
        assert not set(each.joliet + each.rock_ridge) & set("*/:;?\\\0\n")
    assert isonames.choose(wanted) == chosen
