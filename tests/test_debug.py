"""`bootsplice debug`: where a guest is stopped, and what gdb itself then says of it."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from booting import Made, named, plan
from debugging import gdb, line, show, shown, stopped_at
from entry import RUN, Guest, maps
from probes import SETUP_EDI, SETUP_ESP, original

from pybuild import build, kernel, paths

pytestmark = pytest.mark.boot

Built = Callable[[str], Path]
Make = Callable[[str, str, str], Made]


def test_the_hook(built: Built, tmp_path: Path) -> None:
    """Registers, symbols and header as the boot protocol has them, and on to the kernel's end."""
    source = "i386/relocator.asm"
    temporary = tmp_path / "a b's"
    temporary.mkdir()
    said = gdb(
        built("probe-bzimage.xen-hvm"),
        "hook",
        show("esi", "esp", "edi", "cs"),
        show("boot_params", "src", "dst", "len"),
        "bp-header",
        "stepi 2",
        "setreg rdi 0x12345678",
        "thbreak relocator.asm:" + str(line(source, "jmp eax")),
        "continue",
        show("edi", "ecx"),
        "bp-header",
        "stepi",
        show("eip", "ebx"),
        *("continue", "serial"),
        temporary=str(temporary),
    )
    assert stopped_at(said, source, "cld")
    assert f"esi=0x90000 esp={0x90000 + SETUP_ESP:#x} edi={SETUP_EDI:#x} cs=0x10\n" in said
    length = original(named("probe-bzimage")).protected_size
    assert f"boot_params=0x90000 src=0x200000 dst=0x100000 len={length:#x}\n" in said
    assert re.search(shown(source, "mov eax, __BOOT_DS"), said)
    assert re.search(shown(source, "jmp eax"), said)
    assert "edi=0x12345678 ecx=0\n" in said
    assert re.findall(r"code32_start +(\w+)\n", said) == ["0x700010", "0x100000"]
    assert "eip=0x100000 ebx=0\n" in said
    assert "\nedi=0x12345678\n" in said  # the kernel's own report
    assert "\nend=ok\n" in said
    assert list(temporary.iterdir()) == []


def test_the_early_stage(built: Built) -> None:
    """Real mode with another %cs than 0, then protected mode, and real mode again."""
    source = "real/early.asm"
    said = gdb(
        built("probe-zimage.xen-hvm"),
        "bootsect",
        *("thbreak *0x9a000", "continue", "delete", "stepi"),
        *("thbreak protected", "continue", "stepi"),
        *("thbreak *0x90200", "continue", show("cs", "eip")),
    )
    assert stopped_at(said, "real/bootsect.asm", "cli")
    for address, text in (("0000", "cli"), ("0001", "cld")):
        assert re.search(rf"9a00:{address} .*\t{text} *\n.*\n{shown(source, text)}", said)
    assert re.search(r"\bprotected \(\) at asm/real/early\.asm:", said)
    assert re.search(shown(source, "mov eax, strict dword relocator"), said)
    assert re.search(r"9020:0000 +0x90200:\tjmp ", said)
    assert "cs=0x9020 eip=0\n" in said


def test_a_disk_from_its_boot_sector_to_the_loader(made: Make) -> None:
    said = gdb(
        made("probe-bzimage", "xen-hvm", "disk").path,
        "bootsect",
        *("stepi", "hbreak loader", "continue", "stepi", "x/i $pc"),
    )
    assert stopped_at(said, "real/diskboot.asm", "jmp short begin")
    assert re.search(shown("real/diskboot.asm", "cli"), said)
    assert re.search(r"loader \(\) at asm/real/loader\.asm:", said)
    assert re.search(r"=> 0x1001 <loader\+1>:\txor +%eax,%eax\n", said)


def test_an_iso_at_the_setup_code(made: Make) -> None:
    iso = made("probe-bzimage", "xen-hvm", "iso")
    cs = iso.plan["entry"]["cs"]
    said = gdb(iso.path, "entry", "info symbol relocator", "stepi", show("cs", "ds", "esp"))
    assert f"stopped at entry ({cs * 16:#x}, 16-bit)\n" in said
    assert f"{cs:04x}:0000     {cs * 16:#x}:\tjmp " in said
    assert f"ds={iso.plan['entry']['data_segments']:#x} esp={iso.plan['entry']['esp']:#x}" in said


