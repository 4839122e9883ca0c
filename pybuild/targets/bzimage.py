"""Target `bzimage`: a kernel image for other loaders, which carries its relocator with it."""

from pathlib import Path
from typing import Final

from pybuild.files import write_file
from pybuild.plan import Plan
from pybuild.progress import Meter
from pybuild.splice import Parts
from pybuild.targets import Option, Options, register

LOAD_ADDRESS: Final = "load-addr"
REPLACE: Final = "replace-cmdline"


@register
class Bzimage:
    """A kernel image that boots wherever a loader puts it; with a load address, only there."""

    name = "bzimage"
    suffixes = (".bzimage",)
    before_firmware = False
    options = (
        Option(
            LOAD_ADDRESS,
            int,
            "The plain form instead: the relocator behind the kernel, for a loader that puts the "
            "protected-mode part at this address and enters it through code32_start.",
        ),
        Option(
            REPLACE,
            bool,
            "The built-in command line is there in place of the loader's, not before it.",
        ),
    )

    def check(self, _plan: Plan, _parts: Parts, _options: Options) -> None:
        """Whatever has a plan can be written."""

    def write(
        self, _plan: Plan, parts: Parts, out: Path, _options: Options, _meter: Meter | None = None
    ) -> None:
        """Writes the image."""
        write_file(out, [parts.image])
