"""Who moves a kernel that cannot be loaded where it must run.

The *hook*, as in the 2007 patch: the kernel's own setup code jumps to the relocator through
code32_start. Or the *early* stage, between the boot sector and the setup code, for images whose
setup code doesn't look at that field.
"""

from typing import Literal

from pybuild.errors import InputError
from pybuild.kernel import Kernel
from pybuild.plan import Mover

Choice = Literal["auto", "hook", "early"]


def choose(kernel: Kernel, choice: Choice) -> tuple[Mover, str]:
    """Who enters the relocator, and why.

    Raises:
        InputError: a hook is asked for where none can work.
    """
    why_not = why_not_a_hook(kernel)
    if choice == "early":
        return "early", "as asked"
    if choice == "hook":
        if not kernel.is_high:
            raise InputError(f"{kernel.name}: cannot be moved by a hook: {why_not}; use early")
        return "hook", f"as asked, although {why_not}" if why_not else "as asked"
    if why_not:
        return "early", why_not
    return "hook", "its setup code is taken to jump through code32_start, as Linux's does"


def why_not_a_hook(kernel: Kernel) -> str | None:
    """Why this kernel's setup code would not run a code32_start hook; None if it should."""
    if not kernel.is_high:
        return "a zImage's setup code moves it on by itself"
    start = kernel["code32_start"]
    if not kernel.contents.contains(start):
        return f"its code32_start {start:#x} lies outside it, so its setup code cannot be using it"
    if (kernel.version_string or "").startswith("MEMDISK"):
        return "MEMDISK's setup code doesn't look at code32_start"
    if kernel["setup_sects"] == 1 and kernel["kernel_version"] == 0:
        return "a setup part of one sector without a version string is GRUB's lnxboot"
    return None
