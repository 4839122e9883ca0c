"""What routines of the NASM sources change: by their instructions, and by what they call.

It is what a routine changes for sure, so that a comment is never called wrong in vain.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pybuild.lint import asmroutines, asmwrites
from pybuild.lint.asmroutines import ENDS, Routine, Sources
from pybuild.lint.asmtext import Statement
from pybuild.lint.asmwrites import FLAGS, Writes


class Effects:
    """What routines change, by their instructions and by the comments of what they call."""

    def __init__(self, sources: Sources, routines: Iterable[Routine]) -> None:
        self._macros = asmroutines.macros(sources)
        self._routines: dict[str, list[Routine]] = {}
        for routine in routines:
            self._routines.setdefault(routine.name, []).append(routine)

    def of(self, routine: Routine) -> Writes:
        """What a routine changes for sure; what it puts back doesn't count.

        What a macro of a macro, an interrupt, an indirect call or a routine that has no comment
        changes is not seen.
        """
        found: Writes = Counter()
        for block in self._blocks(routine):
            if block and self._never_returns(routine, block[-1]):
                continue
            for statement in block:
                asmwrites.add(found, asmwrites.of(statement, routine.bits))
                asmwrites.add(found, self._of_called(routine, statement))
        next_one = self._find(routine, routine.falls_into)
        if next_one is not None and next_one.returns:
            asmwrites.add(found, next_one.claimed)
        restored = _restored(list(self._expanded(routine.body)))
        there = asmwrites.everything(routine.bits)
        return Counter({n: bits for n, bits in found.items() if there[n] and not restored[n]})

    def _blocks(self, routine: Routine) -> list[list[Statement]]:
        """Its instructions from each label to the next, or to where it goes elsewhere for good."""
        blocks: list[list[Statement]] = [[]]
        for statement in self._expanded(routine.body):
            if statement.label:
                blocks.append([])
            blocks[-1].append(statement)
            if statement.mnemonic in ENDS:
                blocks.append([])
        return blocks

    def _never_returns(self, routine: Routine, last: Statement) -> bool:
        called = self._named(routine, last) if last.mnemonic in ("jmp", "call") else None
        return called is not None and not called.returns

    def _of_called(self, routine: Routine, statement: Statement) -> Writes:
        if statement.mnemonic != "call" and not statement.mnemonic.startswith("j"):
            return Counter()
        called = self._named(routine, statement)
        return called.claimed if called is not None and called.returns else Counter()

    def _named(self, routine: Routine, statement: Statement) -> Routine | None:
        """The routine that a call or a jump leads to."""
        target = statement.operands[-1].split()[-1] if statement.operands else ""
        target = target.rpartition(":")[2]
        if statement.mnemonic == "call":
            target = target.partition(".")[0]  # a routine's other entry
        return self._find(routine, target)

    def _find(self, caller: Routine, name: str) -> Routine | None:
        named = self._routines.get(name, [])
        here = [routine for routine in named if routine.file == caller.file] or named
        return here[0] if len(here) == 1 else None  # which of several it is cannot be told

    def _expanded(self, body: list[Statement]) -> Iterable[Statement]:
        for statement in body:
            if statement.mnemonic not in self._macros:
                yield statement
                continue
            macro = self._macros[statement.mnemonic]
            rotates = any(inner.mnemonic == "%rotate" for inner in macro)  # which is %1 is not told
            arguments = {} if rotates else dict(enumerate(statement.operands, 1))
            for inner in macro:
                yield replace(inner, operands=tuple(_filled(o, arguments) for o in inner.operands))


def _filled(operand: str, arguments: Mapping[int, str]) -> str:
    return re.sub(r"%(\d)", lambda m: arguments.get(int(m.group(1)), m.group()), operand)


def _restored(body: list[Statement]) -> Writes:
    """What a routine puts back at its end: what it pops, or has moved away and moves back."""
    found: Writes = Counter()
    moves = {tuple(s.operands) for s in body if s.mnemonic == "mov"}
    for statement in body:
        mnemonic, operands = statement.mnemonic, statement.operands
        if mnemonic in ("popa", "popad", "popaw"):
            found.update(dict.fromkeys(asmwrites.GENERAL, 1))
        elif mnemonic.startswith("popf"):
            found[FLAGS] = 1
        elif mnemonic == "pop" and operands:
            popped = dict.fromkeys(asmwrites.GENERAL, 1) if "%" in operands[0] else None
            found.update(popped or asmwrites.named(operands[0]))
        elif mnemonic == "mov" and operands[::-1] in moves:
            found.update(asmwrites.named(operands[0]))
    return found
