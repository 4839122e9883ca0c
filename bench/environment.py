"""What the numbers depend on: the machine and the versions of all that took part."""

import os
import platform
import re
import shutil
from pathlib import Path

from bench import loaders, qemu, tools
from pybuild import assembler


def machine() -> dict[str, str]:
    """The host."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "CPU": cpu[1] if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "system": f"{_distribution()}, Linux {platform.release()}",
        "guest": f"QEMU's `pc` with {qemu.RAM} MiB under TCG (no KVM), one CPU of QEMU's default",
        "load when it began": f"{os.getloadavg()[0]:.2f}",
    }


def versions() -> dict[str, str]:
    """Of every program that is there."""
    found = {
        "QEMU": _first_line(qemu.PROGRAM, "--version"),
        "NASM": _first_line(assembler.nasm(), "-v"),
        "Python": platform.python_version(),
    }
    for name, program, option in (
        ("GRUB", "grub-mkimage", "--version"),
        ("SYSLINUX", "syslinux", "--version"),
        ("mtools", "mtools", "--version"),
        ("xorriso", "xorriso", "--version"),
        ("genisoimage", "genisoimage", "--version"),
    ):
        if shutil.which(program):
            found[name] = _first_line(program, option)
    if loaders.ISOLINUX_BINARY.is_file():
        said = re.search(rb"ISOLINUX \d[.\d]*", loaders.ISOLINUX_BINARY.read_bytes())
        found["ISOLINUX"] = said[0].decode() if said else "unknown"
    return found


def _first_line(*command: str) -> str:
    lines = tools.run(*command).splitlines()
    line = next(line for line in lines if any(c.isdigit() for c in line))
    return re.split(r"\s+(?::|Copyright\b)", line.strip())[0]


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
