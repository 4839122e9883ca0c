"""What the command line says beside its results: --quiet, --verbose, bars on a terminal."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import terminal
from command import run
from diskimage import noise
from fakekernel import image
from intodisk import disk_of
from terminal import COLOUR

from pybuild import build, targets
from pybuild.build import Order

BOOTSPLICE = (sys.executable, "-m", "pybuild.cli")
# A step that is soon over, a long one, a bar below a bar, and what is said meanwhile.
STEPS = """
import sys, time
from pybuild import say
say._LONG = 0.3
with say.late_steps() as progress:
    progress("the short step")
    meter = progress("the long step")
    time.sleep(0.8)
    if meter: meter(0.42)
    with say.long_steps() as inner:
        inner("the inner step")
        time.sleep(0.3)
    say.note("a note")
    print("a result")
    time.sleep(0.3)
    if meter: meter(1.0)
    time.sleep(0.2)
print("the end")
"""


def waits(seconds: str, *options: str) -> tuple[str, ...]:
    """A boot in which nothing happens, at no cost, for so long: QEMU is never let go."""
    order = (*BOOTSPLICE, "boot", "disk.img", *options, "--expect", "[a-z]", "--timeout", seconds)
    return (*order, "--", "-S", "-nic", "none")


def waiting(seconds: str) -> str:
    """What is said meanwhile."""
    return f"waiting for '[a-z]', {seconds} s at most"


@pytest.fixture
def disk(room: Path) -> Path:
    """A folder with disk.img in it."""
    assert run(room, "build", "good", "-o", "disk.img").returncode == 0
    return room


def test_quiet(room: Path) -> None:
    order = ("build", "good", "--machine", "xen-hvm", "-o", "out")
    assert "NOT relocatable" in run(room, *order).stderr
    assert run(room, *order, "-q").stderr == ""
    assert run(room, "--quiet", *order).stderr == ""
    assert run(room, *order, "-v", "-q").stderr == ""  # the last counts
    assert "NOT relocatable" in run(room, "-q", *order, "-v").stderr
    assert run(room, "-q", "inspect", "good").stdout == run(room, "inspect", "good").stdout
    wrong = run(room, "build", "none", "-o", "out", "-q")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("bootsplice: none: cannot be read: ")


def test_verbose(room: Path) -> None:
    done = run(room, "build", "good", "--machine", "xen-hvm", "-o", "out", "-v")
    lines = re.findall(r"^bootsplice: (\d+\.\d+) s: (.*)$", done.stderr, re.M)
    assert [text for _, text in lines if "xen-hvm.toml" not in text] == [
        "reading good",
        "looking whether the assembler's sources have changed",
        "planning and splicing",
        "writing out",
        "done",
    ]
    assert re.search(r"reading /.*/machines/xen-hvm\.toml$", done.stderr, re.M)
    times = [float(seconds) for seconds, _ in lines]
    assert times == sorted(times)
    assert 0 < times[-1] < 60


@pytest.mark.boot
def test_verbose_boot_says_how_qemu_is_run(disk: Path) -> None:
    done = subprocess.run(waits("0.1", "-v"), cwd=disk, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    command = r"running qemu-system-x86_64 .*disk\.img.* -S -nic none"
    assert re.search(rf"^bootsplice: [\d.]+ s: {command}$", done.stderr, re.M)
    assert waiting("0.1") in done.stderr


def steps(folder: Path, **environment: str) -> terminal.Ran:
    return terminal.run(
        [sys.executable, "-c", STEPS],
        folder,
        output=folder / "results",
        environment=environment,
    )


def test_bars_on_a_terminal(tmp_path: Path) -> None:
    ran = steps(tmp_path)
    assert ran.status == 0
    assert "the short step" not in ran.screen
    assert "the long step" in ran.screen
    assert "the inner step" in ran.screen
    assert "42%" in ran.screen
    assert "bootsplice: a note\r\n" in ran.screen
    assert (tmp_path / "results").read_text() == "a result\nthe end\n"
    assert COLOUR.search(ran.screen)
    # Gone: the cursor is shown again, and the bar's line was the last thing to be cleared.
    assert ran.screen.rindex("\x1b[?25h") > ran.screen.rindex("the long step")
    assert ran.screen.rindex("\x1b[2K") > ran.screen.rindex("the long step")


def test_no_colour_is_obeyed(tmp_path: Path) -> None:
    ran = steps(tmp_path, NO_COLOR="1")
    assert "the long step" in ran.screen
    assert not COLOUR.search(ran.screen)


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "forced"])
def test_no_bars_in_a_pipe(tmp_path: Path, forced: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        cwd=tmp_path,
        env={**os.environ, **forced},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "bootsplice: the inner step\nbootsplice: a note\n"
    assert done.stdout == "a result\nthe end\n"


@pytest.mark.boot
@pytest.mark.parametrize("to_a_file", [True, False])
def test_boot_says_what_it_waits_for(disk: Path, to_a_file: bool) -> None:
    """Unless the guest's serial port is on the same terminal."""
    output = disk / "serial" if to_a_file else None
    ran = terminal.run(waits("2"), disk, output=output)
    assert ran.status == 1
    assert (waiting("2") in ran.screen) == to_a_file
    assert "'[a-z]' was not seen within 2 s" in ran.screen


@pytest.mark.boot
def test_a_closed_standard_output_is_nothing_to_fail_of(disk: Path) -> None:
    ran = terminal.run(("sh", "-c", 'exec "$@" >&-', "sh", *waits("0.1")), disk)
    assert ran.status == 1
    assert "bootsplice: disk.img: '[a-z]' was not seen within 0.1 s" in ran.screen


def test_what_is_soon_over_shows_no_bar(room: Path) -> None:
    ran = terminal.run([*BOOTSPLICE, "build", "good", "-o", "out"], room)
    assert ran.status == 0
    assert "\x1b" not in ran.screen


@pytest.mark.parametrize("name", ["x.img", "x.iso", "into"])
def test_how_far_writing_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "kernel").write_bytes(image())
    initrd = tmp_path / "initrd"
    initrd.write_bytes(noise(1 << 20))
    with initrd.open("ab") as stream:
        stream.truncate(2 << 20)  # a hole at its end
    told: dict[str, list[float]] = {}

    def progress(step: str) -> Callable[[float], None]:
        return told.setdefault(step, []).append

    out = tmp_path / name
    order = Order(tmp_path / "kernel", (initrd,), target=targets.of_output(out))
    if name == "into":
        disk_of("mbr", out)
        build.build_into(order, out, 6, progress)
    else:
        build.build(order, out, progress)
    *before, last = told
    assert last in (f"writing {out}", f"writing to {out}")
    assert not any(told[step] for step in before)
    parts = told[last]
    assert parts == sorted(parts)
    assert 0 < parts[0] < parts[-1] <= 1
