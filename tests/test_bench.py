"""The benchmark: what it times checks what was loaded, and it works from end to end."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import chart, checksums, inputs, loaders, qemu, report, timing, tools
from bench.__main__ import _update
from bench.building import CAT, INTERPRETER
from bench.results import FLOOR, KERNEL, WITH_INITRD, Boot, Results
from bench.timing import Sample
from pybuild import paths
from pybuild.errors import BuildError

DEVICES = {"IDE", "virtio", "AHCI"}
SIZES = inputs.Sizes(kernel=64 << 10, initrd=32 << 10, init_size=128 << 10)


@pytest.mark.boot
@pytest.mark.soak
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--out", str(tmp_path)],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"chart.svg", "results.json", "results.md"}
    assert run.stdout == (tmp_path / "results.md").read_text()
    found = json.loads((tmp_path / "results.json").read_text())
    boots = {(boot["loader"], boot["payload"], boot["device"]) for boot in found["boots"]}
    assert {(FLOOR, KERNEL, device) for device in DEVICES} <= boots
    for payload in (KERNEL, WITH_INITRD):
        assert (loaders.STOCK.name, payload, "") in boots
        for loader in (loaders.DISK, loaders.ISO):
            assert {(loader.name, payload, device) for device in DEVICES} <= boots
    peers = [loader.name for loader in loaders.ALL if loader.is_peer]
    measured = {name for name in peers if (name, WITH_INITRD, "AHCI") in boots}
    assert measured == set(peers) - set(found["left_out"])
    assert {CAT, INTERPRETER, loaders.DISK.name, loaders.ISO.name} <= set(found["builds"])
    assert list(found["checksums"]) == list(checksums.NAMES)
    samples = [boot["seconds"] for boot in found["boots"]]
    samples += [*found["builds"].values(), *found["checksums"].values()]
    assert all(0 < s["minimum"] <= s["median"] <= s["maximum"] for s in samples)


def _boot(made: inputs.Inputs, expected: int) -> float:
    arguments = ["-kernel", str(made.kernel), "-initrd", str(made.initrd)]
    return qemu.seconds(arguments, expected, "test")


def _change(at: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    return change


def _swap(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[512:1024] + content[:512] + content[1024:])


def _repeat(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:512] + content[:-512])


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


@pytest.mark.boot
@pytest.mark.parametrize(
    ("what", "harm", "message"),
    [
        ("kernel", _change(-1), "a block of the kernel is wrong"),
        ("kernel", _change(inputs.BLOCK * 4), "a block of the kernel is wrong"),
        ("initrd", _change(0), "a block of the initrd is wrong"),
        ("initrd", _change(-1), "a block of the initrd is wrong"),
        ("initrd", _swap, "a block of the initrd is wrong"),
        ("initrd", _repeat, "a block of the initrd is wrong"),
        ("initrd", _shorten, "the initrd has the wrong size"),
    ],
)
def test_a_wrong_payload_fails(
    what: str, harm: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    made = inputs.make(SIZES, tmp_path)
    assert _boot(made, inputs.WITH_INITRD) > 0
    harm(getattr(made, what))
    with pytest.raises(BuildError, match=f"test: the guest says: {message}"):
        _boot(made, inputs.WITH_INITRD)


@pytest.mark.boot
def test_an_initrd_that_is_not_loaded_fails(tmp_path: Path) -> None:
    made = inputs.make(SIZES, tmp_path)
    arguments = ["-kernel", str(made.kernel)]
    assert qemu.seconds(arguments, inputs.REACHED, "test") > 0
    with pytest.raises(BuildError, match="kernel right, no initrd; expected: kernel and initrd"):
        qemu.seconds(arguments, inputs.WITH_INITRD, "test")


@pytest.mark.boot
def test_a_qemu_that_does_not_start_is_no_guest_that_answers() -> None:
    with pytest.raises(BuildError, match=r"QEMU's 1(.|\n)*no-such-file"):
        qemu.seconds(["-kernel", "no-such-file"], inputs.REACHED, "test")


@pytest.mark.boot
@pytest.mark.parametrize("candidate", [1, 2, 3, 4])
def test_a_wrong_sum_fails(candidate: int, tmp_path: Path) -> None:
    image = tmp_path / "sum"
    defines = {"CANDIDATE": candidate, "SIZE": 0x1000, "EXPECTED": 0x12345678}
    inputs.assemble(inputs.GUEST / "checksum.asm", defines, image)
    with pytest.raises(BuildError, match="the checksum is wrong"):
        qemu.seconds(["-kernel", str(image)], inputs.REACHED, "test")


def test_each_thing_gets_its_rounds_and_they_take_turns() -> None:
    calls: list[str] = []

    def timer(name: str, seconds: float) -> Callable[[], float]:
        def tell() -> float:
            calls.append(name)
            return seconds

        return tell

    things = {"fast": timer("fast", 0.1), "slow": timer("slow", 3.0), "dear": timer("dear", 9.0)}
    samples = timing.interleaved(things, most=7, seconds=1e9, progress=lambda _: None)
    assert {name: sample.rounds for name, sample in samples.items()} == {
        "fast": 7,
        "slow": 5,
        "dear": 3,
    }
    assert calls[:6] == ["fast", "slow", "dear", "dear", "slow", "fast"]


def _rounds(seconds: float, times: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often each is timed when the clock goes by what they say they took."""
    now = 0.0

    def timer(took: float) -> Callable[[], float]:
        def tell() -> float:
            nonlocal now
            now += took
            return took

        return tell

    monkeypatch.setattr("time.monotonic", lambda: now)
    things = {name: timer(took) for name, took in times.items()}
    samples = timing.interleaved(things, most=15, seconds=seconds, progress=lambda _: None)
    return [samples[name].rounds for name in times]


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [
        (1000, [15, 5, 3]),
        (54, [15, 5, 3]),
        (50, [15, 3, 3]),
        (37, [4, 3, 3]),
        (26, [2, 2, 2]),
        (1, [1] * 3),
    ],
)
def test_when_time_is_short_the_dearest_go_first(
    seconds: float, rounds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds of all take 36 s; two more of the second 6 s; twelve of the first 12 s."""
    assert _rounds(seconds, {"a": 1.0, "b": 3.0, "c": 8.0}, monkeypatch) == rounds


def test_a_sample_is_of_all_times() -> None:
    assert Sample.of([3.0, 1.0, 2.0, 10.0]) == Sample(4, 1.0, 2.5, 10.0)


def test_a_peer_that_is_not_installed_is_named_by_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {"grub-common", "mtools"} <= set(loaders.GRUB.missing())
    assert {"syslinux", "mtools"} <= set(loaders.SYSLINUX.missing())
    assert "xorriso" in loaders.ISOLINUX.missing()
    assert not loaders.DISK.missing()
    assert tools.Need(str(tmp_path / "nothing"), "p").is_there() is False


def _results(ours: float) -> Results:
    def boot(loader: str, device: str, payload: str, seconds: float) -> Boot:
        return Boot(loader, device, payload, "GRUB" in loader, Sample.of([seconds]))

    boots = [boot(FLOOR, device, KERNEL, 0.1) for device in ("IDE", "virtio", "AHCI")]
    for loader, seconds in ((loaders.DISK.name, ours), (loaders.GRUB.name, 12.0)):
        boots += [boot(loader, "IDE", payload, seconds) for payload in (KERNEL, WITH_INITRD)]
    builds = {
        INTERPRETER: Sample.of([0.02]),
        CAT: Sample.of([0.08]),
        loaders.DISK.name: Sample.of([ours]),
        loaders.GRUB.name: Sample.of([0.3]),
    }
    return Results(
        machine={"CPU": "a & b"},
        versions={},
        sizes={"kernel": inputs.FULL.kernel, "initrd": inputs.FULL.initrd, "checksum": 64 << 20},
        boots=boots,
        builds=builds,
        checksums={"none": Sample.of([0.1]), "XXH32": Sample.of([0.15])},
        left_out={loaders.SYSLINUX.name: ["mtools", "syslinux"]},
    )


def test_what_is_reached_and_what_is_not() -> None:
    """0.18 s reaches all of it; 0.65 s none but being faster than GRUB with a kernel alone."""
    good = [(round(aim.found, 2), aim.reached) for aim in _results(0.18).aims()]
    assert good == [(0.08, True), (66.67, True), (66.67, True), (1.8, True), (1.67, True)]
    bad = [(round(aim.found, 2), aim.reached) for aim in _results(0.65).aims()]
    assert bad == [(0.55, False), (18.46, True), (18.46, False), (6.5, False), (0.46, False)]


def test_the_tables() -> None:
    text = report.markdown(_results(0.65))
    for line in (
        "| firmware alone | 0.10 | 0.10 | 0.10 |",
        "| bootsplice disk | 0.65 / 0.65 |  |  |",
        "| GRUB, `linux` | 12.0 / 12.0 |  |  |",
        "| GRUB, `linux` | IDE | kernel + initrd | 1 | 12.000 | 12.000 | 12.000 |",
        "| bootsplice disk | 1 | 0.650 | 0.650 | 0.650 | 6.50 |",
        "| XXH32 | 1 | 0.150 | 0.150 | 0.150 | 0.050 |",
        "Left out: SYSLINUX; its Debian packages: apt-get install mtools syslinux",
    ):
        assert line in text.splitlines()


def test_the_chart_is_the_same_each_time_and_longer_bars_are_slower() -> None:
    text = chart.svg(_results(0.65))
    assert text == chart.svg(_results(0.65))
    drawing = ElementTree.fromstring(text)  # noqa: S314 - our own text
    bars = {
        rect.get("fill"): float(rect.get("width", ""))
        for rect in drawing.iter("{http://www.w3.org/2000/svg}rect")
    }
    assert 0 < bars["#d1600f"] < bars["#5f7183"] < float(drawing.get("width", ""))


def test_a_document_takes_the_tables(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text((paths.ROOT / "docs" / "performance.md").read_text())
    _update(document, "ONE\n")
    once = document.read_text()
    assert "\nONE\n" in once
    _update(document, "TWO\n")
    assert document.read_text() == once.replace("ONE", "TWO")
