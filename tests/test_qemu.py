import asyncio
import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qemu.qmp import QMPError
from qemuguest import PNG, boot

from pybuild.debugging.rsp import Rsp, RspError
from pybuild.errors import BuildError
from pybuild.guest import Guest
from pybuild.watch import BootResult

# SeaBIOS is the guest. Without a network card it is at its last word in half a second.
SEABIOS = ("-accel", "tcg", "-nic", "none")
LAST_WORD = "No bootable device."
ENTRY_POST = 0xFE05B  # linear; where every PC's BIOS begins its power-on self test
LONG = 60.0  # seconds; a test that works never waits so long


@pytest.fixture(autouse=True)
def _nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Whatever a test does: no process, no zombie, no temporary file, no noise."""
    private = tmp_path / "tmp"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    yield
    assert list(private.iterdir()) == []
    assert children() == []
    assert capfd.readouterr().err == ""


def children() -> list[str]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += (task / "children").read_text().split()
    return found


def run(
    tmp_path: Path,
    *arguments: str,
    expect: str | None = None,
    timeout: float | None = LONG,
    screenshot: Path | None = None,
) -> BootResult:
    streamed: list[str] = []
    result = boot(
        [*SEABIOS, *arguments],
        directory=tmp_path,
        expect=None if expect is None else re.compile(expect),
        timeout=timeout,
        screenshot=screenshot,
        stream=streamed.append,
    )
    assert "".join(streamed) == result.serial
    return result


def ignore(_text: str) -> None:
    pass


async def is_running(guest: Guest) -> bool:
    status = await guest.execute("query-status")
    assert isinstance(status, dict)
    return status["running"] is True


async def monitor(guest: Guest, line: str) -> None:
    await guest.execute("human-monitor-command", {"command-line": line})


@pytest.mark.boot
def test_expected_text_on_the_screen(tmp_path: Path) -> None:
    result = run(tmp_path, expect=r"^No bootable device\.$")
    assert result.matched
    assert not result.timed_out
    assert result.exit_status is None
    assert result.shutdown_reason is None
    assert result.serial == ""
    lines = result.screen.splitlines()
    assert lines[0].startswith("SeaBIOS (version")
    assert lines[-1] == LAST_WORD
    assert all(line == line.rstrip() != "" for line in lines)
    assert 0 < result.seconds < LONG


@pytest.mark.boot
def test_expected_text_on_the_serial_port(tmp_path: Path) -> None:
    arguments = ("-machine", "graphics=off", "-vga", "none")
    result = run(tmp_path, *arguments, expect=r"SeaBIOS \(ver")
    assert result.matched
    assert result.screen == ""
    assert re.search(r"SeaBIOS \(version .*\)\n", result.serial)  # the whole line


@pytest.mark.boot
def test_time_is_up(tmp_path: Path) -> None:
    arguments = ("-machine", "graphics=off", "-cpu", "qemu64,+vmx")
    result = run(tmp_path, *arguments, expect="login:", timeout=2.0)
    assert result.timed_out
    assert not result.matched
    assert result.exit_status is None
    assert result.shutdown_reason is None
    assert "SeaBIOS (version" in result.serial
    assert "SeaBIOS (version" in result.screen
    assert "TCG doesn't support requested feature" in result.messages
    assert 2.0 <= result.seconds < LONG


@pytest.mark.boot
def test_guest_resets(tmp_path: Path) -> None:
    screenshot = tmp_path / "end.png"
    arguments = ("-machine", "graphics=off", "-boot", "reboot-timeout=100")
    result = run(tmp_path, *arguments, expect="login:", screenshot=screenshot)
    assert result.shutdown_reason == "guest-reset"
    assert result.exit_status == 0
    assert not result.matched
    assert not result.timed_out
    assert result.serial.endswith("\nRebooting")  # SeaBIOS itself keeps the last character back
    assert result.screen.endswith("Rebooting.")  # stopped, not gone: the last screen is there
    assert screenshot.read_bytes().startswith(PNG)


@pytest.mark.boot
def test_text_that_comes_with_the_end_counts(tmp_path: Path) -> None:
    result = run(tmp_path, "-boot", "reboot-timeout=1", expect=r"Rebooting\.$", timeout=None)
    assert result.matched


@pytest.mark.boot
def test_screenshot(tmp_path: Path) -> None:
    screenshot = tmp_path / "new" / "screen.png"
    result = run(tmp_path, expect=LAST_WORD, screenshot=screenshot)
    assert result.matched
    assert screenshot.read_bytes().startswith(PNG)


@pytest.mark.boot
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-nonsense"], "qemu-system-x86_64: -nonsense: invalid option"),
        (["-drive", "file=absent.img,format=raw"], "Could not open 'absent.img'"),
        (["-device", "absent"], "'absent' is not a valid device model name"),
    ],
)
def test_qemu_does_not_start(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(BuildError, match=re.escape(message)) as caught:
        run(tmp_path, *arguments)
    assert str(caught.value).startswith("QEMU did not start: ")


def test_qemu_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        "qemu-system-x86_64 is not installed; apt-get install qemu-system-x86"
    )


@pytest.mark.boot
def test_error_in_the_stream_ends_the_run(tmp_path: Path) -> None:
    def closed(_text: str) -> None:
        raise BrokenPipeError

    arguments = [*SEABIOS, "-machine", "graphics=off"]
    with pytest.raises(BrokenPipeError):
        boot(arguments, directory=tmp_path, expect=None, timeout=LONG, stream=closed)


@pytest.mark.boot
@pytest.mark.parametrize("delay", [0.0, 0.5])  # seconds from when QEMU's process is there
def test_interrupt_leaves_nothing(tmp_path: Path, delay: float) -> None:
    name = f"interrupt-{os.getpid()}-{delay}"
    process = start(name, tmp_path / "tmp")
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    assert process.wait(LONG) == -signal.SIGINT
    assert processes(name) == []


@pytest.mark.boot
def test_a_kill_leaves_no_guest(tmp_path: Path) -> None:
    """It cannot be helped that it leaves temporary files."""
    name = f"kill-{os.getpid()}"
    process = start(name, tmp_path)
    process.kill()
    process.wait(LONG)
    until(lambda: processes(name) == [])


def start(name: str, temporary: Path) -> subprocess.Popen[bytes]:
    """A process that runs a guest without end."""
    program = (
        "import signal, sys; from pathlib import Path; from qemuguest import boot\n"
        # A shell starts what runs in the background, perhaps this test, deaf to it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "boot(sys.argv[1:], directory=Path(), expect=None, timeout=None, stream=print)"
    )
    environment = {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *SEABIOS, "-name", name],
        env=os.environ | environment,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: any(is_qemu(each) for each in processes(name)))
    return process


def is_qemu(process: Path) -> bool:
    """Not what starts it, which asks the kernel to kill it with its parent."""
    try:
        return (process / "exe").readlink().name.startswith("qemu-system")
    except OSError:  # it is gone
        return False


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def processes(name: str) -> list[Path]:
    """The processes with this word on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name in (process / "cmdline").read_text().split("\0"):
                found.append(process)
    return found


