"""`bootsplice debug`: how it and gdb begin and end, and what it refuses."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import refusal, run
from debugging import COMMAND, SECONDS, SMALL, shown
from fakekernel import image, probe

from pybuild import build
from pybuild.debugging import session as debugger
from pybuild.errors import BuildError

pytestmark = pytest.mark.boot

Built = Callable[[str], Path]


@pytest.fixture(scope="module")
def reporter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel that reports and ends."""
    return probe("2.10", tmp_path_factory.mktemp("reporter"))


def test_ctrl_c_stops_the_guest(tmp_path: Path) -> None:
    """On a terminal, where it goes to all processes: only gdb may heed it."""
    (tmp_path / "hangs").write_bytes(image(end=0x300))  # its header's jump leads to itself
    build.build(build.Order(tmp_path / "hangs", target="disk"), tmp_path / "hangs.img")
    command = [*COMMAND, str(tmp_path / "hangs.img"), "--at", "entry", *SMALL]
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "dumb"
        os.execv(command[0], command)  # noqa: S606  we are the child
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([terminal], [], [], SECONDS)[0], seen
            seen += os.read(terminal, 4096).decode()
        seen = seen.partition(text)[2]

    try:
        until("(gdb) ")
        os.write(terminal, b"continue\n")
        until("Continuing.")
        time.sleep(0.5)  # for the guest to run
        os.write(terminal, b"\x03")
        until("SIGINT")
        until("(gdb) ")
        os.write(terminal, b"quit\n")
        with contextlib.suppress(OSError):  # how a terminal ends
            until("never")
    finally:
        os.close(terminal)  # which ends what still runs
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0


def test_without_gdb(built: Built, tmp_path: Path) -> None:
    """It waits for a gdb, in its own process group as in a terminal, until that ends."""
    for program in ("qemu-system-x86_64", "setpriv", "nasm"):
        found = next(Path(p, program) for p in os.get_exec_path() if Path(p, program).exists())
        (tmp_path / program).symlink_to(found)
    waiting = subprocess.Popen(
        [*COMMAND, built("probe-bzimage.xen-hvm"), *SMALL],
        env={**os.environ, "PATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    assert waiting.stderr is not None
    try:
        assert "stopped at hook (0x700010, 32-bit)" in waiting.stderr.readline()
        how = waiting.stderr.readline()
        script = re.search(r"gdb is not installed; attach with `(gdb -x \S+)`", how)
        assert script, how
        done = subprocess.run(
            [*script[1].split(), "-q", "-batch", "-ex", "stepi"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert re.search(shown("i386/relocator.asm", "cli"), done.stdout)
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(SECONDS) == 0
        assert waiting.stderr.read() == ""
        assert not Path(script[1].split()[-1]).exists()
    finally:
        waiting.kill()
        waiting.communicate()


def test_an_end_from_outside(reporter: Path, tmp_path: Path) -> None:
    """SIGTERM, while gdb waits for its user, leaves nothing behind."""
    running = subprocess.Popen(
        [*COMMAND, reporter, "--at", "entry", *SMALL],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    while "the script says more" not in running.stdout.readline():
        assert running.poll() is None
    assert list(tmp_path.iterdir())
    running.send_signal(signal.SIGTERM)
    assert running.wait(SECONDS) == 1
    assert running.communicate()[1].splitlines()[-1] == "bootsplice: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_is_not_moved(built: Built, tmp_path: Path) -> None:
    why = refusal(tmp_path, "debug", built("probe-bzimage.pc"), *SMALL)
    assert why.endswith("so nobody moves this kernel; use --at kernel")


def test_a_kernel_image_has_no_boot_sector(reporter: Path, tmp_path: Path) -> None:
    why = refusal(tmp_path, "debug", reporter, "--at", "bootsect", *SMALL)
    assert why.endswith("there is no boot sector; use --at entry")


def test_a_place_that_is_not_reached(reporter: Path, tmp_path: Path) -> None:
    """With what the guest said, as from `boot`."""
    done = run(tmp_path, "debug", reporter, "--at", "0x3f00000", *SMALL)
    assert done.returncode == 1
    first, log = done.stderr.split("\n--- serial port\n")
    assert first.endswith("the guest did not come to 0x3f00000: it made QEMU exit")
    assert "\nend=ok\n--- screen\n" in log


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A disk of somebody else, whose boot sector jumps to itself."""
    sector = b"\xeb\xfe" + bytes(508) + b"\x55\xaa"
    disk = tmp_path / "disk.img"
    disk.write_bytes(sector.ljust(16 * 63 * len(sector), b"\0"))
    return disk


def test_a_place_that_is_not_reached_in_time(
    strange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debugger, "_SECONDS", 0.5)
    with pytest.raises(BuildError, match=r"did not come to 0x7c02 within 0\.5 s\n--- serial port"):
        debugger.debug(strange, at=0x7C02, memory=64, extra=("-nic", "none"))


def test_a_boot_sector_of_somebody_else(strange: Path, tmp_path: Path) -> None:
    why = refusal(tmp_path, "debug", strange.name, *SMALL)
    assert why.startswith("disk.img: the boot sector at 0x7c00 is not made of the sources in asm/")


def test_a_gdb_that_fails(reporter: Path, tmp_path: Path) -> None:
    """With --verbose, which says what was done until then."""
    gdb = tmp_path / "gdb"
    gdb.write_text("#!/bin/sh\nexit 3\n")
    gdb.chmod(0o755)
    done = subprocess.run(
        [*COMMAND, "-v", reporter, "--at", "entry", *SMALL],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1
    *steps, last = done.stderr.splitlines()
    assert last == f"bootsplice: {gdb} ended with exit status 3"
    assert [step for step in steps if step.endswith(": running the guest up to entry")]


def test_its_help_explains_the_places(tmp_path: Path) -> None:
    said = run(tmp_path, "debug", "--help").stdout
    assert "--at [bootsect|entry|hook|kernel|ADDRESS]" in said
    assert "\n  hook      the code that moves the kernel" in said


@pytest.mark.parametrize("at", ["nowhere", "-1", "0x1ffffffffffffffff"])
def test_what_is_no_place(at: str, tmp_path: Path) -> None:
    assert f"'{at}': expected bootsect, entry, hook, kernel or an address" in refusal(
        tmp_path, "debug", "disk.img", f"--at={at}"
    )
