"""`python -m bench`: measures, prints Markdown, writes results.json, results.md and chart.svg.

Everything takes turns: round after round each loader boots once, so that what else the machine does
hits all of them alike. Images are built and read before the clock starts.
"""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import click

from bench import building, chart, checksums, environment, inputs, loaders, qemu, report, timing
from bench.inputs import Inputs
from bench.loaders import Loader, Payload
from bench.results import FLOOR, KERNEL, NO_DEVICE, WITH_INITRD, Boot, Results
from pybuild import paths
from pybuild.errors import reported
from pybuild.files import write_file

_DIRECTORY: Final = paths.BUILD / "bench"
_BEGIN: Final = "<!-- `make bench` writes what follows, up to the next such line -->\n"
_END: Final = "<!-- up to here -->\n"
_ROUNDS: Final = 15
_BUILD_ROUNDS: Final = 7
# Seconds, so that all of it stays under ten minutes on two cores.
_BOOT_SECONDS: Final = 420.0
_BUILD_SECONDS: Final = 60.0
_CHECKSUM_SECONDS: Final = 40.0

# Loader's name, device, payload.
_Case = tuple[str, str, str]


@click.command()
@click.option("--quick", is_flag=True, help="One round of a small set, to see that it works.")
@click.option("--only", metavar="REGEX", default="", help="Only loaders whose name has this.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the results.")
@click.option(
    "--update",
    metavar="FILE.md",
    type=click.Path(path_type=Path, exists=True),
    help="Put the tables into this document, and the chart beside it.",
)
def main(*, quick: bool, only: str, out: Path | None, update: Path | None) -> None:
    """Measure how fast bootsplice and its peers are."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no image is left behind
    # As for anyone who runs bootsplice a second time: what was compiled once is kept.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    directory = out or (_DIRECTORY / "quick" if quick else _DIRECTORY)
    with reported(_fail):
        directory.mkdir(parents=True, exist_ok=True)
        results = measure(directory, re.compile(only), quick=quick)
        text, drawing = report.markdown(results), chart.svg(results)
        write_file(directory / "results.json", [results.to_json().encode()])
        write_file(directory / "results.md", [text.encode()])
        write_file(directory / "chart.svg", [drawing.encode()])
        if update is not None:
            _update(update, text)
            write_file(update.with_suffix(".svg"), [drawing.encode()])
    print(text, end="")


def measure(directory: Path, only: re.Pattern[str], *, quick: bool) -> Results:
    """Builds everything in a temporary folder in `directory`, and times it."""
    machine = environment.machine()  # first: what follows is a load itself
    left_out = {
        loader.name: missing
        for loader in dict.fromkeys((*loaders.ALL, *building.LOADERS))
        if only.search(loader.name) and (missing := loader.missing())
    }

    def wanted(loader: Loader) -> bool:
        return bool(only.search(loader.name)) and loader.name not in left_out

    most, build_rounds = (1, 1) if quick else (_ROUNDS, _BUILD_ROUNDS)
    with tempfile.TemporaryDirectory(prefix="images.", dir=directory) as name:
        work = Path(name)
        sizes = inputs.QUICK if quick else inputs.FULL
        made = inputs.make(sizes, work / "inputs")
        cases = _cases(made, work, wanted, quick=quick)
        boots = timing.interleaved(cases, most=most, seconds=_BOOT_SECONDS, progress=_progress)
        payload = Payload(made.kernel, made.initrd)
        builds = timing.interleaved(
            building.timers(payload, work, wanted),
            most=build_rounds,
            seconds=_BUILD_SECONDS,
            progress=_progress,
        )
        sums = timing.interleaved(
            checksums.timers(work),
            most=build_rounds,
            seconds=_CHECKSUM_SECONDS,
            progress=_progress,
        )
    peers = {loader.name for loader in loaders.ALL if loader.is_peer}
    return Results(
        machine=machine,
        versions=environment.versions(),
        sizes={"kernel": sizes.kernel, "initrd": sizes.initrd, "checksum": checksums.SIZE},
        boots=[Boot(*case, case[0] in peers, sample) for case, sample in boots.items()],
        builds=builds,
        checksums=sums,
        left_out=left_out,
    )


def _cases(
    made: Inputs, work: Path, wanted: Callable[[Loader], bool], *, quick: bool
) -> dict[_Case, Callable[[], float]]:
    """Builds the images; gives what boots each once and tells the seconds."""
    cases: dict[_Case, Callable[[], float]] = {}
    for device in qemu.DEVICES:
        arguments = qemu.drive(made.floor, "disk", device)
        cases[FLOOR, device, KERNEL] = _boot(arguments, inputs.REACHED, (FLOOR, device, KERNEL))
    payloads = {
        KERNEL: (Payload(made.kernel, None), inputs.REACHED),
        WITH_INITRD: (Payload(made.kernel, made.initrd), inputs.WITH_INITRD),
    }
    for number, loader in enumerate(filter(wanted, loaders.ALL)):
        for name, (payload, code) in payloads.items():
            # One peer's way to boot is enough to see that it works.
            if quick and loader.is_peer and name == KERNEL:
                continue
            image = work / f"{number}-{len(payload.files)}{loader.suffix}"
            _progress(f"building {loader.name}, {name}")
            loader.build(payload, work, image)
            for device in (NO_DEVICE,) if loader.medium == "none" else qemu.DEVICES:
                if quick and loader.is_peer and device != "AHCI":
                    continue
                case = (loader.name, device, name)
                arguments = (
                    _directly(payload)
                    if loader.medium == "none"
                    else qemu.drive(image, loader.medium, device)
                )
                cases[case] = _boot(arguments, code, case)
    os.sync()  # or the disk is still being written to while the first round runs
    return cases


def _directly(payload: Payload) -> list[str]:
    initrd = [] if payload.initrd is None else ["-initrd", str(payload.initrd)]
    return ["-kernel", str(payload.kernel), "-append", loaders.CMDLINE, *initrd]


def _boot(arguments: list[str], code: int, case: _Case) -> Callable[[], float]:
    return lambda: qemu.seconds(arguments, code, ", ".join(filter(None, case)))


def _update(document: Path, tables: str) -> None:
    """Replaces what stands between the two marks in a document."""
    before, begin, rest = document.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        _fail(f"{document}: has no place for the results: {_BEGIN.strip()} ... {_END.strip()}", 2)
    write_file(document, [f"{before}{begin}\n{tables}\n{end}{after}".encode()])


def _progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _fail(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
