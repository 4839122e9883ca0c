"""What gdb is given to debug a guest in QEMU: a script for people to read, and two descriptions.

QEMU describes its registers to gdb as a 64-bit CPU's, whatever mode the CPU is in, and gdb then
takes 16-bit and 32-bit code for 64-bit code (QEMU's issue 141). A description of our own, in a
file, says the same bytes in other words: a 64-bit register is a 32-bit one and its upper half.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from pybuild.debugging.arrival import Arrival
from pybuild.debugging.findcode import Bits, header_field
from pybuild.regions import Region

# gdb's names of the architectures of 16-bit and 32-bit code; the latter may be entered in 64 bits.
ARCHITECTURES: Final[dict[Bits, str]] = {16: "i8086", 32: "i386"}
_MODES: Final[dict[Bits, str]] = {16: "real mode", 32: "protected mode", 64: "long mode"}
_WIDE: Final = {f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip")}
# With it gdb would write a register by its number, which is another one of QEMU's. This is none.
_NO_NUMBER: Final = "4096"
_SHOWN: Final = (
    "version", "loadflags", "type_of_loader", "code32_start", "ramdisk_image", "ramdisk_size",
    "heap_end_ptr", "cmd_line_ptr", "kernel_alignment", "relocatable_kernel", "xloadflags",
    "pref_address", "init_size",
)  # fmt: skip
_C_TYPES: Final = {1: "char", 2: "short", 4: "int", 8: "long long"}

_SCRIPT: Final = """\
# The guest is stopped at {place}: {address:#x}, in {mode}. By `bootsplice debug`, for `gdb -x`.

# No questions, and no guess at an operating system in the guest.
set confirm off
set osabi none

# Where the sources are, and our code that is in the guest.
directory {sources}
{symbols}

# mode 16, mode 32, mode 64: how gdb reads code and registers. QEMU describes a 64-bit CPU in every
# mode; the files describe the same registers as a 32-bit CPU has them.
define mode
  if $mode != $arg0
    set $mode = $arg0
    if $mode == 16
      set tdesc filename {narrow[16]}
    end
    if $mode == 32
      set tdesc filename {narrow[32]}
    end
    if $mode == 64
      unset tdesc filename
    end
  end
end
set $mode = 64
mode {bits}

# At every stop: the mode that the CPU is in, by CR0.PE and EFER.LMA. In real mode gdb takes %ip for
# the address. Where %cs isn't 0 it finds no code with that, which is therefore shown here, and does
# not see that it stands at a breakpoint: `stepi` goes on from there, `continue` does not.
define hook-stop
  if ($cr0 & 1) == 0
    mode 16
    if $cs != 0
      set $here = ($cs << 4) + $eip
      printf "%04x:%04x  ", $cs, $eip
      x/i $here
{lists}\
    end
  else
    if ($efer & 0x400) == 0
      mode 32
    else
      mode 64
    end
  end
end

# setreg rcx 0x10: sets a register, by its 64-bit name. `set $ecx = 0x10` would have no effect: only
# with QEMU's own description does gdb know what QEMU calls it.
define setreg
  set $setreg_mode = $mode
  mode 64
  set var $$arg0 = $arg1
  mode $setreg_mode
end

# serial: what the guest has said on its serial port.
define serial
  shell cat {serial}
end
{values}
# A software breakpoint is lost where something is loaded over it: hbreak and thbreak set hardware
# breakpoints.
target remote {socket}
x/4i {next}
echo Next: stepi, layout src, hbreak, serial{commands}, setreg; the script says more.\\n
"""


@dataclass(frozen=True, slots=True)
class Symbols:
    """An object file whose code is in the guest.

    Attributes:
        object: the file.
        region: all of it.
        sections: the address of each of its sections.
    """

    object: Path
    region: Region
    sections: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Files:
    """Where things are on this side.

    Attributes:
        sources: the directory that has asm/.
        socket: QEMU's gdb socket.
        serial: what the guest says on its serial port.
        descriptions: of the registers, for each mode that needs one.
    """

    sources: Path
    socket: Path
    serial: Path
    descriptions: dict[Bits, Path]


def description(features: Sequence[str], architecture: str) -> str:
    """QEMU's registers as a 32-bit CPU's, in gdb's "Target Description Format".

    Args:
        features: QEMU's own description.
        architecture: gdb's name of the architecture.
    """
    target = ElementTree.Element("target")
    ElementTree.SubElement(target, "architecture").text = architecture
    for text in features:
        feature = ElementTree.fromstring(text)  # noqa: S314  QEMU's
        for index, register in reversed(list(enumerate(feature))):
            name = register.get("name", "")
            if register.tag != "reg" or name not in _WIDE:
                continue
            register.set("name", f"e{name[1:]}")
            register.set("bitsize", "32")
            if register.get("type") == "int64":
                register.set("type", "int32")
            upper = {"name": f"{name}_upper", "bitsize": "32", "type": "int32"}
            feature.insert(index + 1, ElementTree.Element("reg", upper))
        target.append(feature)
    first = target.find(".//reg")
    assert first is not None  # noqa: S101  a CPU has registers
    first.set("regnum", _NO_NUMBER)
    head = '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n'
    return head + ElementTree.tostring(target, encoding="unicode") + "\n"


def script(arrival: Arrival, symbols: Sequence[Symbols], files: Files) -> str:
    """The script that attaches gdb to a guest that has stopped."""
    values = "\n".join(_values(arrival))
    return _SCRIPT.format(
        place=arrival.place,
        address=arrival.address,
        mode=_MODES[arrival.bits],
        bits=arrival.bits,
        sources=_quoted(files.sources),
        symbols="\n".join(map(_add, symbols)),
        lists="".join(map(_list, symbols)),
        narrow=files.descriptions,
        serial=shlex.quote(str(files.serial)),
        socket=files.socket,
        values=f"\n{values}\n" if values else "",
        next="($cs << 4) + $eip" if arrival.bits == 16 else "$pc",
        commands="" if arrival.boot_params is None else ", bp-header",
    )


def _add(symbols: Symbols) -> str:
    sections = " ".join(f"-s {name} {address:#x}" for name, address in symbols.sections)
    return f"add-symbol-file {_quoted(symbols.object)} {sections}"


def _list(symbols: Symbols) -> str:
    """Commands, inside hook-stop, that show the source line at $here if it is of this code."""
    start, end = symbols.region.start, symbols.region.end
    condition = f"$here >= {start:#x} && $here < {end:#x}"
    return f"      if {condition}\n        list *$here,*$here\n      end\n"


def _values(arrival: Arrival) -> Iterator[str]:
    if arrival.found.values:
        yield "# What is moved."
    for name, value in arrival.found.values.items():
        yield f"set ${name} = {value:#x}"
    if arrival.boot_params is None:
        return
    yield "# bp-header: fields of boot_params, or of the real-mode part before there is one."
    yield f"set $boot_params = {arrival.boot_params:#x}"
    yield "define bp-header"
    for name in _SHOWN:
        field = header_field(arrival.found.header, name)
        if field:
            form = "%#llx" if field.size == 8 else "%#x"
            there = f"{{unsigned {_C_TYPES[field.size]}}} ($boot_params + {field.offset:#x})"
            yield f'  printf "{name:<18} {form}\\n", {there}'
    yield "end"


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
