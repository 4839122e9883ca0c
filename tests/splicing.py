"""Kernel images that carry a head, made by the real flow, and what a probe must report of one."""

import zlib
from pathlib import Path

from probes import OF_THE_KERNEL, value

from pybuild import build, kernel
from pybuild.build import Order
from pybuild.kernel import Kernel


def spliced(original: Path, out: Path, *, cmdline: str = "", initrd: Path | None = None) -> Kernel:
    """A kernel with a head, written to `out`."""
    initrds = (initrd,) if initrd else ()
    build.build(Order(original, initrds, cmdline, target="bzimage"), out)
    return kernel.read(out)


def check_report(
    said: dict[str, str], original: Kernel, run: int, *, cmdline: str, initrd: bytes
) -> None:
    """The kernel is whole, where it must run, and cannot tell that it was moved."""
    assert value(said, "run") == run
    assert value(said, "size") == original.protected_size
    assert value(said, "crc") == zlib.crc32(original.protected)
    for field in OF_THE_KERNEL:
        assert (field in said) is original.has(field)
        if field in said:
            assert value(said, field) == original[field], field
    home = original["code32_start"]
    assert value(said, "code32_start") == home + (run - original.load_address)
    assert said["cmdline"] == cmdline
    assert value(said, "ramdisk_size") == len(initrd)
    assert value(said, "ramdisk_image") % 0x1000 == 0
    assert value(said, "initrd_crc") == zlib.crc32(initrd)
    assert [value(said, segment) for segment in ("cs", "ds", "es", "fs", "gs", "ss")] == [
        0x10,
        *[0x18] * 5,
    ]
    if said["mode"] == "long64":
        assert [value(said, name) for name in ("rbx", "rbp", "rdi")] == [0, 0, 0]
        if "page_tables_error" not in said:  # above 4 GiB the probe cannot walk them
            assert {said[key] for key in said if key.startswith("mapped_")} == {"1"}
    else:
        assert [value(said, name) for name in ("ebx", "ebp", "edi")] == [0, 0, 0]
