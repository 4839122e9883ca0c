"""`bootsplice xl`: what it tells Xen's xl of each kind of image, and what it refuses."""

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command import contents, fill, refusal, run

from pybuild.xen import xl

MIB = 1 << 20
# What every guest has, as an image of 512 MiB of RAM that xl destroys when it ends.
COMMON = {
    "type": "hvm",
    "memory": 512 + 16,
    "vcpus": 1,
    "device_model_version": "qemu-xen",
    "serial": "pty",
    "vga": "stdvga",
    "videoram": 16,
    "vnc": 0,
    "usb": 0,
    "xen_platform_pci": 0,
    "on_poweroff": "destroy",
    "on_reboot": "destroy",
    "on_crash": "destroy",
}
OTHER_FORMATS = {
    "vmdk": b"KDMV",
    "vdi": bytes(0x40) + b"\x7f\x10\xda\xbe",
    "vhdx": b"vhdxfile",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `disk.img`, `cd.iso`, `disk.qcow2` and a `ram` of the kernel `good` in it."""
    folder = tmp_path_factory.mktemp("images")
    fill(folder)
    for out in ("disk.img", "cd.iso", "disk.qcow2"):
        assert run(folder, "build", "good", "-o", out).returncode == 0
    order = ("--initrd", "initrd", "--machine", "xen-hvm", "--target", "ram", "-o", "ram")
    assert run(folder, "build", "good", *order).returncode == 0
    for name, head in OTHER_FORMATS.items():
        (folder / f"disk.{name}").write_bytes(head.ljust(0x1000, b"\0"))
    return folder


def settings(text: str) -> dict[str, Any]:
    """A configuration's settings: what xl takes of its syntax reads as Python does."""
    found: dict[str, Any] = {}
    for line in ast.parse(text).body:
        assert isinstance(line, ast.Assign)
        (key,) = line.targets
        assert isinstance(key, ast.Name)
        assert key.id not in found
        found[key.id] = ast.literal_eval(line.value)
    return found


def printed(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """What `bootsplice xl` prints in a folder."""
    done = run(folder, "xl", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return settings(done.stdout)


def hda(path: Path, form: str = "raw") -> str:
    return f"vdev=hda,format={form},access=rw,backendtype=qdisk,target={path}"


def hdc(path: Path) -> str:
    return f"vdev=hdc,devtype=cdrom,format=raw,access=ro,backendtype=qdisk,target={path}"


class Drives(NamedTuple):
    """What a file is given as, and the disk that becomes of it."""

    arguments: tuple[str, ...]
    disk: str
    boot: str
    hdtype: str | None = None


@pytest.mark.parametrize(
    "given",
    [
        Drives(("disk.img",), "hda", "c"),
        Drives(("disk.img", "--drive", "ide"), "hda", "c"),
        Drives(("disk.img", "--drive", "ahci"), "hda", "c", "ahci"),
        Drives(("disk.img", "--drive", "cdrom"), "hdc", "d"),
        Drives(("cd.iso",), "hdc", "d"),
        Drives(("cd.iso", "--drive", "ide"), "hda", "c"),
    ],
    ids=lambda given: "-".join(given.arguments).replace("---drive-", "-"),
)
def test_a_file_is_a_drive(images: Path, given: Drives) -> None:
    path = images / given.arguments[0]
    disk = hda(path) if given.disk == "hda" else hdc(path)
    wanted = {**COMMON, "name": path.stem, "disk": [disk], "boot": given.boot}
    if given.hdtype:
        wanted["hdtype"] = given.hdtype
    assert printed(images, *given.arguments) == wanted


def test_a_qcow2_image(images: Path) -> None:
    assert printed(images, "disk.qcow2")["disk"] == [hda(images / "disk.qcow2", "qcow2")]


def test_a_folder_is_a_disk_and_blobs_in_ram(images: Path) -> None:
    ram = images / "ram"
    loads = {
        load["part"]: load["address"]
        for load in json.loads((ram / "plan.json").read_text())["loads"]
    }
    assert loads.keys() == {"setup", "cmdline", "kernel", "initrd"}
    devices = [
        f"loader,file={ram}/{part}.bin,addr={address:#x},force-raw=on"
        for part, address in loads.items()
    ]
    assert printed(images, "ram") == {
        **COMMON,
        "name": "ram",
        "disk": [hda(ram / "boot.img")],
        "boot": "c",
        "device_model_args_hvm": [word for device in devices for word in ("-device", device)],
    }


def test_a_folder_decides_on_the_memory(images: Path, tmp_path: Path) -> None:
    ram = shutil.copytree(images / "ram", tmp_path / "ram")
    planned = json.loads((ram / "plan.json").read_text())
    assert planned["ram"] == 512 * MIB
    (ram / "plan.json").write_text(json.dumps({**planned, "ram": 64 * MIB + 1}))
    assert printed(tmp_path, "ram")["memory"] == 65 + 16  # none of it is missing
    assert printed(tmp_path, "ram", "--memory", "65")["memory"] == 65 + 16
    assert printed(tmp_path, "ram", "--memory", "100")["memory"] == 100 + 16


def test_a_kernel_is_booted_by_the_device_model(images: Path) -> None:
    assert printed(images, "good") == {**COMMON, "name": "good", "kernel": str(images / "good")}
    line = "console=ttyS0 quiet init=\"a b\" x='y'"
    assert printed(images, "good", "--initrd", "initrd", "--cmdline", line) == {
        **COMMON,
        "name": "good",
        "kernel": str(images / "good"),
        "ramdisk": str(images / "initrd"),
        "extra": line,
    }


@pytest.mark.parametrize("image", ["disk.img", "cd.iso", "ram", "good"])
def test_what_is_asked_for(images: Path, image: str) -> None:
    options = ("--memory", "4000", "--vcpus", "3", "--name", "plain")
    asked = printed(images, image, *options)
    assert (asked["memory"], asked["vcpus"], asked["name"]) == (4000 + 16, 3, "plain")


# Names that QEMU's options, xl's disks or xl's strings could take for something else.
@pytest.mark.parametrize(
    "name", ["a,b", "two words", "key=value", "a:b", "it's", 'so "called"', "\\n", """'"'""", "ü"]
)
def test_odd_names(images: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for image in ("disk.img", "good"):
        shutil.copy(images / image, folder / image)
    shutil.copytree(images / "ram", folder / "ram")
    asked = printed(tmp_path, f"{name}/disk.img", "--name", name)
    assert (asked["disk"], asked["name"]) == ([hda(folder / "disk.img")], name)
    assert printed(tmp_path, f"{name}/good")["kernel"] == str(folder / "good")
    asked = printed(tmp_path, f"{name}/ram")
    setup = str(folder / "ram" / "setup.bin").replace(",", ",,")  # as QEMU wants a comma
    assert asked["disk"] == [hda(folder / "ram" / "boot.img")]
    assert asked["device_model_args_hvm"][1] == f"loader,file={setup},addr=0x90000,force-raw=on"


def test_how_a_guest_of_boot_differs() -> None:
    domain = xl.Domain(64, 2, device_model=("-vga", "none"))
    text = xl.text(domain, name="x", serial="file:/dev/null", on_end="preserve")
    assert settings(text) == {
        **COMMON,
        "name": "x",
        "memory": 64 + 16,
        "vcpus": 2,
        "device_model_args_hvm": ["-vga", "none"],
        "serial": "file:/dev/null",
        "on_poweroff": "preserve",
        "on_reboot": "preserve",
        "on_crash": "preserve",
    }


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("none", "none: no image to boot: No such file or directory"),
        ("initrd", "initrd: no image to boot: a text file; expected a disk image .*"),
        ("folder", "folder: no image that `build --target ram` wrote: plan.json: No such .*"),
        ("loop", "loop: no image to boot: .*"),
        ("fifo", "fifo: no image to boot: expected .*"),
        ("good --initrd none", "none: cannot be read as an initrd: .*"),
        ("good --initrd folder", "folder: cannot be read as an initrd: .*"),
        ("disk.vmdk", "disk.vmdk: is vmdk, which xl does not take; expected raw or qcow2: .*"),
        ("disk.vdi", "disk.vdi: is vdi, which xl does not take; .*"),
        ("disk.vhdx", "disk.vhdx: is vhdx, which xl does not take; .*"),
        ("disk.img --drive usb", "disk.img: --drive usb: not on Xen; .* ide, ahci, cdrom"),
        ("disk.img --drive virtio", "disk.img: --drive virtio: not on Xen; .*"),
        ("disk.img --drive floppy", "disk.img: --drive floppy: not on Xen; .*"),
        ("disk.img --drive tape", ".*--drive.*tape.*"),
        ("good --drive ide", "good: is a kernel; --drive ide is for a disk or CD image"),
        ("ram --drive ide", "ram: is a folder; --drive ide is for a disk or CD image"),
        ("ram --memory 511", "ram: was built for 512 MiB of RAM, --memory is 511; give as much.*"),
        ("disk.img --initrd initrd", "--initrd initrd: goes with a kernel, and disk.img is none"),
        ("ram --cmdline quiet", "--cmdline quiet: goes with a kernel, and ram is none"),
        ("good --cmdline a\nb", r"'a\\nb': has a line break in it; xl's configuration cannot .*"),
        ("good --name a\nb", r"'a\\nb': has a line break in it; .*"),
        ("good --memory 0", ".*--memory.*0.*"),
        ("good --vcpus 0", ".*--vcpus.*0.*"),
    ],
)
def test_what_is_refused(images: Path, arguments: str, why: str) -> None:
    before = contents(images)
    assert re.fullmatch(why, refusal(images, "xl", *arguments.split(" ")))
    assert contents(images) == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"loads": []}', '{"loads": [{"part": "setup"}], "ram": 1}', "\xff"]
)
def test_a_damaged_plan(images: Path, tmp_path: Path, text: str) -> None:
    ram = shutil.copytree(images / "ram", tmp_path / "ram")
    (ram / "plan.json").write_bytes(text.encode("latin-1"))
    why = "ram: no image that `build --target ram` wrote: plan.json: is not as bootsplice wrote it"
    assert refusal(tmp_path, "xl", "ram") == why
    assert refusal(tmp_path, "boot", "ram", "--on", "xen") == why


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("disk.img", "--memory", "5000"), "--memory 5000: the Xen lab has room for .* 4608 MiB"),
        (("disk.vmdk",), "disk.vmdk: is vmdk, which xl does not take; .*"),
        (("disk.img", "--drive", "usb"), "disk.img: --drive usb: not on Xen; .*"),
        (("ram", "--memory", "511"), "ram: was built for 512 MiB of RAM, .*"),
        (("good",), "good: no image to boot: a Linux kernel, .* `bootsplice build`"),
    ],
)
def test_what_does_not_boot_on_xen(images: Path, arguments: tuple[str, ...], why: str) -> None:
    """It is said at once: there is no QEMU, no xl and no apt on this PATH."""
    nothing = str(images / "folder")
    assert re.fullmatch(why, refusal(images, "boot", *arguments, "--on", "xen", path=nothing))