@pytest.mark.boot
def test_guest_leaves_by_isa_debug_exit(tmp_path: Path) -> None:
    async def session() -> Guest:
        async with Guest.start(SEABIOS, directory=tmp_path, stream=ignore) as guest:
            assert not guest.ended
            assert guest.exit_status is None
            assert await is_running(guest)
            with pytest.raises(QMPError, match="absent-command"):
                await guest.execute("absent-command")
            with pytest.raises(QMPError):
                await monitor(guest, "o/b 0xf4 0x10")
            await guest.wait(LONG)
            assert guest.ended
            with pytest.raises(BuildError, match="QEMU exit, with status 33"):
                await guest.screenshot(tmp_path / "late.png")
        return guest

    guest = asyncio.run(session())
    assert guest.exit_status == 33
    assert guest.shutdown_reason is None
    assert not (tmp_path / "late.png").exists()


@pytest.mark.boot
def test_serial_text_is_utf8_with_line_feeds(tmp_path: Path) -> None:
    async def session() -> None:
        async with Guest.start([*SEABIOS, "-S"], directory=tmp_path, stream=ignore) as guest:
            for byte in "é\r\n".encode() + b"\xff\rend\r":
                await monitor(guest, f"o/b 0x3f8 {byte}")
            while not guest.serial.endswith("end"):
                await guest.wait(0.01)
        assert guest.serial == "é\n\ufffd\nend\n"

    asyncio.run(session())


@pytest.mark.boot
def test_gdb_from_reset_to_post(tmp_path: Path) -> None:
    arguments = [*SEABIOS, "-S", "-gdb", "unix:gdb,server=on,wait=off"]

    async def session() -> None:
        async with Guest.start(arguments, directory=tmp_path, stream=ignore) as guest:
            async with Rsp.connect(tmp_path / "gdb") as gdb:
                reset = await gdb.registers()
                assert (reset["cs"], reset["rip"], reset["rax"]) == (0xF000, 0xFFF0, 0)
                bios = await gdb.read(0xF0000, 0x10000)
                assert len(bios) == 0x10000
                far_jump, offset, segment = struct.unpack_from("<BHH", bios, 0xFFF0)
                assert far_jump == 0xEA
                assert segment * 16 + offset == ENTRY_POST
                await gdb.set_breakpoint(ENTRY_POST)
                assert (await gdb.resume(LONG)).startswith("T05")
                post = await gdb.registers()
                assert (post["cs"], post["rip"]) == (0xF000, ENTRY_POST - 0xF0000)
                await gdb.remove_breakpoint(ENTRY_POST)
                with pytest.raises(TimeoutError):
                    await gdb.resume(1.0)
                assert (await gdb.registers())["rip"] != post["rip"]
                with pytest.raises(RspError, match="E22"):
                    await gdb.remove_breakpoint(ENTRY_POST)
                await gdb.detach()
            assert await is_running(guest)
            async with Rsp.connect(tmp_path / "gdb") as gdb:  # to a guest that runs
                assert await gdb.read(0xF0000, 16) == bios[:16]
            assert not await is_running(guest)

    asyncio.run(session())
