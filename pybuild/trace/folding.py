"""Folds a recorded run: what is executed again and again stands there once, with how often.

A jump back to what was executed before makes a loop of all that was executed since then. Whatever
way a turn takes, each instruction has one row in it. Loops may be in loops.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pybuild.emulate.steps import Step


@dataclass
class Row:
    """One instruction, at this place in the run.

    Attributes:
        address: the instruction's.
        first: the index of the step that executed it first.
        last: that of the step that executed it last.
        times: how many did.
        writes: the ranges that they wrote, [start, end], joined where they follow each other.
    """

    address: int
    first: int
    last: int
    times: int = 1
    writes: list[list[int]] = field(default_factory=list)

    def add(self, other: "Row") -> None:
        """Takes in what was executed later."""
        self.last = other.last
        self.times += other.times
        for low, high in other.writes:
            if self.writes and self.writes[-1][1] == low:
                self.writes[-1][1] = high
            elif self.writes and self.writes[-1][0] == high:
                self.writes[-1][0] = low
            elif [low, high] not in self.writes[-2:]:
                self.writes.append([low, high])


class Loop:
    """Rows that are executed again and again, and the loops among them."""

    def __init__(self) -> None:
        self.body: list[Row | Loop] = []
        self._rows: dict[int, Row] = {}  # all of them, by address

    def find(self, address: int) -> Row | None:
        """The row of an instruction, in this loop or in one inside it."""
        return self._rows.get(address)

    def add(self, node: "Row | Loop") -> None:
        """Takes in what was executed later."""
        rows = [node] if isinstance(node, Row) else list(node.rows())
        if all(row.address not in self._rows for row in rows):
            self.body.append(node)
            self._rows |= {row.address: row for row in rows}
            return
        for row in rows:
            if known := self._rows.get(row.address):
                known.add(row)
            else:
                self.body.append(row)
                self._rows[row.address] = row

    def rows(self) -> Iterator[Row]:
        """All of its rows."""
        yield from self._rows.values()


Node = Row | Loop


def fold(steps: list[Step]) -> list[Node]:
    """The rows of a run, in their order."""
    nodes: list[Node] = []
    before: Step | None = None
    for index, step in enumerate(steps):
        row = Row(step.address, index, index, writes=[list(written) for written in step.writes])
        # A call, which writes its return address, makes no loop.
        if before and step.address <= before.address and not before.writes:
            _close_loop(nodes, step.address)
        last = nodes[-1] if nodes else None
        known = last.find(step.address) if isinstance(last, Loop) else None
        if known:
            known.add(row)
        else:
            nodes.append(row)
        before = step
    return nodes


def _close_loop(nodes: list[Node], address: int) -> None:
    """Makes a loop of all since the instruction that is jumped back to, if it was executed."""
    for at in range(len(nodes) - 1, -1, -1):
        node = nodes[at]
        if isinstance(node, Row):
            if node.address != address:
                continue
            loop = Loop()
            loop.add(node)
        elif node.find(address):
            loop = node
        else:
            continue
        for later in nodes[at + 1 :]:
            loop.add(later)
        nodes[at:] = [loop]
        return
