"""`boot --on xen` on a host that is a Xen dom0 itself: the lab's dom0, with a Python brought in."""

import asyncio
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from booting import Made, report
from probes import check

from pybuild import paths
from pybuild.xen import lab
from pybuild.xen.session import Lab

# Each takes 20 s on an idle machine.
pytestmark = [pytest.mark.boot, pytest.mark.timeout(300), pytest.mark.usefixtures("xen")]

LIMIT = 200.0  # seconds for a command in dom0, on a busy machine
# What `boot --on xen` imports on such a host: the files and folders of whole modules and packages,
# as some import more of themselves when it is needed.
IMPORTED = """
import asyncio, json, runpy, sys
import pybuild.boot, pybuild.cli, pybuild.guest, pybuild.watch, pybuild.xen.start, pybuild.xen.xl
asyncio.run(asyncio.to_thread(int))
found = set()
for name in {name.partition(".")[0] for name in sys.modules}:
    has = vars(sys.modules[name])
    found.update(has.get("__path__") or [has.get("__file__"), has.get("__cached__")])
print(json.dumps(sorted(file for file in found if file)))
"""


def carry(folder: Path) -> list[str]:
    """Puts this Python and what bootsplice needs of it into a folder.

    Returns:
        The command that runs `bootsplice` in dom0, where the folder is `Lab.image`.
    """
    run = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, check=True)
    standard = Path(sysconfig.get_path("stdlib"))
    own = f"lib/{standard.name}"
    places = {Path(path): "site" for path in sys.path} | {paths.ROOT: "site", standard: own}
    programs = [Path(sys.executable).resolve()]
    for file in map(Path, json.loads(run.stdout)):
        start = next(each for each in file.parents if each in places)
        if start.name == "lib-dynload":
            start = standard
        to = folder / places[start] / file.relative_to(start)
        to.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            shutil.copytree(file, to, ignore=shutil.ignore_patterns("test", "tests"))
            programs += to.rglob("*.so")
        elif file.exists():
            shutil.copy2(file, to)  # with its time, or its bytecode would be out of date
            programs += [file] if file.suffix == ".so" else []
    shutil.copy(programs[0], folder / "python")
    loader = libraries(programs, folder / "so")
    so = f"{Lab.image}/so"
    return [
        *("env", f"PYTHONHOME={Lab.image}", f"PYTHONPATH={Lab.image}/site"),
        *(f"{so}/{loader}", "--library-path", so),
        *(f"{Lab.image}/python", "-S", "-m", "pybuild.cli"),
    ]


def libraries(programs: Iterable[Path], folder: Path) -> str:
    """Copies the shared libraries that programs need; the name of their loader."""
    folder.mkdir()
    run = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True)
    words = {word for word in run.stdout.split() if word.startswith("/") and word[-1] != ":"}
    for word in words:
        shutil.copy(word, folder)
    (loader,) = {name for path in words if (name := Path(path).name).startswith("ld-")}
    return loader


@pytest.fixture(scope="module")
def brought(
    made: Callable[[str, str, str], Made],
    built: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[str]]:
    """A folder for dom0, with `disk.img` and `ram` in it, and the command to run there."""
    folder = tmp_path_factory.mktemp("brought") / "image"
    folder.mkdir()
    command = carry(folder)
    shutil.copy(made("probe-bzimage", "xen-hvm", "disk").path, folder / "disk.img")
    shutil.copytree(built("probe-2.10.xen-hvm"), folder / "ram")
    return folder, command


def on_the_host(brought: tuple[Path, list[str]], *arguments: str) -> tuple[int, str]:
    """Runs `bootsplice boot --on xen` in a dom0, which must then be as it was before.

    Returns:
        Its exit status, and what it wrote on both outputs.
    """
    folder, command = brought
    place = lab.prepare(paths.cache_directory(), progress=print)
    # The image's sums; what is below /tmp, where a copy of it was; the domains: only dom0.
    look = (
        "sh",
        "-c",
        f"cd {Lab.image} && sha256sum disk.img ram/*; ls /tmp; xl list | cut -d' ' -f1",
    )

    async def session() -> tuple[int, str]:
        async with Lab.resume(place, lambda _: None) as dom0:
            await dom0.bring(folder)
            before = await dom0.run(*look)
            ran = await dom0.run(*arguments[:-1], *command, *arguments[-1].split(), limit=LIMIT)
            after = await dom0.run(*look)
            assert before.status == 0
            assert before.text().endswith("\nName\nDomain-0")
            assert after == before
            return ran.status, ran.text()

    return asyncio.run(session())


@pytest.mark.soak
def test_a_guest_of_the_host(
    brought: tuple[Path, list[str]], made: Callable[[str, str, str], Made]
) -> None:
    order = f"boot {Lab.image}/disk.img --on xen --expect ^end=ok --timeout 150"
    status, said = on_the_host(brought, order)
    assert status == 0, said
    log, seen = said.rsplit("\n", 1)
    assert seen.startswith("bootsplice: seen after ")
    image = made("probe-bzimage", "xen-hvm", "disk")
    check(image.recipe, report(log), image.plan)


@pytest.mark.soak
def test_what_never_comes(brought: tuple[Path, list[str]]) -> None:
    """The time is up when xl has only begun to make the guest."""
    order = f"boot {Lab.image}/ram --on xen --expect ^never$ --timeout 1"
    status, said = on_the_host(brought, order)
    assert status == 1, said
    why = f"bootsplice: {Lab.image}/ram: '^never$' was not seen within 1 s"
    assert why in said.splitlines()


@pytest.mark.soak
def test_bootsplice_is_ended(brought: tuple[Path, list[str]]) -> None:
    status, said = on_the_host(brought, "timeout", "11", f"boot {Lab.image}/ram --on xen")
    assert status != 0, said
    assert "Traceback" not in said
