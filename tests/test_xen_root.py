"""The Xen lab's files, from a Debian archive of our own."""

import gzip
import json
import lzma
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from debrepo import publish, served
from elffile import LD_SO, module, shared_object
from missing import missing

from pybuild.apt import Unavailable
from pybuild.errors import BuildError
from pybuild.xen import elf, libraries, root
from pybuild.xen.packages import File, Package, Packages

LIBRARIES = "usr/lib/x86_64-linux-gnu"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An archive of our own, the only one that apt knows; without lists."""
    if not shutil.which("apt-get"):
        missing("apt-get: not found on PATH")
    monkeypatch.setattr("os.geteuid", lambda: 0)  # no sudo: apt keeps all it has in `tmp_path`
    with served(tmp_path) as (archive, configuration), configuration.open("a") as stream:
        stream.write('Dir::State::Status "/dev/null";\n')  # nothing is installed
        stream.flush()
        monkeypatch.setenv("APT_CONFIG", str(configuration))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield archive


def unpacked(tmp_path: Path) -> Packages:
    room = tmp_path / "room"
    room.mkdir()
    return Packages(room, print)


def one_line(error: pytest.ExceptionInfo[BuildError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("soname", "package"),
    [
        ("libc.so.6", "libc6"),
        ("libgcc_s.so.1", "libgcc-s1"),
        ("libbz2.so.1.0", "libbz2-1.0"),
        ("libpcre2-8.so.0", "libpcre2-8-0"),
        ("libglib-2.0.so.0", "libglib2.0-0"),
        ("libglib-2.0.so.0", "libglib2.0-0t64"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libSDL2-2.0.so.0", "libsdl2-2.0-0"),
        ("libbfd-2.40.so", "libbfd-2.40"),
    ],
)
def test_package_named_after_its_library(soname: str, package: str) -> None:
    assert libraries.is_named_after(package, soname)
    assert not libraries.is_named_after(f"{package}-dev", soname)
    assert not libraries.is_named_after(package, f"{soname}1")


@pytest.mark.parametrize(("soname", "package"), [("libz.so.1", "zlib1g"), ("libz.so.1", "libz")])
def test_package_of_another_name(soname: str, package: str) -> None:
    assert not libraries.is_named_after(package, soname)


def test_finds_libraries_by_name_then_by_what_all_depend_on(
    repository: Path, tmp_path: Path
) -> None:
    program = shared_object(tmp_path, "program", ["libone.so.1", "libz.so.1"], LD_SO)
    one = shared_object(tmp_path, "libone.so.1", ["libz.so.1", "libtwo-2.so.0"])
    publish(
        repository,
        "program",
        "1",
        {"usr/bin/program": program},
        depends="libone1 (>= 1) | other, data, nowhere-else, zlib1g",
    )
    publish(repository, "libone1", "1", {f"{LIBRARIES}/libone.so.1": one}, "libtwo2-0, zlib1g")
    publish(
        repository,
        "libtwo2-0",
        "1",
        {"lib/libtwo-2.so.0": shared_object(tmp_path, "libtwo-2.so.0")},
    )
    tree = repository.parent / "zlib1g-1"  # debrepo makes the package of this, too
    (tree / "lib64").mkdir(parents=True)
    (tree / "lib64/ld-linux-x86-64.so.2").symlink_to("/lib/x86_64-linux-gnu/ld.so")
    z = shared_object(tmp_path, "libz.so.1")
    publish(repository, "zlib1g", "1", {"lib/x86_64-linux-gnu/ld.so": z, "lib/libz.so.1": z})
    publish(repository, "data", "1", {})

    packages = unpacked(tmp_path)
    packages.get(["program"])
    found = libraries.resolve([packages.unpacked["program"].file("usr/bin/program")], packages)
    assert sorted((file.package.name, file.name) for file in found) == [
        ("libone1", f"{LIBRARIES}/libone.so.1"),
        ("libtwo2-0", "usr/lib/libtwo-2.so.0"),
        ("zlib1g", "usr/lib/libz.so.1"),
        ("zlib1g", "usr/lib64/ld-linux-x86-64.so.2"),
    ]
    assert list(packages.unpacked) == ["program", "libone1", "libtwo2-0", "data", "zlib1g"]
    loader = packages.unpacked["zlib1g"].file("*/ld-linux*")
    assert [file.name for file in loader.chain()] == [loader.name, f"{LIBRARIES}/ld.so"]


def test_library_that_no_package_has(repository: Path, tmp_path: Path) -> None:
    program = shared_object(tmp_path, "program", ["libgone.so.3"])
    publish(repository, "program", "1", {"usr/bin/program": program}, depends="libgone3, data")
    publish(repository, "libgone3", "1", {"usr/share/libgone.so.3": b"where ld.so doesn't look"})
    publish(repository, "data", "1", {})
    packages = unpacked(tmp_path)
    packages.get(["program"])
    with pytest.raises(Unavailable) as error:
        libraries.resolve([packages.unpacked["program"].file("*/program")], packages)
    assert one_line(error).startswith(
        "libgone.so.3: in none of the packages that program depends on, and its usr/bin/program "
    )
    assert sorted(packages.unpacked) == ["data", "libgone3", "program"]


@pytest.mark.parametrize("target", ["nothing", "../../outside", "ring", "/etc/passwd"])
def test_link_to_nothing_in_its_package(tmp_path: Path, target: str) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ring").symlink_to(target)
    package = Package("p", "1", (), tmp_path, {"usr/lib/ring": Path("lib/ring")})
    with pytest.raises(BuildError, match=f"p 1: usr/lib/ring is a link to {target}, which"):
        File(package, "usr/lib/ring").chain()


def test_packages_that_came_with_an_update_are_known(repository: Path, tmp_path: Path) -> None:
    publish(repository, "kernel", "1", {}, depends="kernel-1")
    publish(repository, "kernel-1", "1", {})
    packages = unpacked(tmp_path)
    publish(repository, "kernel", "2", {}, depends="kernel-2")
    publish(repository, "kernel-2", "1", {})
    packages.get(["kernel"])  # version 1 has gone: apt-get update
    packages.get(packages.unpacked["kernel"].depends)
    assert sorted(packages.unpacked) == ["kernel", "kernel-2"]


# A Xen lab in small: the programs need one library, the kernel has one module that needs another.
PROGRAMS = {
    "xen-utils-9.10": [
        f"usr/lib/xen-9.10/bin/{name}"
        for name in ("xl", "xenstored", "xenconsoled", "xen-init-dom0")
    ],
    "xenstore-utils": ["usr/bin/xenstore-read"],
    "qemu-system-xen": ["usr/libexec/xen-qemu-system-i386"],
    "busybox-static": ["bin/busybox"],
}
DATA = {
    "xen-utils-9.10": ["usr/lib/xen-9.10/boot/hvmloader"],
    "seabios": ["usr/share/seabios/bios-256k.bin", "usr/share/seabios/vgabios-stdvga.bin"],
    "qemu-system-data": [
        f"usr/share/qemu/{name}"
        for name in ("keymaps/en-us", "kvmvapic.bin", "linuxboot.bin", "linuxboot_dma.bin")
    ],
}
BUILT_IN = "xen_front_pgdir_shbuf xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xenfs virtio_pci"


@pytest.fixture
def distribution(repository: Path, tmp_path: Path) -> Path:
    """The archive with all that the lab needs, and more."""
    files: dict[str, dict[str, bytes]] = {}
    program = shared_object(tmp_path, "program", ["liba.so.1"], LD_SO)
    for package, names in PROGRAMS.items():
        files.setdefault(package, {}).update(dict.fromkeys(names, program))
    for package, names in DATA.items():
        files.setdefault(package, {}).update({name: name.encode() for name in [*names, "etc/more"]})
    for version in ("9.9", "9.10"):
        image = {f"boot/xen-{version}-amd64.gz": gzip.compress(version.encode())}
        publish(repository, f"xen-hypervisor-{version}-amd64", version, image)
    for package, contents in files.items():
        for name in contents:  # programs can be run
            path = repository.parent / f"{package}-1" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o755 if name in PROGRAMS.get(package, ()) else 0o644)
        publish(repository, package, "1", contents, depends="liba1")
    library = repository.parent / "liba1-1" / LIBRARIES
    library.mkdir(parents=True)
    (library / "liba.so.1").symlink_to("liba.so.1.2")
    content = shared_object(tmp_path, "liba.so.1")
    publish(repository, "liba1", "1", {f"{LIBRARIES}/liba.so.1.2": content, LD_SO[1:]: content})
    folder = "lib/modules/6.1/kernel/drivers"
    publish(repository, "linux-image-amd64", "6", {}, depends="linux-image-6.1-amd64 (= 6)")
    publish(
        repository,
        "linux-image-6.1-amd64",
        "6",
        {
            "boot/vmlinuz-6.1-amd64": b"kernel",
            "lib/modules/6.1/modules.builtin": "".join(
                f"kernel/{name}.ko\n" for name in BUILT_IN.split()
            ).encode(),
            f"{folder}/sd_mod.ko": module(tmp_path, "scsi-mod"),
            f"{folder}/scsi-mod.ko.xz": lzma.compress(module(tmp_path, "xenfs")),
            f"{folder}/virtio_scsi.ko": module(tmp_path, "scsi-mod,virtio_pci"),
            f"{folder}/virtio_console.ko": module(tmp_path, ""),
            f"{folder}/other.ko": b"",
        },
    )
    return repository


@pytest.mark.usefixtures("distribution")
def test_makes_the_folder(tmp_path: Path) -> None:
    lab = tmp_path / "cache" / "lab"
    lines: list[str] = []
    root.make(lab, progress=lines.append)
    assert [path.name for path in lab.parent.iterdir()] == ["lab"]
    assert (lab / "boot/xen").read_bytes() == b"9.10"
    assert (lab / "boot/vmlinuz").read_bytes() == b"kernel"
    modules = sorted((lab / "modules").iterdir())
    assert [path.name for path in modules] == [
        "00-scsi_mod.ko",
        "01-virtio_scsi.ko",
        "02-virtio_console.ko",
        "03-sd_mod.ko",
    ]
    assert elf.module_depends(modules[0].read_bytes()) == ("xenfs",)
    found = {str(path.relative_to(lab / "root")) for path in (lab / "root").rglob("*")}
    expected = {name for names in [*PROGRAMS.values(), *DATA.values()] for name in names}
    expected = {*(name.replace("bin/busybox", "usr/bin/busybox") for name in expected)}
    expected |= {f"usr{LD_SO}", f"{LIBRARIES}/liba.so.1", f"{LIBRARIES}/liba.so.1.2"}
    expected |= {"bin", "lib", "lib64", "sbin", "etc/xen/xl.conf"}
    files = {name for name in found if not (lab / "root" / name).is_dir()}
    assert files | {"bin", "lib", "lib64", "sbin"} == expected
    for name in ("bin/busybox", "usr/lib/xen-9.10/bin/xl", "usr/libexec/xen-qemu-system-i386"):
        assert os.access(lab / "root" / name, os.X_OK)
    assert (lab / "root" / LIBRARIES / "liba.so.1").readlink() == Path("liba.so.1.2")
    assert (lab / "root" / LD_SO[1:]).resolve().is_relative_to(lab)
    versions = json.loads((lab / "packages.json").read_text())
    assert list(versions) == sorted(
        {*PROGRAMS, *DATA, "liba1", "linux-image-6.1-amd64", "xen-hypervisor-9.10-amd64"}
    )
    assert versions["xen-hypervisor-9.10-amd64"] == "9.10"
    assert [line.split()[0] for line in lines] == ["apt's", *["fetching"] * 3, "putting"]


@pytest.mark.usefixtures("distribution")
@pytest.mark.parametrize("step", ["fetching", "putting"])
def test_interrupted_leaves_nothing(tmp_path: Path, step: str) -> None:
    def interrupt(line: str) -> None:
        if line.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        root.make(tmp_path / "cache" / "lab", progress=interrupt)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("package", "complaint"),
    [
        ("xen-hypervisor-", "xen-hypervisor: apt knows no such package; "),
        ("seabios", "seabios: apt knows no such package; "),
        ("linux-image-amd64", "linux-image-amd64: apt knows no such package; "),
    ],
)
def test_distribution_without_a_package(
    distribution: Path, tmp_path: Path, package: str, complaint: str
) -> None:
    index = distribution / "Packages"
    stanzas = index.read_text().split("\n\n")
    index.write_text("\n\n".join(s for s in stanzas if not s.startswith(f"Package: {package}")))
    with pytest.raises(Unavailable) as error:
        root.make(tmp_path / "cache" / "lab", progress=print)
    assert one_line(error) == f"{complaint}the Xen lab needs Debian 12 or later (amd64)"
    assert not list((tmp_path / "cache").iterdir())


def test_kernel_without_a_module(distribution: Path, tmp_path: Path) -> None:
    shutil.rmtree(distribution.parent / "linux-image-6.1-amd64-6")
    content = {"lib/modules/6.1/modules.builtin": b"", "boot/vmlinuz-6.1": b""}
    publish(distribution, "linux-image-6.1-amd64", "6", content)
    with pytest.raises(Unavailable, match=r"amd64: has no module xen_front_pgdir_shbuf; the Xen"):
        root.make(tmp_path / "cache" / "lab", progress=print)


def test_package_without_a_file(distribution: Path, tmp_path: Path) -> None:
    publish(distribution, "seabios", "2", {"usr/share/seabios/bios.bin": b""})
    with pytest.raises(Unavailable) as error:
        root.make(tmp_path / "cache" / "lab", progress=print)
    assert "seabios 2: expected one file usr/share/seabios/bios-256k.bin, found 0" in one_line(
        error
    )


def test_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="apt-get: not found on PATH; the Xen lab needs Debian"):
        root.make(tmp_path / "cache" / "lab", progress=print)
    assert not list((tmp_path / "cache").iterdir())
