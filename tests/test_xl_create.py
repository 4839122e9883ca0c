"""What the real `xl` of the lab's dom0 makes of what `bootsplice xl` prints."""

import asyncio
import json
import re
import shutil
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from booting import Made, named, report
from command import run
from probes import check_contents, initrd, original, value

from pybuild import bootproto, paths, watch
from pybuild.guest import Log
from pybuild.watch import Stream
from pybuild.xen import dom0, lab, xl
from pybuild.xen.guest import XenGuest
from pybuild.xen.session import Lab

pytestmark = [pytest.mark.boot, pytest.mark.timeout(300), pytest.mark.usefixtures("xen")]

KIB = 1 << 10
QEMU = 0xB0  # type_of_loader of QEMU's -kernel, with which version in the low half
ODD = """a,b's "c" \\n ü"""  # a name, and a folder's


@pytest.fixture(scope="module")
def room(
    made: Callable[[str, str, str], Made],
    built: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with the disk, the ISO, the folder, the kernel and the initrd of a probe kernel."""
    folder = tmp_path_factory.mktemp("room")
    for kind, name in (("disk", "disk.img"), ("iso", "cd.iso")):
        shutil.copy(made("probe-2.10", "xen-hvm", kind).path, folder / name)
    shutil.copytree(built("probe-2.10.xen-hvm"), folder / "ram")
    shutil.copytree(folder / "ram", folder / ODD)
    each = named("probe-bzimage")
    (folder / "kernel").write_bytes(original(each).data)
    (folder / "initrd").write_bytes(initrd(each))
    return folder


def dry_run(configurations: dict[str, str]) -> dict[str, dom0.Ran]:
    """What `xl create -n` says of each, by its name; all in one lab."""
    place = lab.prepare(paths.cache_directory(), progress=print)

    async def session() -> dict[str, dom0.Ran]:
        async with Lab.resume(place, lambda _: None) as there:
            said = {}
            for name, text in configurations.items():
                path = await there.put("xl.cfg", text.encode())
                said[name] = await there.run("xl", "create", "-q", "-n", path)
            return said

    return asyncio.run(session())


def understood(ran: dom0.Ran) -> dict[str, Any]:
    """What xl prints of a configuration that it takes: JSON."""
    assert ran.status == 0, ran.text()
    found: dict[str, Any] = json.loads(ran.text())
    return found


def test_xl_understands(room: Path) -> None:
    orders: dict[str, list[str]] = {
        "disk": ["disk.img", "--memory", "100"],
        "ahci": ["disk.img", "--drive", "ahci", "--vcpus", "3", "--name", ODD],
        "iso": ["cd.iso"],
        "ram": ["ram"],
        "odd": [ODD],
        "kernel": ["kernel", "--initrd", "initrd", "--cmdline", "a=\"b c\" 'd' \\e"],
    }
    printed = {name: run(room, "xl", *order).stdout for name, order in orders.items()}
    said = {name: understood(ran) for name, ran in dry_run(printed).items()}

    for name, each in said.items():
        built, made = each["b_info"], each["c_info"]
        memory = (100 if name == "disk" else 512) + 16
        assert built["max_memkb"] == memory * KIB
        assert built["video_memkb"] == 16 * KIB
        assert built["type.hvm"]["vga"]["kind"] == "std"
        assert built["device_model_version"] == "qemu_xen"
        assert built["type.hvm"]["xen_platform_pci"] == "False"
        assert made["type"] == "hvm"
        assert built.get("max_vcpus", 1) == (3 if name == "ahci" else 1)
        for event in ("poweroff", "reboot", "crash"):
            assert each.get(f"on_{event}", "destroy") == "destroy"  # not printed: its default
    names = {name: each["c_info"]["name"] for name, each in said.items()}
    assert names == {
        "disk": "disk",
        "ahci": ODD,
        "iso": "cd",
        "ram": "ram",
        "odd": ODD,
        "kernel": "kernel",
    }

    hda = {"vdev": "hda", "backend": "qdisk", "format": "raw", "readwrite": 1}
    hdc = {"vdev": "hdc", "backend": "qdisk", "format": "raw", "removable": 1, "is_cdrom": 1}
    assert said["disk"]["disks"] == [{**hda, "pdev_path": f"{room}/disk.img"}]
    assert said["ahci"]["disks"] == [{**hda, "pdev_path": f"{room}/disk.img"}]
    assert said["ahci"]["b_info"]["type.hvm"]["hdtype"] == "ahci"
    assert said["iso"]["disks"] == [{**hdc, "pdev_path": f"{room}/cd.iso"}]
    assert said["ram"]["disks"] == [{**hda, "pdev_path": f"{room}/ram/boot.img"}]
    assert said["odd"]["disks"] == [{**hda, "pdev_path": f"{room}/{ODD}/boot.img"}]
    boots = {name: each["b_info"]["type.hvm"].get("boot") for name, each in said.items()}
    assert boots == {"disk": "c", "ahci": "c", "iso": "d", "ram": "c", "odd": "c", "kernel": None}

    for name, folder in (("ram", "ram"), ("odd", ODD)):
        plan = json.loads((room / folder / "plan.json").read_text())
        start = f"loader,file={room}/{folder}/".replace(folder, folder.replace(",", ",,"))
        assert said[name]["b_info"]["extra_hvm"][1::2] == [
            f"{start}{load['part']}.bin,addr={load['address']:#x},force-raw=on"
            for load in plan["loads"]
        ]
    kernel = said["kernel"]["b_info"]
    assert (kernel["kernel"], kernel["ramdisk"]) == (f"{room}/kernel", f"{room}/initrd")
    assert kernel["cmdline"] == orders["kernel"][-1]
    assert "disks" not in said["kernel"]


def test_xl_refuses(room: Path) -> None:
    """What is broken is refused, so the test above can fail."""
    text = run(room, "xl", "disk.img").stdout
    broken = {
        "cut": text[: text.index("]")],
        "type": text.replace('"hvm"', '"hvn"'),
        "quotes": text.replace('"disk"', '"disk'),
        "disk": text.replace("access=rw", "access=now"),
        "format": text.replace("format=raw", "format=tar"),
        "adapter": text.replace("stdvga", "hercules"),
        "anonymous": text.replace('name = "disk"\n', ""),
    }
    assert text not in broken.values()
    assert {name for name, ran in dry_run(broken).items() if ran.status == 0} == set()


@pytest.mark.soak
def test_a_kernel_that_the_device_model_boots(room: Path) -> None:
    """With none of bootsplice's code: what it says must be as true."""
    each = named("probe-bzimage")
    probe = original(each)
    place = lab.prepare(paths.cache_directory(), progress=print)
    brought = room / "brought"
    brought.mkdir()
    for name in ("kernel", "initrd"):
        shutil.copy(room / name, brought / name)

    @asynccontextmanager
    async def start(stream: Stream) -> AsyncIterator[XenGuest]:
        log = Log(stream)
        async with Lab.resume(place, log.receive) as there:
            await there.bring(brought)
            files = (f"{there.image}/kernel", f"{there.image}/initrd")
            domain = xl.of_kernel(*files, each.cmdline, memory=None, vcpus=None)
            async with XenGuest.start(there, domain, log) as guest:
                yield guest

    expect = re.compile(each.expect)
    result = watch.run(start, expect=expect, timeout=120, stream=lambda _: None)
    assert result.matched, result.screen
    said = report(result.serial)
    plan = {"loads": [{"part": "kernel", "address": bootproto.BZIMAGE_LOAD_ADDRESS}]}
    check_contents(said, plan, probe)
    assert value(said, "code32_start") == probe["code32_start"]
    assert value(said, "type_of_loader") & 0xF0 == QEMU
    assert said["cmdline"] == each.cmdline
    assert value(said, "ramdisk_size") == len(initrd(each))
    assert value(said, "initrd_crc") == zlib.crc32(initrd(each))
