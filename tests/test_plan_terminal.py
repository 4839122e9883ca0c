"""What `bootsplice plan` shows on a terminal: colours, the width, names that are no names."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_picture import WIDTH


def on_terminal(room: Path, columns: int, *arguments: str, **variables: str) -> str:
    """What `plan` shows on a terminal that is so wide."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": str(columns), **variables}
    command = [sys.executable, "-m", "pybuild.cli", "plan", *arguments]
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with subprocess.Popen(command, cwd=room, env=environment, stdout=theirs) as process:
            os.close(theirs)
            shown = b""
            try:
                while piece := screen.read(65536):
                    shown += piece
            except OSError:  # the other end is closed
                pass
        assert process.returncode == 0
    return shown.decode()


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_are_for_a_terminal_that_wants_them(room: Path, no_color: bool) -> None:
    wanted = {"NO_COLOR": "1"} if no_color else {}
    shown = on_terminal(room, WIDTH, "good", "--machine", "xen-hvm", **wanted)
    assert "hvmloader" in shown
    assert ("32m" in shown) is not no_color  # green


@pytest.mark.parametrize("columns", [40, 60, WIDTH, 130])
def test_the_map_is_as_wide_as_the_terminal(room: Path, columns: int) -> None:
    """Each line of it is one line, and a wide terminal has room for whole names."""
    shown = on_terminal(room, columns, "good", "--machine", "xen-hvm", NO_COLOR="1")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, plain)) <= columns
    begin = plain.index("") + 2
    end = plain.index("", begin)
    assert all(re.match("(0x[0-9a-f]{8}| {10}) ", line) for line in plain[begin:end]), plain
    assert any("EBDA, video, ROMs" in line for line in plain[begin:end]) is (columns > 60)


def test_names_give_a_terminal_no_orders(room: Path) -> None:
    (room / "good").rename(room / "go\x1b[2Jod")
    (room / "odd.toml").write_text(
        'base = "pc"\n[[busy_while_loading]]\nname = "a\\u001b[2Jb"\n'
        "start = 0x100000\nend = 0x200000\n"
    )
    shown = on_terminal(room, WIDTH, "go\x1b[2Jod", "--machine", "odd.toml")
    assert "\x1b[2J" not in shown
    assert "go\\x1b[2Jod on odd" in shown
    assert "a\\x1b[2Jb" in shown
