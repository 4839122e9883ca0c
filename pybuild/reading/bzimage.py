"""Reads a kernel image that target `bzimage` wrote: with a head, or with a relocator behind it."""

from collections.abc import Iterator, Mapping
from typing import Final

from pybuild import headsplice, splice
from pybuild import kernel as kernels
from pybuild.errors import InputError
from pybuild.headplan import CRC_SIZE
from pybuild.kernel import Kernel
from pybuild.reading import code, marks
from pybuild.reading.code import Binaries
from pybuild.reading.found import Change, Code, Image, Part, Sum
from pybuild.words import shown

_HEAD_MARK: Final = "the head's messages at the start of its protected-mode part"
_HOOK_MARK: Final = "a relocator of bootsplice's behind the kernel"
_OTHER: Final = "the head is not this version's, so nobody can say what else is in the image"


def read(image: Kernel, binaries: Binaries) -> Image | None:
    """What is in the image; None if it is a kernel as any other."""
    if marks.has_head(image):
        return _with_head(image, binaries)
    if marks.is_hooked(image):
        return _with_relocator(image, binaries)
    return None


def _with_relocator(image: Kernel, binaries: Binaries) -> Image | None:
    found = code.read_end(binaries, splice.RELOCATOR, image.data)
    if found.symbols is None:
        return None
    size = len(binaries[splice.RELOCATOR].code)
    at = image.protected_size - size
    src, start = found.symbols["src"], image["code32_start"]
    damage: tuple[str, ...] = ()
    if start != src + at:
        damage = (f"setup: code32_start is {start:#x}, and the relocator is at {src + at:#x}",)
    return Image(
        path=image.name,
        size=len(image.data),
        kind="bzimage",
        mark=_HOOK_MARK,
        parts=(
            Part("setup", 0, image.setup_size),
            Part("kernel", image.setup_size, found.symbols["len"], src),
            Part("relocator", image.setup_size + at, size, src + at, code=(found,)),
        ),
        kernel=image,
        changes=(Change("code32_start", found.symbols["code32_start"], start),),
        facts={"load_address": src},
        damage=damage,
    )


def _with_head(image: Kernel, binaries: Binaries) -> Image:
    start = image.setup_size
    codes = tuple(_codes(image, binaries))
    symbols = codes[0].symbols
    setup = Part("setup", 0, start)
    if symbols is None:
        head = Part("head", start, headsplice.code_size(binaries), code=codes)
        return Image(
            path=image.name,
            size=len(image.data),
            kind="bzimage",
            mark=_HEAD_MARK,
            parts=code.suspect((setup, head), headsplice.code_places(binaries)),
            kernel=image,
            facts={"note": _OTHER},
        )
    parts = [setup, Part("head", start, symbols["kernel"], code=codes)]
    damage = list(_not_there(image, symbols))
    text = None
    if symbols["cmdline_length"]:
        at = start + symbols["cmdline"]
        parts.append(Part("cmdline", at, symbols["cmdline_length"]))
        text = shown(image.data[at : at + symbols["cmdline_length"]])
    dst = None if symbols["follows"] else symbols["dst"]
    parts.append(Part("kernel", start + symbols["kernel"], symbols["len"], dst))
    if symbols["initrd_size"]:
        parts.append(Part("initrd", start + symbols["initrd"], symbols["initrd_size"]))
    parts += _crc(image, symbols)
    inside = _inside(image, symbols)
    if inside is None:
        damage.append("kernel: its own header cannot be put together")
    return Image(
        path=image.name,
        size=len(image.data),
        kind="bzimage",
        mark=_HEAD_MARK,
        parts=code.suspect(parts, headsplice.code_places(binaries)),
        kernel=inside,
        changes=tuple(_changes(inside, image)) if inside else (),
        cmdline=text,
        facts=_facts(image, symbols),
        damage=tuple(damage),
    )


def _codes(image: Kernel, binaries: Binaries) -> Iterator[Code]:
    """The heads and the relocators. Of what these read, a head itself fills in some."""
    for source, at in headsplice.code_places(binaries).items():
        base = 0 if binaries[source].needs_base else None
        start = image.setup_size + at
        data = image.data[start : start + len(binaries[source].code)]
        found = code.read(binaries, source, data, base)
        if found.symbols is not None and source in (splice.RELOCATOR, splice.RELOCATOR_64):
            known = {k: v for k, v in found.symbols.items() if k not in headsplice.VALUES}
            found = Code(source, known)
        yield found


def _not_there(image: Kernel, symbols: Mapping[str, int]) -> Iterator[str]:
    """What would have to lie behind the image's end."""
    for name, size in (("cmdline", "cmdline_length"), ("kernel", "len"), ("initrd", "initrd_size")):
        end = image.setup_size + symbols[name] + symbols[size]
        if symbols[size] and end > len(image.data):
            yield f"{name}: it would end at {end:#x}, and the image at {len(image.data):#x}"


def _crc(image: Kernel, symbols: Mapping[str, int]) -> Iterator[Part]:
    """The CRC at the image's end (boot.rst, 2.08): without one, what is there is zero."""
    end = image.setup_size + (image.syssize_bytes or 0)
    if any(image.data[image.setup_size + symbols["image_size"] : end]):
        stored = int.from_bytes(image.data[end - CRC_SIZE : end], "little")
        computed = headsplice.crc(memoryview(image.data)[: end - CRC_SIZE])
        yield Part("image", 0, end, sum=Sum("CRC-32", stored, computed))


def _inside(image: Kernel, symbols: Mapping[str, int]) -> Kernel | None:
    """The kernel with its own header, as the head gives it to the kernel."""
    start = image.setup_size
    setup = bytearray(image.setup)
    at = start + symbols["saved"]
    for offset, byte in headsplice.saved_bytes(image.data[at:], symbols["saved_count"]):
        if offset < image.header_end:
            setup[offset] = byte
    own = image.load_address + symbols["entry32"]
    image.field("code32_start").put(setup, own)
    at = start + symbols["kernel"]
    try:
        return kernels.parse(image.name, bytes(setup) + image.data[at : at + symbols["len"]])
    except InputError:
        return None


def _changes(kernel: Kernel, image: Kernel) -> Iterator[Change]:
    for field in image.fields:
        old = kernel[field.name] if kernel.has(field.name) else None
        if image[field.name] != (old or 0):
            yield Change(field.name, old, image[field.name])


def _facts(image: Kernel, symbols: Mapping[str, int]) -> dict[str, int | str]:
    facts: dict[str, int | str] = {"init_size": image["init_size"]}
    if symbols["follows"]:
        facts["runs_from"] = symbols["run"]
    else:
        facts["moved_to"] = symbols["dst"]
    if symbols["cmdline_length"]:
        facts["loaders_cmdline"] = "left out" if symbols["replace"] else "behind the built-in one"
    return facts
