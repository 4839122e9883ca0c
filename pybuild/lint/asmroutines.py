"""Routines of the NASM sources, and the comments that say what they take, give and spoil.

A routine is a label without a dot that something calls, whose address something takes, or that
another source jumps to; or that says itself that it is one. What a source begins with is none: its
contract is in the header. The comment stands above the label:

    ; copy: copies upwards; a line or more that say what it does.
    ; In:       esi = from, edi = to, ecx = bytes
    ; Out:      nothing
    ; Clobbers: ecx, esi, edi, flags

A value goes on in the next line from column 13 on. Clobbers are registers and `flags`, or
`everything`, also `everything but ...`; what Out names is changed, too, and not repeated. `nothing`
stands where there is nothing; a routine that never comes back has the Out `does not return`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pybuild.lint import asmwrites
from pybuild.lint.asmtext import DATA, Statement, names
from pybuild.lint.asmwrites import Writes

KEYWORDS: Final = ("In", "Out", "Clobbers")
_LINE: Final = re.compile(rf"; ({'|'.join(KEYWORDS)}):\s*(.*)")
_COLUMN: Final = 13
_NO_RETURN: Final = "does not return"
_DEFINITIONS: Final = {"%macro": "%endmacro", "%imacro": "%endmacro", "struc": "endstruc"}
ENDS: Final = frozenset(("jmp", "ret", "retf", "retfq", "iret", "iretd", "iretq"))
_DIRECTIVES: Final = names(
    "section segment bits extern global org align times istruc iend at struc endstruc "
    "incbin default use16 use32 use64 absolute common cpu equ"
)
# What is looked at together: the statements of each file.
Sources = Mapping[str, list[Statement]]


@dataclass
class Routine:
    """A routine.

    Attributes:
        file: where it is.
        name: its label.
        number: the label's line.
        comment: the comment above it, by line.
        says: the values of its In, Out and Clobbers lines.
        body: its instructions.
        bits: of its code; 0 where its file leaves that to who includes it.
        falls_into: the global label that it goes on into; "" if it ends before.
    """

    file: str
    name: str
    number: int
    comment: list[Statement]
    bits: int = 0
    says: dict[str, str] = field(default_factory=dict)
    body: list[Statement] = field(default_factory=list)
    falls_into: str = ""

    @property
    def claimed(self) -> Writes:
        """What may be changed by its comment."""
        text = self.says.get("Clobbers", "")
        spoilt = asmwrites.named(text)
        if (match := re.match(r"everything\b(.*)", text)) is not None:
            kept = asmwrites.named(match.group(1))
            all_of_it = asmwrites.everything(self.bits)
            spoilt = Counter({name: bits & ~kept[name] for name, bits in all_of_it.items()})
        asmwrites.add(spoilt, asmwrites.named(self.says.get("Out", "")))
        return spoilt

    @property
    def returns(self) -> bool:
        """Whether it ever comes back."""
        return not self.says.get("Out", "").startswith(_NO_RETURN)


def is_code(statement: Statement, known: Iterable[str]) -> bool:
    """Whether it is an instruction: no directive, no data and none of the known macros."""
    mnemonic = statement.mnemonic
    return (
        bool(re.fullmatch(r"[a-z][a-z0-9]*", mnemonic))
        and mnemonic not in _DIRECTIVES
        and mnemonic not in DATA
        and mnemonic not in known
    )


def find(sources: Sources) -> list[Routine]:
    """Every routine, by file and line."""
    known = macros(sources)
    used = _used(sources, known)
    found = []
    for file, statements in sources.items():
        entry = _entry(statements, known) if file.endswith(".asm") else None
        for place, statement in enumerate(statements):
            if not statement.is_global or statement.mnemonic == "equ" or statement is entry:
                continue
            routine = _routine(file, statements, place, known)
            wanted = used[file, statement.label] - {f"jmp {file}"} and _begins_with_code(
                statements[place:], known
            )
            if wanted or routine.says:
                found.append(routine)
    return found


def macros(sources: Sources) -> dict[str, list[Statement]]:
    """The body of each macro, by its name in lower case."""
    found: dict[str, list[Statement]] = {}
    for statements in sources.values():
        body = None
        for statement in statements:
            if statement.mnemonic in ("%macro", "%imacro") and statement.operands:
                body = found[statement.operands[0].split()[0].lower()] = []
            elif statement.mnemonic == "%endmacro":
                body = None
            elif body is not None:
                body.append(statement)
    return found


def _entry(statements: list[Statement], known: Iterable[str]) -> Statement | None:
    """What the program begins with, if it has a label."""
    inside = ""  # what the definition of a macro or a structure ends with
    for statement in statements:
        if inside or statement.mnemonic in _DEFINITIONS:
            inside = inside or _DEFINITIONS[statement.mnemonic]
            inside = "" if statement.mnemonic == inside else inside
        elif statement.is_global and statement.mnemonic != "equ":
            return statement
        elif is_code(statement, known):
            return None
    return None


def _begins_with_code(statements: list[Statement], known: Iterable[str]) -> bool:
    return is_code(next((s for s in statements if s.mnemonic), Statement(0)), known)


def _used(sources: Sources, known: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """How each file's labels are used: `jmp FILE` by a jump there, else by address or a call.

    What a file names is its own, if it has that, else anybody's.
    """
    everywhere = [(file, s) for file, statements in sources.items() for s in statements]
    homes: dict[str, set[str]] = {}
    for file, statement in everywhere:
        if statement.is_global:
            homes.setdefault(statement.label, set()).add(file)
    found: dict[tuple[str, str], set[str]] = {
        (file, name): set() for name, files in homes.items() for file in files
    }
    for file, statement in everywhere:
        mnemonic = statement.mnemonic
        jumps = mnemonic.startswith(("j", "loop"))
        if not (is_code(statement, known) or mnemonic in known or mnemonic in (*DATA, "at")):
            continue
        for operand in statement.operands:
            words = [word for word in re.findall(r"[.$\w?@#~%]+", operand) if word in homes]
            # A difference of labels is a distance, not an address.
            if words and not re.search(r"-\s*[A-Za-z_$]", operand):
                for word in words:
                    for home in {file} & homes[word] or homes[word]:
                        found[home, word].add(f"jmp {file}" if jumps else "address")
    return found


def _routine(
    file: str, statements: list[Statement], place: int, known: Mapping[str, list[Statement]]
) -> Routine:
    above = place
    while above and _only_comment(statements[above - 1]):
        above -= 1
    label = statements[place]
    routine = Routine(file, label.label, label.number, statements[above:place])
    for statement in reversed(statements[:place]):
        if statement.mnemonic == "bits" and statement.operands:
            routine.bits = int(statement.operands[0]) if statement.operands[0].isdigit() else 0
            break
    keyword = ""
    for line in routine.comment:
        if match := _LINE.match(line.comment):
            keyword = match.group(1)
            routine.says[keyword] = match.group(2)
        elif keyword:
            routine.says[keyword] += " " + line.comment[1:].strip()
    ended = False
    for statement in statements[place:]:
        if statement.is_global and statement is not label:
            if not ended:
                routine.falls_into = statement.label
            break
        if statement.mnemonic in ("section", "segment", "%endmacro"):
            break
        if is_code(statement, known) or statement.mnemonic in known:
            routine.body.append(statement)
            ended = _last(statement, known) in ENDS
    return routine


def _last(statement: Statement, known: Mapping[str, list[Statement]]) -> str:
    """The mnemonic of an instruction, or of a macro's last one."""
    body = [s.mnemonic for s in known.get(statement.mnemonic, ()) if is_code(s, known)]
    return body[-1] if body else statement.mnemonic


