"""Style of the NASM sources: what a person who reads or edits one may count on.

Every finding names file and line, and says what to write there. What running the code would show is
for the contract tests; what stands here can be seen in the text, and is never a false alarm: where
that cannot be told nothing is said. `%if` is not evaluated: all branches count.

Held to are `asm/**` and `kernels/**`, `*.asm` and `*.inc`:

* a file begins with `; NAME - ...`; an include file says what it is (KINDS);
* `asm/**/*.asm` have the contract that `contract.py` reads, and each `extern` is in it;
  the sources of our own kernels say who enters them and where they go (KERNEL_KEYWORDS);
* each routine has its comment, and the comment is true (`asmroutines.py`);
* boot_params' fields, and the boot protocol's two selectors, go by their names;
* DF is clear again after `std`, and what `leaves` says of ds, es and ss has been loaded;
* no name is defined in vain; no tabs, no blanks at the end of a line, no line above WIDTH.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from pybuild import bootproto, contract
from pybuild.contract import Contract
from pybuild.errors import BuildError
from pybuild.lint import asmeffects, asmroutines, asmtext, asmwrites
from pybuild.lint.asmtext import Statement

WIDTH: Final = 100
KINDS: Final = {
    "contract": "code or data that a program includes",
    "constants": "names only",
    "driver": "by driver.inc",
    "macros": "macros only",
    "part": "of one program",
}
KERNEL_KEYWORDS: Final = {
    "entered": "by whom, in which mode, where",
    "in": "what it finds in registers",
    "writes": "which memory",
    "leaves": "where to, with what",
    "limit": "bytes",
}
_ZERO_PAGE: Final = "asm/include/zeropage.inc"
_ZERO_PAGE_FIELDS: Final = range(0xC0, 0x1000)  # numbers below are counts and offsets in an entry
_HEADER: Final = range(0x1F1, max(field.end for field in bootproto.FIELDS))
_SELECTORS: Final = {0x10: "__BOOT_CS", 0x18: "__BOOT_DS"}
_DATA_SEGMENTS: Final = ("ds", "es", "fs", "gs", "ss")
_LOADED: Final = ("ds", "es", "ss")  # fs and gs may be left to the relocator that runs last
_POINTERS: Final = frozenset((*asmwrites.REGISTERS, "sp", "esp", "rsp", "xsp"))
_Sources = asmroutines.Sources


class Finding(NamedTuple):
    """What is wrong where, and what to write."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def findings(root: Path) -> list[Finding]:
    """What is wrong with the sources below a directory that has asm/ and kernels/."""
    texts: dict[str, str] = {}
    contracts: dict[str, Contract] = {}
    found: list[Finding] = []
    for folder in ("asm", "kernels"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".asm", ".inc"):
                continue
            name = path.relative_to(root).as_posix()
            texts[name] = path.read_text(encoding="utf-8", errors="replace")
            if folder == "asm" and path.suffix == ".asm":
                try:
                    contracts[name] = contract.read(path)
                except BuildError as error:
                    where = re.match(r":(\d+): |: ", says := str(error).removeprefix(str(path)))
                    line = int(where.group(1) or 1) if where else 1
                    found.append(Finding(name, line, says[where.end() if where else 0 :]))
    return sorted([*found, *check(texts, contracts)])


def check(texts: Mapping[str, str], contracts: Mapping[str, Contract]) -> list[Finding]:
    """What is wrong with sources.

    Args:
        texts: each file's, by its path from the root, with slashes.
        contracts: those that could be read.
    """
    sources = {name: asmtext.parse(text) for name, text in texts.items()}
    found = []
    for name, statements in sources.items():
        rules = [
            _layout(name, texts[name]),
            _opening(name, statements),
            _offsets(statements, sources),
            _selectors(statements),
            _direction(statements),
            _promises(name, contracts[name], sources) if name in contracts else (),
        ]
        found += [Finding(name, line, text) for rule in rules for line, text in rule]
    found += _unused(sources)
    routines = asmroutines.find(sources)
    effects = asmeffects.Effects(sources, routines)
    for routine in routines:
        problems = asmroutines.problems(routine, effects.of(routine))
        found += [Finding(routine.file, line, text) for line, text in problems]
    return sorted(found)


