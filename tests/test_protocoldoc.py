"""docs/boot-protocol.md is what the field table says, and bootsplice does what the page says."""

import itertools
from collections.abc import Iterator
from typing import Any

from fakekernel import VERSIONS, image
from headed import make

from pybuild import kernel, layout, machine, protocoldoc
from pybuild.bootproto import FIELDS, LOADED_HIGH, XLF_KERNEL_64
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.paths import ROOT
from pybuild.plan import Plan
from pybuild.protocoldoc import USES

COMMAND_LINE = "vga=ask hello"


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs/boot-protocol.md").read_text()
    assert written == protocoldoc.of_sources(ROOT), "run `invoke docs`"


def test_it_has_each_field_value_and_use() -> None:
    page = protocoldoc.page(
        "GIVEN: Final = 0x1F  # a name\n_HIDDEN: Final = 1  # of the module\nBARE: Final = 2\n",
        {"i386/b.asm": "mov [esi + boot_params.jump], eax ; boot_params.vid_mode\n", "a.inc": ""},
    )
    assert "\n| 0x1f4 | 2 | `syssize` | old to 2.03 | read | protected-mode size" in page
    assert "\n| 0x1f4 | 4 | `syssize` | 2.04 on | read | protected-mode size" in page
    assert "\n| 0x1fe | 2 | `boot_flag` | all | read | 0xAA55 |\n" in page
    assert page.count("| `syssize` | read: ") == 1
    assert "| `i386/b.asm` |\n" in next(
        line + "\n" for line in page.split("\n") if "`jump` | r" in line
    )
    assert page.count("b.asm") == 1
    assert page.endswith(
        "\n| name | value | meaning |\n| --- | --- | --- |\n| `GIVEN` | 0x1F | a name |\n"
    )


def test_every_named_value_says_what_it_is() -> None:
    source = (ROOT / "pybuild/bootproto.py").read_text()
    shown = protocoldoc.page(source, {}).partition("## Values with a name")[2]
    constants = [
        line.partition(":")[0]
        for line in source.splitlines()
        if ": Final = " in line and line[0].isupper()
    ]
    assert len(constants) > 15
    assert [name for name in constants if f"| `{name}` |" not in shown] == ["FIELDS"]


def test_every_field_has_a_use() -> None:
    assert list(USES) == list(dict.fromkeys(field.name for field in FIELDS))


def plans() -> Iterator[tuple[Kernel, Plan]]:
    """Kernels of all kinds, wherever they go."""
    for version, profile, high, follows in itertools.product(
        VERSIONS, ("pc", "xen-hvm"), (0, LOADED_HIGH), (0, 1)
    ):
        fields: dict[str, Any] = {"loadflags": high} if version >= 0x200 else {}
        fields |= {"code32_start": 0x100000 if high else 0x10000} if version >= 0x200 else {}
        if version >= 0x205:
            fields |= {"relocatable_kernel": follows, "kernel_alignment": 0x1000000}
        if version >= 0x20A:
            fields |= {"min_alignment": 13}
        one = kernel.parse("bzImage", image(version, setup_sects=2, **fields))
        on = machine.load(profile)
        # So little RAM, that a relocatable kernel must do with a smaller alignment.
        on = machine.Machine("small", "", 0x800000, on.reserved[:2], on.busy_while_loading)
        initrds = (10,) if version >= 0x200 else ()
        request = layout.Request(initrds, COMMAND_LINE, 107, 362, "auto", before_firmware=False)
        try:
            yield one, layout.place(one, on, request)
        except InputError:
            assert follows, "only where an alignment cannot be had"


def changed(changer: protocoldoc.Changer) -> set[str]:
    """What the page says is changed."""
    return {name for name, use in USES.items() if changer in use.changed}


def test_what_a_plan_changes_is_what_the_page_says() -> None:
    patches = [patch for _, plan in plans() for patch in plan.patches]
    assert {patch.field for patch in patches if patch.of_loader} == changed("loader")
    assert {patch.field for patch in patches if not patch.of_loader} == changed("move")


def test_what_a_head_changes_is_what_the_page_says() -> None:
    found = set()
    for version, follows in itertools.product((0x206, 0x20F), (0, 1)):
        fields: dict[str, Any] = {
            "relocatable_kernel": follows,
            "code32_start": 0x100010,
            "kernel_alignment": 1 << 21,
        }
        if version == 0x20F:
            offsets = ("payload_offset", "handover_offset", "kernel_info_offset")
            fields |= {
                **dict.fromkeys(offsets, 0x10),
                "xloadflags": XLF_KERNEL_64,
                "pref_address": 0,
            }
        data = image(version, end=0x26C, setup_sects=2, **fields)
        made = make(data=data, text=COMMAND_LINE)
        found |= {
            field.name
            for field in made.image.fields
            if made.image[field.name] != made.kernel.get(field.name)
        }
    assert found == changed("head")
