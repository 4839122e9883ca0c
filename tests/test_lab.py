"""The Xen lab as a whole: `bootsplice lab xen`, on a copy of it, and what can go wrong with one."""

import asyncio
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest
from booting import Made, report
from command import refusal, run
from probes import check

from pybuild import paths, watch
from pybuild.xen import lab, start, xl
from pybuild.xen.machine import Place
from pybuild.xen.session import Lab

pytestmark = [pytest.mark.boot, pytest.mark.timeout(300), pytest.mark.usefixtures("xen")]


@pytest.fixture(scope="session")
def place() -> Place:
    """The lab that is in the cache."""
    return lab.prepare(paths.cache_directory(), progress=print)


@pytest.fixture
def copy(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a lab of the test's own, in a cache of its own: links to the real one's files.

    What is there may be removed or replaced, but must not be written to.
    """
    cache = tmp_path / "cache"
    copied = cache / place.folder.name
    try:
        shutil.copytree(place.folder, copied, copy_function=os.link, symlinks=True)
    except OSError:  # the test's files are on another file system
        shutil.rmtree(cache)
        shutil.copytree(place.folder, copied, symlinks=True)
    monkeypatch.setenv("BOOTSPLICE_CACHE", str(cache))
    return copied


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Where commands are run."""
    folder = tmp_path / "room"
    folder.mkdir()
    return folder


def sums(folder: Path) -> dict[str, str]:
    """The files of a template, each with its digest."""
    found = {}
    for path in folder.iterdir():
        with path.open("rb") as stream:
            found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def said(room: Path, *options: str) -> list[str]:
    """What `bootsplice lab xen` says."""
    done = run(room, "lab", "xen", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def version(place: Place) -> str:
    """Resumes a lab and asks its Xen for its version."""
    async with Lab.resume(place, lambda _: None) as dom0:
        ran = await dom0.run("xl", "info", "xen_version")
        assert ran.status == 0
        return ran.text()


def test_status_and_clean(copy: Path, room: Path) -> None:
    where, *packages, last = said(room, "--status")
    assert re.fullmatch(rf"{re.escape(str(copy))}: [1-9]\d+ MiB", where)
    assert last == "starts at once"
    names = [package.split(" ")[0] for package in packages]
    assert {"busybox-static", "qemu-system-xen", "seabios"} <= set(names)
    assert all(re.fullmatch(r"[a-z0-9.+-]+ \d\S*", package) for package in packages)
    (template,) = copy.glob("template-*")
    shutil.rmtree(template)
    assert said(room, "--status")[-1] == "its next start boots Xen, once: 12 s"
    for _ in range(2):
        assert said(room, "--clean") == []
        assert list(copy.parent.iterdir()) == []
        gone = "not there yet; the first `bootsplice boot --on xen` makes it"
        assert said(room, "--status") == [f"{copy}: 0 MiB", gone]
    assert "--status does not go with --clean" in refusal(room, "lab", "xen", "--status", "--clean")


@pytest.mark.soak
def test_the_template_is_made_again(place: Place, copy: Path, room: Path) -> None:
    (template,) = copy.glob("template-*")
    shutil.rmtree(template)
    (copy / "template-0123456789abcdef").mkdir()  # of a QEMU that is no longer there
    (copy / f"new-{template.name}").mkdir()  # of a process that was killed
    assert said(room)[-1] == "starts at once"
    assert {path.name for path in copy.iterdir()} == {"root", template.name}
    assert {path.name for path in template.iterdir()} == {"initramfs.cpio", "ram", "devices"}
    initramfs = template.name + "/initramfs.cpio"
    assert (copy / initramfs).read_bytes() == (place.folder / initramfs).read_bytes()
    assert (template / "ram").stat().st_blocks * 512 < 1 << 30  # with holes
    before = sums(template)
    assert asyncio.run(version(Place(copy, template.name))) == asyncio.run(version(place))
    assert sums(template) == before


def test_no_apt(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("BOOTSPLICE_CACHE", str(cache))
    tools = tmp_path / "tools"  # all that the lab needs but for apt
    tools.mkdir()
    for tool in ("qemu-system-x86_64", "setpriv", "dpkg-deb"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    why = refusal(room, "lab", "xen", status=1, path=str(tools))
    assert "apt-get" in why
    assert [path for path in cache.rglob("*") if path.name != "xen-lab"] == []


@pytest.mark.soak
def test_a_damaged_template(copy: Path, room: Path, made: Callable[[str, str, str], Made]) -> None:
    (devices,) = copy.glob("template-*/devices")
    content = devices.read_bytes()
    devices.unlink()  # it is the real one's, too
    image = made("probe-2.10", "xen-hvm", "disk").path
    for damaged in (b"", content[:1000], content[: len(content) // 2]):
        devices.write_bytes(damaged)
        why = refusal(room, "boot", image, "--on", "xen", "--timeout", "60", status=1)
        assert why.startswith("the Xen lab: QEMU does not take its saved state (")
        assert "; `bootsplice lab xen --clean` " in why


def test_qemu_is_killed(place: Place, made: Callable[[str, str, str], Made]) -> None:
    """Whoever waits for the guest hears of it at once."""
    image = made("probe-2.10", "xen-hvm", "disk").path
    command = [sys.executable, "-m", "pybuild.cli", "boot", str(image), "--on", "xen"]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as boot:
        try:
            os.kill(qemu_of(boot.pid, f"{place.template}/ram"), signal.SIGKILL)
            _, why = boot.communicate(timeout=20)
        finally:
            boot.kill()
    assert boot.returncode == 1
    assert why.startswith("bootsplice: the Xen lab ended; "), why


def qemu_of(parent: int, argument: str) -> int:
    """Waits until a process has a child with such an argument, which is about to run a guest."""
    while True:
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "-ww", "--ppid", str(parent)],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in listed.stdout.splitlines():
            if argument in line:
                time.sleep(4)  # so long does the guest take to start at the least
                return int(line.split()[0])
        time.sleep(0.1)


@pytest.mark.soak
def test_labs_do_not_disturb_each_other(
    place: Place, made: Callable[[str, str, str], Made]
) -> None:
    template = place.folder / place.template
    before = sums(template)
    image = made("probe-2.10", "xen-hvm", "disk")

    async def session() -> str:
        async with Lab.resume(place, lambda _: None) as other:
            await other.put("mine", b"mine")
            starting = start.guest(image.path, lambda where: xl.of_image(image.path, where), print)
            expected = watch.Watch(re.compile("^end=ok"), lambda _: None)
            async with starting(expected.serial) as guest:
                await guest.wait(120, expected.seen)
                log = guest.serial
            # No guest of the one is the other's, and neither are its files.
            assert len((await other.run("xl", "list")).text().splitlines()) == 2
            assert (await other.run("ls", Lab.folder)).text() == "mine"
            return log

    check(image.recipe, report(asyncio.run(session())), image.plan)
    assert sums(template) == before