@pytest.fixture(scope="module")
def spliced(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel image with a head, of a kernel that has a 64-bit entry."""
    built("probe-64.pc")
    out = tmp_path_factory.mktemp("spliced") / "spliced.bzImage"
    source = paths.BUILD / "kernels/probe-64.bin"
    build.build(build.Order(source, target="bzimage"), out)
    return out


def test_the_head_of_a_kernel_image(spliced: Path) -> None:
    """To its relocator's copy, which lies where nobody has told the linker."""
    source = "i386/relocator.asm"
    said = gdb(spliced, "hook", "hbreak relocator.asm:" + str(line(source, "cld")), "continue")
    assert stopped_at(said, "i386/head.asm", "cld")
    assert re.search(shown(source, "cld"), said.partition("Continuing.")[2])


def test_a_kernel_where_its_head_was(spliced: Path) -> None:
    said = gdb(spliced, "kernel", show("eip", "ebx", "ds"), "output/x *(int *) $pc")
    assert "stopped at kernel (0x100000, 32-bit)\n" in said  # no line of the head's
    assert "eip=0x100000 ebx=0 ds=0x18\n" in said
    first = int.from_bytes(original(named("probe-64")).protected[:4], "little")
    assert f"\n{first:#x}" in said


def test_long_mode(spliced: Path, tmp_path: Path) -> None:
    """Entered by a loader at 0x200, as only its address can be given."""
    guest = Guest(kernel.read(spliced), b"", b"initrd")
    disk, loaded = guest.disk(tmp_path, BITS=64, **maps(guest.needed()))
    source = "x86_64/relocator.asm"
    said = gdb(
        disk,
        f"{RUN + 0x200:#x}",
        *("stepi", show("rsi", "r15"), "x/i $pc"),
        *(f"hbreak {source.rpartition('/')[2]}:{line(source, 'cld')}", "continue", "stepi"),
        *("setreg r12 0x1234567890", show("r12"), "info line identity_enter"),
        qemu=tuple(loaded),
    )
    assert f"stopped at {RUN + 0x200:#x} ({RUN + 0x200:#x}, 64-bit): asm/i386/head.asm:" in said
    assert re.search(shown("x86_64/head.asm", "cld"), said)
    assert "rsi=0x90000 r15=0xf0f0f0f0f0f0f0f\n" in said
    assert re.search(shown(source, "cli"), said)
    assert "r12=0x1234567890\n" in said
    number = line("x86_64/identity.inc", "mov rcx, cr4")
    assert f'Line {number} of "asm/x86_64/identity.inc"' in said


@pytest.mark.soak
@pytest.mark.parametrize("place", ["bootsect", "entry", "hook", "kernel"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(["memtest86+ia32", "memtest86+x64", "memdisk"], ["", ".img", ".iso"]),
        ("probe-old", ""),  # which a loader of ours need not move
    ],
)
def test_every_place(name: str, kind: str, place: str, built: Built) -> None:
    """Each is where the plan has it."""
    file = built(f"{name}.xen-hvm{kind}")
    (move,) = plan(built(f"{name}.xen-hvm"))["moves"]
    said = gdb(file, place, show("src", "dst", "len") if place == "hook" else "info registers")
    where = {
        "bootsect": r"0x7c00, 16-bit\): asm/real/(bootsect|diskboot)\.asm:\d+\n",
        "entry": r"0x[19]0200, 16-bit\)\n",
        "hook": r"0x\w+, 32-bit\): asm/i386/relocator\.asm:\d+\n",
        "kernel": rf"{0x1000 if name == 'probe-old' else 0x100000:#x}, 32-bit\)\n",
    }
    assert re.search(rf"stopped at {place} \({where[place]}", said), said
    if place == "hook":
        src, length = move["src"], move["len"]
        assert re.search(rf"src={src:#x} dst={move['dst']:#x} len={length:#x}\n", said)


@pytest.mark.soak
@pytest.mark.parametrize("place", ["entry", "hook", "kernel"])
@pytest.mark.parametrize("name", ["memtest86+x64-bzimage", "debian-bzimage"])
def test_real_kernels_with_a_head(name: str, place: str, built: Built) -> None:
    done = gdb(built(f"{name}.pc.bzimage"), place, "stepi", qemu=("-m", "512M"))
    assert f"stopped at {place} (" in done
    assert ("asm/i386/head.asm" in done) is (place == "hook")
