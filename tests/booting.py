"""Boots an image with the real `bootsplice boot`, and what the guest then said."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT = 120  # seconds: many times what a boot takes, for a machine that is busy


def boot(image: Path, expect: str, *qemu: str) -> str:
    """Boots to the expected text and returns the serial log; a failure shows log and screen."""
    command = [sys.executable, "-m", "pybuild.cli", "boot", str(image)]
    command += ["--expect", expect, "--timeout", str(TIMEOUT), "--", "-nic", "none", *qemu]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def report(log: str) -> dict[str, str]:
    """The `key=value` lines of a log."""
    return dict(line.split("=", 1) for line in log.splitlines() if "=" in line)


def plan(image: Path) -> dict[str, Any]:
    """The image's plan."""
    loaded: dict[str, Any] = json.loads((image / "plan.json").read_text())
    return loaded
