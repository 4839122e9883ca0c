"""Whether what is in an image is what its plan says."""

from collections.abc import Iterator, Sequence

from pybuild import splice
from pybuild.kernel import Kernel
from pybuild.plan import Plan
from pybuild.reading.code import Binaries
from pybuild.reading.found import Part


def differences(
    plan: Plan, parts: Sequence[Part], kernel: Kernel | None, binaries: Binaries
) -> Iterator[str]:
    """What is another way than the plan says, a line each."""
    for load in plan.loads:
        there = [part for part in parts if part.name == load.part]
        size = sum(part.size for part in there)
        if size != load.size:
            yield f"{load.part}: {size} bytes, expected {load.size} by plan.json"
        if there and there[0].address != load.address:
            yield f"{load.part}: goes to {there[0].address:#x}, {load.address:#x} by plan.json"
    yield from _header(plan, kernel)
    planned = splice.symbols(plan, binaries)
    for part in parts:
        for code in part.code:
            for name, value in planned.get(code.source, {}).items():
                found = (code.symbols or {}).get(name, value)
                if found != value:
                    yield (
                        f"{part.name}: {code.source} has {name} {found:#x}, expected {value:#x} "
                        "by plan.json"
                    )


def is_of_image(plan: Plan, setup: bytes, image_setup: bytes) -> bool:
    """Whether a real-mode part and that of an image for other loaders are of the same kernel.

    They differ in what a loader fills in.
    """
    blanked = bytearray(image_setup)
    for patch in plan.patches:
        if patch.of_loader:
            place = slice(patch.offset, patch.offset + patch.size)
            blanked[place] = setup[place]
    return setup == blanked


def _header(plan: Plan, kernel: Kernel | None) -> Iterator[str]:
    for patch in plan.patches:
        if kernel is not None and kernel.get(patch.field, patch.new) != patch.new:
            yield (
                f"setup: {patch.field} is {kernel[patch.field]:#x}, expected {patch.new:#x} "
                "by plan.json"
            )
