"""Fixtures that more than one file of tests uses."""

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from booting import Made, make, named
from command import fill
from hypothesis import Phase, settings
from intodisk import LAYOUTS, Payload, disk_of, small_payload
from missing import missing

from pybuild import apt, assembler, images, paths
from pybuild.assembler import Tree
from pybuild.material import Workshop
from pybuild.xen import dom0, lab

pytest.register_assert_rewrite("probes")
# How long an example takes says nothing: the machine may be busy.
settings.register_profile("bootsplice", deadline=None)
settings.register_profile("editing", deadline=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile("bootsplice")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--source",
        action="append",
        default=[],
        metavar="ARCH/NAME",
        help="run only the contract tests of this source in asm/; may be given repeatedly",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Tests send it to what they start, also in a script's background, where it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # With --source somebody waits for the first counterexample, and not for the smallest.
    if config.getoption("source"):
        settings.load_profile("editing")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --source, what has no contract tests need not be imported."""
    if config.getoption("source") and collection_path.suffix == ".py":
        return b"pytest.mark.contract" not in collection_path.read_bytes() or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = set(config.getoption("source"))
    if chosen:
        config.hook.pytest_deselected(items=[item for item in items if not chosen & about(item)])
        items[:] = [item for item in items if chosen & about(item)]


def about(item: pytest.Item) -> set[str]:
    """The sources that a contract test is about: its marks name them, or its parameter `name`."""
    names = {str(name) for mark in item.iter_markers("contract") for name in mark.args}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        names.add(str(item.callspec.params.get("name")))
    return names


@pytest.fixture(scope="session", autouse=True)
def _flat_binaries() -> None:
    """The project's own flat binaries are up to date."""
    assembler.build(Tree(paths.ROOT, paths.BUILD))


@pytest.fixture(scope="session")
def shop() -> Workshop:
    """Where the kernels and initrds are made."""
    return Workshop(paths.ROOT, paths.BUILD, paths.cache_directory(), print)


@pytest.fixture(scope="session")
def built(shop: Workshop) -> Callable[[str], Path]:
    """Builds the images of kernels/; gives the folder of one by its name, `<recipe>.<machine>`.

    An image that needs the Debian archive when that cannot be reached is a skip, but a failure
    in CI.
    """
    outcome = images.build_all(shop)

    def image(name: str) -> Path:
        why = outcome.left_out.get(name.rpartition(".")[0])
        if why:
            missing(why)
        return paths.IMAGES / name

    return image


@pytest.fixture(scope="session")
def made(built: Callable[[str], Path], shop: Workshop) -> Iterator[Callable[[str, str, str], Made]]:
    """Makes an image of a recipe's kernel for a machine profile: a `disk`, `floppy` or `iso`.

    Each is made once; a kernel that cannot be fetched is as with `built`.
    """
    known: dict[tuple[str, str, str], Made] = {}
    with tempfile.TemporaryDirectory(prefix="bootsplice-tests-") as folder:

        def image(name: str, profile: str, kind: str) -> Made:
            key = (name, profile, kind)
            if key not in known:
                built(f"{name}.{profile}")
                suffix = "iso" if kind == "iso" else "img"
                out = Path(folder) / f"{name}.{profile}.{kind}.{suffix}"
                options = {"floppy": True} if kind == "floppy" else {}
                known[key] = make(named(name), profile, out, options, shop=shop)
            return known[key]

        yield image


@pytest.fixture(scope="session")
def xen() -> None:
    """A Xen is there; one that cannot be fetched is as with `built`."""
    if dom0.host_is_one():
        return
    try:
        lab.prepare(paths.cache_directory(), progress=print)
    except apt.Unavailable as error:
        missing(str(error))


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """What goes into the disks of `blank`."""
    return small_payload(tmp_path_factory.mktemp("payload"))


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A disk of each of intodisk.LAYOUTS."""
    folder = tmp_path_factory.mktemp("blank")
    return {name: disk_of(name, folder / f"{name}.img") for name in LAYOUTS}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a test can have a disk of its own."""
    return tmp_path / "disk.img"


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A folder with what is wrong with a kernel or an initrd, and a kernel and an initrd."""
    fill(tmp_path)
    return tmp_path
