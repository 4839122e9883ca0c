"""Target `ram`: blobs that stock QEMU puts into guest RAM, and a disk with a boot sector."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pybuild.bootproto import SECTOR
from pybuild.errors import InputError
from pybuild.files import replace_directory, write_file
from pybuild.plan import Plan
from pybuild.progress import Meter
from pybuild.splice import Parts
from pybuild.targets import Options, register

PLAN: Final = "plan.json"
ARGUMENTS: Final = "qemu.args"
BOOT_DISK: Final = "boot.img"
SUFFIX: Final = ".bin"  # of the file that has a part of the plan, behind its name
_PARTS: Final = ("setup", "cmdline", "kernel", "early", "initrd")
_OWN: Final = (BOOT_DISK, *(part + SUFFIX for part in _PARTS), "*.bzImage", ARGUMENTS, PLAN)
# SeaBIOS reads a boot sector by CHS, and gives an AHCI disk as many cylinders of 16 heads and 63
# sectors as fit: a smaller disk has none, and does not boot.
_BOOT_DISK_SECTORS: Final = 16 * 63
_MIB: Final = 1 << 20
_KIB: Final = 1 << 10


@register
class Ram:
    """A folder that `qemu-system-x86_64 $(cat qemu.args)`, run in it, boots.

    It holds `boot.img` (the register-state boot sector), a `.bin` for each part that is loaded,
    `NAME.bzImage` (the spliced kernel image), `plan.json` and `qemu.args`.
    """

    name = "ram"
    suffixes = ()
    before_firmware = True
    options = ()

    def check(self, _plan: Plan, _parts: Parts, _options: Options) -> None:
        """Whatever has a plan can be written."""

    def write(
        self, plan: Plan, parts: Parts, out: Path, _options: Options, _meter: Meter | None = None
    ) -> None:
        """Writes the folder; one that an earlier build left there is replaced.

        Raises:
            InputError: `out` is there and is not such a folder.
        """
        contents: dict[str, Iterable[bytes | memoryview]] = {
            "setup": [parts.setup],
            "cmdline": [parts.cmdline],
            "kernel": [parts.kernel],
            "early": [parts.early],
            "initrd": parts.initrds.chunks(),
        }
        with replace_directory(out, PLAN, _OWN) as folder:
            empty = bytes(_BOOT_DISK_SECTORS * SECTOR - len(parts.boot_sector))
            write_file(folder / BOOT_DISK, [parts.boot_sector, empty])
            for load in plan.loads:
                write_file(folder / (load.part + SUFFIX), contents[load.part])
            write_file(folder / image_name(plan), [parts.image])
            write_file(folder / ARGUMENTS, [arguments(plan).encode()])
            write_file(folder / PLAN, [plan.to_json().encode()])


def image_name(plan: Plan) -> str:
    """The file that has the spliced kernel image."""
    return f"{plan.kernel.removesuffix('.bin')}.bzImage"


def read(folder: Path) -> Plan:
    """Reads the plan in a folder that this target wrote.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from pybuild import planfile  # a build does without

    try:
        return planfile.parse((folder / PLAN).read_bytes())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not as bootsplice wrote it"
        raise InputError(
            f"{folder}: no image that `build --target ram` wrote: {PLAN}: {why}"
        ) from error


def arguments(plan: Plan) -> str:
    """What QEMU is given, as the file has it."""
    ram = f"{plan.ram // _MIB}M" if plan.ram % _MIB == 0 else f"{plan.ram // _KIB}K"
    lines = [
        f"-m {ram}",
        # The guest's writes go to a temporary file: the folder stays as it was built.
        f"-drive file={BOOT_DISK},format=raw,snapshot=on",
        *(
            f"-device loader,file={load.part}{SUFFIX},addr={load.address:#x},force-raw=on"
            for load in plan.loads
        ),
    ]
    return "\n".join(lines) + "\n"
