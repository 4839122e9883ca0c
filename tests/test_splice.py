"""Parts: what is spliced, patched and read, byte for byte."""

from pathlib import Path

import pytest
from fakekernel import image

from pybuild import build, kernel, layout, machine, splice
from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.plan import Plan
from pybuild.splice import Initrds, Parts


def parts(
    target: str, *, code32_start: int = 0x100000, text: str = ""
) -> tuple[Kernel, Plan, Parts]:
    original = kernel.parse("k", image(setup_sects=4, code32_start=code32_start, protected=0x12345))
    code = build.code()
    request = layout.Request(
        initrd_sizes=(),
        cmdline=text,
        relocator_size=len(code[splice.RELOCATOR].code),
        early_size=len(code[splice.EARLY].code),
        move="auto",
        before_firmware=True,
    )
    plan = layout.place(original, machine.load(target), request)
    return original, plan, splice.splice(original, plan, code, text, Initrds((), ()))


def test_nothing_to_move_changes_only_the_header() -> None:
    original, plan, made = parts("pc", text="quiet")
    assert made.kernel == original.protected
    assert made.image == original.data
    assert made.cmdline == b"quiet\0"
    assert not made.early
    changed = {
        at for at, (a, b) in enumerate(zip(original.setup, made.setup, strict=True)) if a != b
    }
    allowed = {at for p in plan.patches for at in range(p.offset, p.offset + p.size)}
    assert changed <= allowed
    for patch in plan.patches:
        field = made.setup[patch.offset : patch.offset + patch.size]
        assert int.from_bytes(field, "little") == patch.new


def test_relocator_stands_behind_the_kernel() -> None:
    original, plan, made = parts("xen-hvm")
    (move,) = plan.moves
    offset = move.relocator - move.src
    assert made.kernel[: move.len] == original.protected
    assert not any(made.kernel[move.len : offset])
    relocator = build.code()[splice.RELOCATOR]
    symbols = splice.relocator_symbols(move, move.code32_start)
    assert made.kernel[offset:] == relocator.bind(symbols)
    spliced = kernel.parse("k.bzImage", made.image)
    assert spliced["code32_start"] == move.relocator
    assert spliced.syssize_bytes == -(-len(made.kernel) // 16) * 16
    assert spliced["type_of_loader"] == spliced["cmd_line_ptr"] == 0  # the next loader's to fill in


def test_early_stage_gets_the_relocator_back() -> None:
    _, plan, made = parts("xen-hvm", code32_start=0)
    (move,) = plan.moves
    early = plan.load("early")
    assert early is not None
    code = build.code()
    returns_to = early.address + code[splice.EARLY].symbols["moved"]
    expected = code[splice.RELOCATOR].bind(splice.relocator_symbols(move, returns_to))
    assert bytes(made.kernel).endswith(expected)
    assert len(made.early) == early.size
    assert splice.boot_sector_symbols(plan)["seg_cs"] * 16 == early.address


def test_a_plan_of_another_kernel_is_a_bug() -> None:
    _, plan, _ = parts("pc")
    other = kernel.parse("other", image(protected=0x999))
    with pytest.raises(AssertionError):
        splice.splice(other, plan, build.code(), "", Initrds((), ()))


def test_initrds_one_behind_the_other(tmp_path: Path) -> None:
    files = []
    for number, content in enumerate((b"a", b"", b"bcdef", b"gh")):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(content)
    initrds = splice.open_initrds(files)
    assert initrds.sizes == (1, 0, 5, 2)
    joined = b"".join(initrds.chunks())
    assert joined == b"a\0\0\0bcdef\0\0\0gh"
    assert len(joined) == layout.initrd_size(initrds.sizes)


@pytest.mark.parametrize("content", [b"", b"shrnk", b"it grows"])
def test_an_initrd_that_changes_meanwhile(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "initrd"
    file.write_bytes(b"it was")
    initrds = splice.open_initrds([file])
    file.write_bytes(content)
    with pytest.raises(InputError, match="initrd: expected 6 bytes, but it changed"):
        list(initrds.chunks())