def _only_comment(statement: Statement) -> bool:
    return bool(statement.comment) and not statement.mnemonic and not statement.label


def problems(routine: Routine, changed: Writes) -> Iterable[tuple[int, str]]:
    """What is wrong with the comment of a routine, by line; `changed` is what it changes."""
    who = f"routine '{routine.name}'"
    first = routine.comment[0] if routine.comment else None
    if first is None or not first.comment.startswith(f"; {routine.name}: "):
        yield (
            first.number if first else routine.number,
            f"{who} has no line that says what it does: "
            f'begin the comment above its label with "; {routine.name}: ..."',
        )
    missing = Counter({n: bits & ~routine.claimed[n] for n, bits in changed.items()})
    lacking = [asmwrites.name(n, changed[n], routine.bits) for n in asmwrites.ORDER if missing[n]]
    samples = {"In": "what it takes", "Out": "what it gives", "Clobbers": ", ".join(lacking)}
    for keyword in KEYWORDS:
        sample = f"; {keyword + ':':<{_COLUMN - 4}} {samples[keyword] or 'nothing'}"
        if keyword not in routine.says:
            yield routine.number, f'{who} has no {keyword}: write "{sample}" above its label'
    if list(routine.says) != [k for k in KEYWORDS if k in routine.says]:
        yield routine.number, f"{who}: write {', '.join(KEYWORDS)} in this order"
    for line in routine.comment:
        match = _LINE.match(line.comment)
        if match and match.start(2) != _COLUMN - 1:
            keyword = match.group(1)
            yield (
                line.number,
                f'{who}: write "; {keyword + ":":<{_COLUMN - 4}} {match.group(2)}", '
                f"its value in column {_COLUMN}",
            )
    says = routine.says.get("Clobbers")
    if says is not None and not (asmwrites.named(says) or re.match("nothing|everything", says)):
        yield routine.number, f"{who}: Clobbers says {says!r}: write registers, flags or nothing"
    elif says is not None and lacking:
        more = ", ".join(lacking)
        text = more if says == "nothing" else f"{says}, {more}"
        yield (
            routine.number,
            f"{who} changes {more}, and says so neither in Clobbers nor in Out: "
            f'write "; Clobbers: {text}"',
        )
