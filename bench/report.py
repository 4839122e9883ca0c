"""The results as Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import Final

from bench import building, qemu
from bench.results import FLOOR, KERNEL, NO_DEVICE, WITH_INITRD, Results, size_text
from bench.timing import Sample


def markdown(results: Results) -> str:
    """Everything."""
    parts = [
        _boots(results),
        _aims(results),
        _left_out(results),
        _spread(results),
        _builds(results),
        _checksums(results),
        _made_with(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _boots(results: Results) -> str:
    kernel, initrd = (size_text(results.sizes[name]) for name in ("kernel", "initrd"))
    rows = []
    for loader in dict.fromkeys(boot.loader for boot in results.boots):
        cells = [_cell(results, loader, device) for device in qemu.DEVICES]
        if cells[0] == "":  # what needs no device stands in the first column
            cells[0] = _cell(results, loader, NO_DEVICE)
        rows.append([loader, *cells])
    return (
        f"Power-on to kernel entry, seconds (medians): a kernel of {kernel} / the same with an "
        f"initrd of {initrd}.\n\n" + _table(["", *qemu.DEVICES], rows)
    )


def _cell(results: Results, loader: str, device: str) -> str:
    found = [results.median(loader, device, payload) for payload in (KERNEL, WITH_INITRD)]
    if loader == FLOOR:
        return "" if found[0] is None else _seconds(found[0])
    if found == [None, None]:
        return ""
    return " / ".join("-" if seconds is None else _seconds(seconds) for seconds in found)


def _aims(results: Results) -> str:
    rows = [
        [
            f"{aim.found:.2f} {aim.what}",
            f"{aim.bound} {aim.limit:g}",
            "yes" if aim.reached else "**no**",
        ]
        for aim in results.aims()
    ]
    if not rows:
        return ""
    return "What bootsplice is meant to reach.\n\n" + _table(["found", "meant", "reached"], rows)


def _left_out(results: Results) -> str:
    lines = [
        f"Left out: {name}; its Debian packages: apt-get install {' '.join(packages)}"
        for name, packages in results.left_out.items()
    ]
    return "\n\n".join(lines)


def _spread(results: Results) -> str:
    rows = (
        [
            boot.loader,
            boot.device,
            "" if boot.loader == FLOOR else boot.payload,
            *_sample(boot.seconds),
        ]
        for boot in results.boots
    )
    head = ["", "device", "payload", *_SAMPLE]
    return "The same in full, seconds. What takes long got fewer rounds.\n\n" + _table(head, rows)


def _builds(results: Results) -> str:
    plain = [results.builds[name].median for name in (building.CAT, building.INTERPRETER)]
    rows = (
        [name, *_sample(sample), f"{sample.median / sum(plain):.2f}"]
        for name, sample in results.builds.items()
    )
    size = results.sizes["kernel"] + results.sizes["initrd"]
    return (
        f"Building an image of the kernel and the initrd ({size_text(size)}), seconds; the last "
        "column is the median over that of `cat` and the interpreter's start together.\n\n"
        + _table(["", *_SAMPLE, "ratio"], rows)
    )


def _checksums(results: Results) -> str:
    base = next(iter(results.checksums.values())).median
    rows = (
        [name, *_sample(sample), f"{sample.median - base:.3f}"]
        for name, sample in results.checksums.items()
    )
    return (
        f"Candidates for the loader's checksum, over {size_text(results.sizes['checksum'])} of the "
        "guest's memory, seconds; the last column is the median less the first row's.\n\n"
        + _table(["", *_SAMPLE, "its own"], rows)
    )


def _made_with(results: Results) -> str:
    rows = [*results.machine.items(), *results.versions.items()]
    return "Measured on and with:\n\n" + _table(["", ""], rows)


_SAMPLE: Final = ["rounds", "min", "median", "max"]


def _sample(sample: Sample) -> list[str]:
    times = (sample.minimum, sample.median, sample.maximum)
    return [str(sample.rounds), *(f"{seconds:.3f}" for seconds in times)]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
