"""Target `ram`: blobs that stock QEMU puts into guest RAM, and a disk with a boot sector."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
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
_PARTS: Final = ("setup", "cmdline", "kernel", "early", "initrd")
_OWN: Final = (BOOT_DISK, *(f"{part}.bin" for part in _PARTS), "*.bzImage", ARGUMENTS, PLAN)
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
                write_file(folder / f"{load.part}.bin", contents[load.part])
            write_file(folder / f"{plan.kernel.removesuffix('.bin')}.bzImage", [parts.image])
            write_file(folder / ARGUMENTS, [_arguments(plan).encode()])
            write_file(folder / PLAN, [plan.to_json().encode()])


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder that this target wrote says about itself.

    Attributes:
        ram: bytes that the guest must have.
        loads: the files to put into guest RAM, with their physical addresses.
    """

    ram: int
    loads: tuple[tuple[str, int], ...]


def read(folder: Path) -> Folder:
    """Reads the plan in a folder that this target wrote.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        plan = json.loads((folder / PLAN).read_bytes())
        loads = tuple((f"{load['part']}.bin", int(load["address"])) for load in plan["loads"])
        return Folder(int(plan["ram"]), loads)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not as bootsplice wrote it"
        raise InputError(
            f"{folder}: no image that `build --target ram` wrote: {PLAN}: {why}"
        ) from error


def _arguments(plan: Plan) -> str:
    ram = f"{plan.ram // _MIB}M" if plan.ram % _MIB == 0 else f"{plan.ram // _KIB}K"
    lines = [
        f"-m {ram}",
        # The guest's writes go to a temporary file: the folder stays as it was built.
        f"-drive file={BOOT_DISK},format=raw,snapshot=on",
        *(
            f"-device loader,file={load.part}.bin,addr={load.address:#x},force-raw=on"
            for load in plan.loads
        ),
    ]
    return "\n".join(lines) + "\n"
