"""The planner, for any kernel and machine: what it promises of every plan that it makes."""

from typing import Any

from fakekernel import VERSIONS, image
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_layout import MIB, PC, XEN, at, request

from pybuild.errors import InputError
from pybuild.kernel import Kernel, parse
from pybuild.layout import place
from pybuild.machine import Machine
from pybuild.plan import Plan
from pybuild.protected import PAGE
from pybuild.regions import Region


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    version = draw(st.sampled_from(VERSIONS))
    options: dict[str, Any] = {
        "setup_sects": draw(st.sampled_from([0, 1, 4, 40])),
        "protected": draw(st.integers(1, 0x80000) | st.integers(1, 3 * MIB)),
    }
    if version >= 0x200:
        options["loadflags"] = draw(st.sampled_from([0, 1, 1, 1, 0x21]))
    if version >= 0x205:
        options["relocatable_kernel"] = draw(st.integers(0, 1))
        options["kernel_alignment"] = 1 << draw(st.integers(12, 24))
    if version >= 0x20A:
        options["min_alignment"] = draw(st.sampled_from([0, 12, 13, 21]))
        options["init_size"] = draw(st.integers(0, 32 * MIB))
        options["pref_address"] = draw(st.sampled_from([0x100000, 0x400000, 0x1000000]))
    return parse("k", image(version, **options))


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    base = draw(st.sampled_from([PC, XEN]))
    ram = draw(st.integers(2, 256)) * MIB
    busy = []
    for number in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, ram // 4096 - 1)) * 4096
        end = min(ram, start + draw(st.integers(1, 2 * MIB)))
        busy.append(Region(f"busy {number}", start, end))
    top = Region("top", ram - 0x40000, ram)
    return Machine("m", "", ram, (*base.reserved[:2], top), (*base.busy_while_loading, *busy))


@settings(max_examples=300, derandomize=True)
@given(
    image=kernels(),
    target=machines(),
    initrds=st.lists(st.integers(0, 8 * MIB), max_size=3),
    cmdline=st.text("ab =", max_size=255),
    before_firmware=st.booleans(),
    relocator_size=st.integers(1, 512),
)
def test_any_plan_keeps_its_promises(
    image: Kernel,
    target: Machine,
    initrds: list[int],
    cmdline: str,
    before_firmware: bool,
    relocator_size: int,
) -> None:
    asked = request(
        *initrds,
        cmdline=cmdline,
        before_firmware=before_firmware,
        relocator_size=relocator_size,
    )
    try:
        plan = place(image, target, asked)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - refusing is right as well, in one line
        assume(False)
    assert place(image, target, asked) == plan
    check_loads(plan, target, before_firmware)
    check_move(plan, image, relocator_size)
    check_run(plan, image)
    for patch in plan.patches:
        field = image.field(patch.field)
        assert (patch.offset, patch.size, patch.old) == (
            field.offset,
            field.size,
            field.get(image.data),
        )
        assert 0 <= patch.new <= field.maximum


def check_loads(plan: Plan, target: Machine, before_firmware: bool) -> None:
    """Nothing is loaded over anything else, or outside RAM."""
    regions = [load.region for load in plan.loads if load.part != "setup"] + [plan.stack]
    for index, region in enumerate(regions):
        assert 0 <= region.start < region.end <= target.ram
        for other in [*regions[index + 1 :], *target.busy(before_firmware=before_firmware)]:
            assert not region.overlaps(other), (region, other)


def check_move(plan: Plan, image: Kernel, relocator_size: int) -> None:
    """A kernel is loaded where it runs or moved there, by code that the move doesn't reach."""
    (kernel_load,) = [load for load in plan.loads if load.part == "kernel"]
    if not plan.moves:
        assert kernel_load.size == image.protected_size
        assert image.is_relocatable or kernel_load.address == image.load_address
        return
    (move,) = plan.moves
    assert not image.is_relocatable
    assert (move.src, move.dst, move.len) == (
        kernel_load.address,
        image.load_address,
        image.protected_size,
    )
    destination = Region("destination", move.dst, move.dst + move.len)
    relocator = Region("relocator", move.relocator, move.relocator + relocator_size)
    assert relocator.start >= move.src + move.len
    assert relocator.end == kernel_load.region.end
    kept = [relocator, plan.stack] + [
        load.region for load in plan.loads if load.part in ("cmdline", "early", "initrd")
    ]
    assert not any(destination.overlaps(region) for region in kept)
    assert ("early" in at(plan)) == (move.by == "early")


def check_run(plan: Plan, image: Kernel) -> None:
    """What the kernel unpacks itself over holds nothing that it still needs."""
    kept = [plan.stack] + [load.region for load in plan.loads if load.part in ("cmdline", "initrd")]
    assert not any(plan.runtime.overlaps(region) for region in kept)
    assert plan.runtime.size >= image.get("init_size")
    initrd = next((load for load in plan.loads if load.part == "initrd"), None)
    if initrd:
        assert initrd.address % PAGE == 0
        assert initrd.address >= MIB
        assert initrd.region.end - 1 <= image.get("initrd_addr_max", 0x37FFFFFF)
