"""Starting a guest on Xen: on this host's, if it is a dom0, else in the lab."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pybuild import paths
from pybuild.errors import InputError
from pybuild.guest import Log
from pybuild.progress import Progress
from pybuild.watch import Start, Stream
from pybuild.xen import dom0, lab, machine
from pybuild.xen.guest import XenGuest
from pybuild.xen.session import Lab
from pybuild.xen.xl import Domain


def guest(image: Path, domain: Callable[[str], Domain], progress: Progress) -> Start:
    """How to start the guest that boots an image.

    Args:
        image: a file, or a folder that target `ram` wrote.
        domain: the guest to be, for the image's path in dom0.
        progress: called with one line before each step of making the lab.

    Raises:
        InputError: the lab has no room for such a guest.
        BuildError: there is no lab and it cannot be made.
    """
    if dom0.host_is_one():
        return lambda stream: _start(dom0.Host.start, image, domain, stream)
    memory = domain(Lab.image).memory
    if memory > machine.LARGEST_GUEST:
        raise InputError(
            f"--memory {memory}: the Xen lab has room for guests of {machine.LARGEST_GUEST} MiB"
        )
    place = lab.prepare(paths.cache_directory(), progress=progress)
    return lambda stream: _start(lambda to: Lab.resume(place, to), image, domain, stream)


@asynccontextmanager
async def _start(
    dom0_of: Callable[[dom0.Receive], dom0.Session],
    image: Path,
    domain: Callable[[str], Domain],
    stream: Stream,
) -> AsyncIterator[XenGuest]:
    log = Log(stream)
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(dom0_of(log.receive))
        await there.bring(image)
        started = XenGuest.start(there, domain(there.image), log)
        yield await stack.enter_async_context(started)
