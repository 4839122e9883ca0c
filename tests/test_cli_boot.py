"""`bootsplice boot`: what it refuses, and what it says of a boot that fails."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import contents, refusal, run
from fakekernel import image, probe
from qemuguest import PNG


@pytest.fixture(scope="session")
def reporter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel that boots and reports."""
    return probe("2.10", tmp_path_factory.mktemp("reporter"))


@pytest.mark.parametrize("missing", ["out", "initrd", "folder", "fifo", "x" * 300])
def test_what_is_no_image_to_boot(room: Path, missing: str) -> None:
    assert "no image " in refusal(room, "boot", missing)


@pytest.mark.parametrize(
    "arguments", [("--expect", "("), ("--timeout", "0"), ("--timeout", "x"), ("--timeout", "nan")]
)
def test_what_cannot_be_expected(room: Path, arguments: tuple[str, ...]) -> None:
    assert arguments[0] in refusal(room, "boot", "folder", *arguments)


def test_an_image_that_is_damaged(room: Path) -> None:
    (room / "folder/qemu.args").write_bytes(b"\xff\xfe")
    assert "qemu.args" in refusal(room, "boot", "folder", "--timeout", "1")


def test_qemu_is_named_when_it_is_missing(room: Path) -> None:
    assert run(room, "build", "good", "-o", "out").returncode == 0
    why = refusal(room, "boot", "out", "--timeout", "5", status=1, path=str(room / "folder"))
    assert why.startswith("qemu-system-x86_64 is not installed; ")
    assert "apt-get install qemu-system-x86" in why


def boot_in_vain(folder: Path, how: str, *qemu: str) -> tuple[str, str]:
    """Boots `out` up to what never comes; the serial log and the screen that the failure shows."""
    before = contents(folder / "out")
    options = ("--expect", "^nonsense$", "--timeout", "3", "--", "-nic", "none", *qemu)
    done = run(folder, "boot", "out", *options)
    assert done.returncode == 1
    line, log = done.stderr.split("\n--- serial port\n")
    assert re.fullmatch(rf"bootsplice: out: '\^nonsense\$' was not seen {how}", line)
    serial, screen = log.removesuffix("\n---\n").split("\n--- screen\n")
    assert serial.splitlines()[-1] in done.stdout  # as it came
    assert contents(folder / "out") == before
    return serial, screen


@pytest.mark.boot
def test_a_guest_that_ends_before_the_text_comes(room: Path, reporter: Path) -> None:
    order = ("build", reporter, "--cmdline", "probe=1", "--target", "ram", "-o", "out")
    assert run(room, *order).returncode == 0
    serial, _ = boot_in_vain(
        room, r"before the guest ended after [\d.]+ s with QEMU's exit status 33"
    )
    assert serial.splitlines()[-1] == "end=ok"


@pytest.mark.parametrize(
    ("where", "why"), [("nowhere/x.png", "its folder does not exist"), (".", "is a folder")]
)
def test_where_no_screenshot_can_be_kept(room: Path, where: str, why: str) -> None:
    assert run(room, "build", "good", "-o", "out").returncode == 0
    assert why in refusal(room, "boot", "out", "--screenshot", where, "--timeout", "1")
    assert not (room / "nowhere").exists()


@pytest.mark.boot
def test_a_guest_that_hangs(room: Path) -> None:
    (room / "hangs").write_bytes(image(end=0x300))  # its header's jump leads to itself
    assert run(room, "build", "hangs", "--target", "ram", "-o", "out").returncode == 0
    serial, screen = boot_in_vain(room, "within 3 s", "-machine", "graphics=off")
    assert "SeaBIOS" in serial
    assert "Booting from Hard Disk..." in screen


@pytest.mark.boot
def test_what_is_said_has_a_line_of_its_own(room: Path) -> None:
    """Also behind a guest that has not ended its own, such as one that asks for a name."""
    (room / "hangs").write_bytes(image(end=0x300))
    assert run(room, "build", "hangs", "--target", "ram", "-o", "out").returncode == 0
    command = [sys.executable, "-m", "pybuild.cli", "boot", "out", "--expect", "Hard Disk"]
    done = subprocess.run(
        [*command, "--", "-nic", "none", "-machine", "graphics=off"],
        cwd=room,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    *_, last, said = done.stdout.splitlines()
    assert re.fullmatch(r"Booting from Hard Disk\.*", last)
    assert re.fullmatch(r"bootsplice: seen after [\d.]+ s: Hard Disk", said)


_ENDED_WHILE_A_TASK_IS_BUSY = """
import asyncio, contextlib, os, signal
import click
from pybuild import cli

was_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN

async def follow():
    if was_ignored:
        os.kill(os.getpid(), signal.SIGINT)
        print("goes on")
    os.kill(os.getpid(), signal.SIGTERM)

async def watch():
    following = asyncio.create_task(follow())
    try:
        await asyncio.sleep(60)
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        print("ended in order")

cli.cli.add_command(click.Command("watch", callback=lambda: asyncio.run(watch())))
cli.main()
"""


@pytest.mark.parametrize(
    ("interrupt", "said"),
    [(signal.SIG_DFL, "ended in order\n"), (signal.SIG_IGN, "goes on\nended in order\n")],
)
def test_sigterm_ends_it_as_an_interrupt_does(interrupt: signal.Handlers, said: str) -> None:
    """Also where interrupts are ignored, as in what a script has in the background."""
    command = [sys.executable, "-c", _ENDED_WHILE_A_TASK_IS_BUSY, "watch"]
    done = subprocess.run(
        command,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, said)
    assert done.stderr.strip() == "bootsplice: interrupted"


@pytest.mark.boot
@pytest.mark.parametrize(("expected", "status"), [("SeaBIOS", 0), ("^nonsense$", 1)])
def test_the_last_screen_is_kept(room: Path, expected: str, status: int) -> None:
    """Of a guest that shows what is expected, and of one that does not."""
    (room / "hangs").write_bytes(image(end=0x300))
    assert run(room, "build", "hangs", "-o", "out").returncode == 0
    options = ("--expect", expected, "--timeout", "2", "--screenshot", "screen.png")
    assert run(room, "boot", "out", *options, "--", "-nic", "none").returncode == status
    assert (room / "screen.png").read_bytes().startswith(PNG)