def _layout(name: str, text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if "\t" in line:
            yield number, "a tab: write blanks"
        if line != line.rstrip():
            yield number, "blanks at the end of the line: remove them"
        of_a_contract = name.endswith(".asm") and re.match(
            rf"; ({'|'.join(contract.KEYWORDS)}) ", line
        )
        if len(line) > WIDTH and not of_a_contract:
            yield number, f"{len(line)} characters, at most {WIDTH}: break the line"


def _opening(name: str, statements: list[Statement]) -> Iterator[tuple[int, str]]:
    path = PurePosixPath(name)
    begins = f"; {path.name} - "
    header = []
    for statement in statements:
        if not statement.comment or statement.mnemonic or statement.label:
            break
        header.append(statement.comment)
    first = next((number for number, c in enumerate(header, 1) if c.startswith(begins)), None)
    wanted = "what it does" if path.suffix == ".asm" else f"{'|'.join(KINDS)}: what it is about"
    if first is None:
        yield 1, f'no line says what this is: write "{begins}{wanted}" in the comment at its head'
        return
    said = header[first - 1].removeprefix(begins)
    kind = said.partition(":")[0]
    if path.suffix == ".inc" and kind not in KINDS:
        yield first, f'what kind of include file this is is missing: write "{begins}{wanted}"'
    if path.parts[0] == "kernels" and kind != "constants":
        for keyword, sample in KERNEL_KEYWORDS.items():
            if not any(comment.startswith(f"; {keyword}: ") for comment in header):
                yield first, f'the header has no "{keyword}": write "; {keyword}: {sample}"'


def _offsets(statements: list[Statement], sources: _Sources) -> Iterator[tuple[int, str]]:
    zero_page = {
        number: s.label
        for s in sources.get(_ZERO_PAGE, [])
        if s.mnemonic == "equ" and (number := asmtext.value(s.operands[0])) in _ZERO_PAGE_FIELDS
    }
    for statement in statements:
        for operand in statement.operands:
            if operand.startswith(("'", '"', "`")):
                continue
            places = [
                words
                for inside in re.findall(r"\[([^]]*)\]", operand)
                if _POINTERS.intersection(words := asmtext.words(inside.lower()))
            ]
            if statement.mnemonic == "times" and (at := re.match(r"(\w+)\s*-\s*\(", operand)):
                places.append([at.group(1)])
            for word in (word for words in places for word in words):
                number = asmtext.value(word)
                name = zero_page.get(number) or _field(number) if number is not None else ""
                if name:
                    yield statement.number, f"a bare offset in boot_params: for {word} write {name}"


def _field(offset: int) -> str:
    """What the setup header has at an offset, as a source writes it; "" if it is outside."""
    for field in reversed(bootproto.FIELDS):
        if offset in _HEADER and field.offset <= offset < field.end and field.until is None:
            inside = f" + {offset - field.offset}" if offset > field.offset else ""
            return f"boot_params.{field.name}{inside}"
    return ""


def _selectors(statements: list[Statement]) -> Iterator[tuple[int, str]]:
    """Segment registers that get a number for a selector, or the code segment's."""
    holds: dict[str, str] = {}  # what was loaded into a register last
    for statement in statements:
        mnemonic, operands = statement.mnemonic, statement.operands
        if statement.is_global:
            holds.clear()
        if mnemonic == "mov" and len(operands) == 2 and operands[0].lower() in _DATA_SEGMENTS:
            register = asmwrites.REGISTERS.get(operands[1].lower(), ("", 0))[0]
            selector = holds.get(register, "")
            number = asmtext.value(selector) if selector else None
            if number in _SELECTORS or selector == "__BOOT_CS":
                why = "a code segment's" if selector == "__BOOT_CS" or number == 0x10 else "a bare"
                yield (
                    statement.number,
                    f"{operands[0]} gets {selector}, {why} selector: load __BOOT_DS instead",
                )
        far = re.fullmatch(r"(?:dword\s+)?(\w+)\s*:.*", operands[0]) if operands else None
        if mnemonic == "jmp" and far and asmtext.value(far.group(1)) in _SELECTORS:
            yield statement.number, f"a bare selector: for {far.group(1)} write __BOOT_CS"
        for family in asmwrites.of(statement, 0):
            holds.pop(family, None)
        if mnemonic == "mov" and len(operands) == 2 and operands[0].lower() in asmwrites.REGISTERS:
            holds[asmwrites.REGISTERS[operands[0].lower()][0]] = operands[1]


def _direction(statements: list[Statement]) -> Iterator[tuple[int, str]]:
    for place, statement in enumerate(statements):
        if statement.mnemonic != "std":
            continue
        for later in statements[place + 1 :]:
            if later.mnemonic == "cld" or later.mnemonic.startswith("popf"):
                break
            if later.is_global:
                yield statement.number, 'std, and DF stays set: write "cld" where it is done'
                break
        else:
            yield statement.number, 'std, and DF stays set: write "cld" where it is done'


def _promises(name: str, promised: Contract, sources: _Sources) -> Iterator[tuple[int, str]]:
    """What the contract's `reads` and `leaves` say, against what there is in the code."""
    declared = {read.symbol for read in promised.reads}
    program = [s for file in _included(name, sources) for s in sources[file]]
    externs = {word: s.number for s in sources[name] if s.mnemonic == "extern" for word in s.words}
    for symbol, number in externs.items():
        if symbol not in declared:
            yield (
                number,
                f"symbol '{symbol}' is in no `reads` line: write "
                f'"; reads     {symbol} {"|".join(contract.UNITS)} LOW..HIGH" in the header',
            )
    lines = {s.comment.split()[1]: s.number for s in reversed(sources[name]) if _is_prose(s)}
    everywhere = {word for s in program if s.mnemonic == "extern" for word in s.words}
    for symbol in sorted(declared - everywhere):
        number = next(s.number for s in sources[name] if f"; reads     {symbol} " in s.comment)
        yield number, f"symbol '{symbol}' is declared by no `extern {symbol}`: write that, too"
    macros = asmroutines.macros(sources)
    loaded = {s.operands[0].lower() for s in program if s.mnemonic in ("mov", "pop") and s.operands}
    loaded |= {s.mnemonic[1:] for s in program if s.mnemonic in ("lds", "les", "lss")}
    loaded |= {o.lower() for s in program if s.mnemonic in macros for o in s.operands}
    for register in _LOADED:
        value = promised.state.get(register, register)
        if value != register and register not in loaded:
            yield (
                lines["leaves"],
                f"leaves {register}={value}, but nothing loads {register}: "
                f'write "mov {register}, ..." in the code',
            )


def _is_prose(statement: Statement) -> bool:
    return statement.comment.startswith("; ") and len(statement.comment.split()) > 1


def _included(name: str, sources: _Sources) -> list[str]:
    """A file and what it includes, as NASM finds it: beside itself, then in asm/include/."""
    found = [name]
    for file in found:
        for statement in sources[file]:
            if statement.mnemonic == "%include" and statement.operands:
                wanted = statement.operands[0].strip("\"'`")
                beside = (PurePosixPath(name).parent / wanted).as_posix()
                for path in (beside, f"asm/include/{wanted}"):
                    if path in sources and path not in found:
                        found.append(path)
                        break
    return found


def _unused(sources: _Sources) -> Iterator[Finding]:
    used = {word for statements in sources.values() for s in statements for word in s.words}
    used |= {f".{word.partition('.')[2]}" for word in used}  # a local label by its whole name
    for name, statements in sources.items():
        if any(re.match(rf"; {re.escape(PurePosixPath(name).name)} - constants:", s.comment)
               for s in statements):  # fmt: skip
            continue
        for s in statements:
            # What lies at offset 0 has a name, too, and nothing to add.
            if s.mnemonic == "equ" and s.label not in used and s.operands != ("0",):
                yield Finding(name, s.number, f"'{s.label}' is used nowhere: remove it")
