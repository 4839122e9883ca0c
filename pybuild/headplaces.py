"""Where a head finds room, wherever its image is loaded; the same as asm/include/head.inc does."""

from collections.abc import Sequence

from pybuild.protected import PAGE
from pybuild.regions import Region, align_up, first_fit


def kernel_and_work(
    address: int,
    *,
    follows: bool,
    dst: int,
    run: int,
    alignment: int,
    init_size: int,
    image_size: int,
    work_size: int,
) -> tuple[Region, Region]:
    """Where the head of an image that is loaded at `address` puts the kernel and the work area.

    The rest is by HeadPlan's names.
    """
    if follows:
        dst = address
        run = max(align_up(dst, alignment), run)
    else:
        run = dst
    kernel = Region("kernel", dst, run + init_size)
    return kernel, behind("work area", address + image_size, work_size, [kernel])


def behind(name: str, low: int, size: int, taken: Sequence[Region]) -> Region:
    """The lowest whole pages from `low` on that are clear of what is taken."""
    start = first_fit(size, taken, low=low, high=1 << 64, alignment=PAGE)
    assert start is not None  # noqa: S101  addresses don't run out
    return Region(name, start, start + size)
