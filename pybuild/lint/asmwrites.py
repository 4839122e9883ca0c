"""Which registers and flags an instruction writes, as far as a linter has to know.

A register is a family, `a` for %al to %rax, and which bits of it: what is written must be covered
by what a comment claims. Stack pointer and segment registers are left out. `xax` is %eax or %rax
(asm/include/wide.inc).
"""

import re
from collections import Counter
from typing import Final

from pybuild.lint.asmtext import Statement, names

FLAGS: Final = "flags"
_LOW, _HIGH, _WORD, _ALL = 1, 2, 3, 7

# What is written: bits by family. FLAGS is a family, too.
Writes = Counter[str]


def _registers() -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for family in "acdb":
        found |= {f"{family}l": (family, _LOW), f"{family}h": (family, _HIGH)}
    for family in ("a", "c", "d", "b", "bp", "si", "di"):
        name = family if len(family) == 2 else f"{family}x"
        found |= {name: (family, _WORD), f"{family}l": (family, _LOW)}
        found |= {f"{letter}{name}": (family, _ALL) for letter in "erx"}
    for number in range(8, 16):
        family = f"r{number}"
        found |= {family: (family, _ALL), f"{family}d": (family, _ALL)}
        found |= {f"{family}w": (family, _WORD), f"{family}b": (family, _LOW)}
    return found


REGISTERS: Final = _registers()
GENERAL: Final = ("a", "b", "c", "d", "si", "di", "bp")
_LONG: Final = tuple(f"r{number}" for number in range(8, 16))
ORDER: Final = (*GENERAL, *_LONG, FLAGS)  # in which they are listed

_FLAGGED: Final = names(
    "add sub adc sbb and or xor neg inc dec shl shr sar sal rol ror rcl rcr shld shrd imul "
    "bsf bsr xadd btr bts btc"
)
_FIRST: Final = _FLAGGED | names("mov movzx movsx movsxd lea not bswap in xlat")
_ONLY_FLAGS: Final = names("cmp test bt stc clc cmc aam aad das daa mul div idiv")
_BOTH: Final = frozenset(("xchg", "xadd"))
_FIXED: Final = {
    "aam": "ax", "aad": "ax", "das": "al", "daa": "al", "cbw": "ax", "cwde": "eax", "cwd": "dx",
    "cdq": "edx", "cqo": "edx", "lahf": "ah", "cpuid": "eax ebx ecx edx", "rdmsr": "eax edx",
    "rdtsc": "eax edx",
}  # fmt: skip
_STRING: Final = re.compile(r"(lods|stos|movs|scas|cmps|ins|outs)([bwdq])")
_STRING_WRITES: Final = {
    "lods": ("si",), "stos": ("di",), "movs": ("si", "di"), "scas": ("di",),
    "cmps": ("si", "di"), "ins": ("di",), "outs": ("si",),
}  # fmt: skip


def add(to: Writes, more: Writes) -> None:
    """Adds what is written to what is written already."""
    for family, bits in more.items():
        to[family] |= bits


def named(text: str) -> Writes:
    """The registers that a text names, and FLAGS."""
    found: Writes = Counter()
    for word in re.findall(r"\w+", re.sub(r"\[[^]]*\]", "", text.lower())):
        if word in REGISTERS:
            family, bits = REGISTERS[word]
            found[family] |= bits
        elif word in (FLAGS, "cf", "zf", "sf"):
            found[FLAGS] = _ALL
    return found


def name(family: str, covered: int, bits: int) -> str:
    """What is written of a family, by the name that it has in code of so many bits."""
    if family == FLAGS:
        return family
    fitting = [word for word, at in REGISTERS.items() if at == (family, covered)]
    wide = [word for word in fitting if word[0] == ("r" if bits == 64 else "e")]
    return (wide or fitting or [f"e{family}x"])[0]


def everything(bits: int) -> Writes:
    """All general registers and the flags; there are eight more in 64 bits (or if 0: not known)."""
    return Counter(dict.fromkeys(ORDER if bits in (0, 64) else (*GENERAL, FLAGS), _ALL))


def of(statement: Statement, bits: int) -> Writes:
    """What an instruction itself writes; nothing if it is none that is known here.

    Args:
        statement: the instruction; what a CALL leads to is not its own.
        bits: 16, 32 or 64; 0 if that is not known, then an index register's lower half is written
            for sure.
    """
    mnemonic, operands = statement.mnemonic, statement.operands
    found: Writes = Counter()
    targets = list(_FIXED.get(mnemonic, "").split())
    if mnemonic in _FIRST or mnemonic.startswith(("cmov", "set")):
        targets += operands[:1]
    if mnemonic in _BOTH:
        targets += operands[:2]
    if mnemonic in ("mul", "imul", "div", "idiv") and len(operands) == 1:
        targets = ["ax"] if _is_byte(operands[0]) else ["eax", "edx"]
    index = _WORD if bits in (0, 16) else _ALL
    if (string := _STRING.fullmatch(mnemonic)) and not operands:
        kind, width = string.groups()
        found.update(dict.fromkeys(_STRING_WRITES[kind], index))
        targets += {"b": ["al"], "w": ["ax"]}.get(width, ["eax"]) if kind == "lods" else []
        found.update({FLAGS: _ALL} if kind in ("scas", "cmps") else {})
    if mnemonic.startswith("loop") or statement.prefix.startswith("rep"):
        found["c"] |= index
    for target in targets:
        register = target.lower()
        if register in REGISTERS:
            family, covered = REGISTERS[register]
            found[family] |= covered
    if mnemonic in _FLAGGED or mnemonic in _ONLY_FLAGS:
        found[FLAGS] = _ALL
    return found


def _is_byte(operand: str) -> bool:
    return operand.lower().startswith("byte") or REGISTERS.get(operand.lower(), ("", _ALL))[1] in (
        _LOW,
        _HIGH,
    )
