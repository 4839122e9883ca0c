"""The contract in a source's header comment, in a form that programs can read.

The header is the comment block that a source begins with. In it stand, one after the other, the
lines of the contract: a keyword in column 2, its operand from column 12 on. Around them is prose,
which an empty comment line sets off:

    ; enter     MODE [ADDRESS]          who enters: real16, protected32 or long64
    ; in        REGISTER text           what a register holds on entry
    ; reads     SYMBOL UNIT LOW..HIGH   an undefined symbol, that the linker fills in
    ; needs     CONDITION               what the caller sees to beyond the ranges
    ; writes    START..END              memory that may change, end exclusive; nothing else may
    ; moves     START..END TO           what was there is at TO when it leaves, as by memmove()
    ; stores    START..END VALUE        what is there when it leaves, little-endian
    ; preserves REGISTER ...            unchanged when it leaves
    ; clobbers  REGISTER ...            undefined when it leaves; what is in no line is unchanged
    ; leaves    TARGET REGISTER=VALUE ...   where it goes next, an address or SEGMENT:OFFSET
    ; limit     BYTES                   how large the flat binary may get

Expressions add, subtract and multiply numbers, symbols, the registers' values on entry and `$$`,
the address of the binary itself. Prose may follow an expression behind two blanks.
`moves` and `stores` permit nothing: what they are about stands in `writes`, too.
The build holds a source to `reads` and `limit`, the contract tests and `bootsplice trace` to all
the rest.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pybuild.arch import MODES
from pybuild.errors import BuildError
from pybuild.flat import BASE_SYMBOL, FlatBinary

UNITS: Final = ("address", "bytes", "value")
KEYWORDS: Final = (
    "enter",
    "in",
    "reads",
    "needs",
    "writes",
    "moves",
    "stores",
    "preserves",
    "clobbers",
    "leaves",
    "limit",
)
GENERAL: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs")
_WIDE: Final = tuple(f"r{name}" for name in ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di"))
LONG: Final = (*_WIDE, *(f"r{number}" for number in range(8, 16)))
WIDE: Final = dict(zip(GENERAL, _WIDE, strict=True))  # each register by the name of its low half
FLAGS: Final = ("df", "if")
_LINE: Final = re.compile(rf"^; (?=.{{10}}\S)({'|'.join(KEYWORDS)}) +(.*)$")
_OPERAND_COLUMN: Final = 12
_NUMBER: Final = re.compile(r"-?(0x[0-9a-fA-F]+|0|[1-9][0-9]*)")
_BASE_NAME: Final = "_base"  # what Python's parser reads in the place of $$

_BINARY: Final[Mapping[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[int, int], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
}


@dataclass(frozen=True, slots=True)
class Read:
    """An undefined symbol that a source reads: its unit and its range, both ends included."""

    symbol: str
    unit: str
    low: int
    high: int


@dataclass
class Contract:
    """What a source promises and what it asks for; the attributes are the keywords.

    `numbers` has the lines of the source, from 1, that each keyword stands in.
    """

    source: Path
    enter: str = ""
    address: int | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    writes: list[tuple[str, str]] = field(default_factory=list)
    moves: list[tuple[str, str, str]] = field(default_factory=list)
    stores: list[tuple[str, str, str]] = field(default_factory=list)
    preserves: list[str] = field(default_factory=list)
    clobbers: list[str] = field(default_factory=list)
    leaves: str = ""
    state: dict[str, str] = field(default_factory=dict)
    limit: int = 0
    numbers: dict[str, list[int]] = field(default_factory=dict, compare=False)

    @property
    def registers(self) -> tuple[str, ...]:
        """The registers that there are in its mode."""
        return (*GENERAL, *SEGMENTS, *(LONG if self.enter == "long64" else ()))

    def check(self, binary: FlatBinary) -> None:
        """Holds a linked binary to what can be seen without running it.

        Raises:
            BuildError: it reads another set of symbols, or cannot hold the values that it says
                it takes, is larger than it may get, or its contract has names that mean nothing.
        """
        self._check_names()
        self._check_ranges(binary)
        declared = {read.symbol for read in self.reads}
        for symbol in sorted(binary.undefined ^ declared):
            problem = (
                "is declared by `reads`, but the code has no relocation for it"
                if symbol in declared
                else "is undefined in the code, but no `reads` line declares it"
            )
            raise BuildError(f"{self.source}: symbol '{symbol}' {problem}")
        if len(binary.code) > self.limit:
            raise BuildError(
                f"{self.source}: {len(binary.code)} bytes, but its `limit` is {self.limit}"
            )

    def _check_names(self) -> None:
        named = [("in", self.inputs), ("preserves", self.preserves), ("clobbers", self.clobbers)]
        named.append(("leaves", [name for name in self.state if name not in FLAGS]))
        for keyword, names in named:
            for name in names:
                if name not in self.registers:
                    raise BuildError(
                        f"{self.source}: contract line `{keyword}`: '{name}' is no register, "
                        f"expected one of {', '.join(self.registers)}"
                    )
        known = dict.fromkeys([*self.registers, *(read.symbol for read in self.reads)], 1)
        expressions = [("needs", need) for need in self.needs]
        expressions += [("writes", bound) for pair in self.writes for bound in pair]
        expressions += [("moves", part) for move in self.moves for part in move]
        expressions += [("stores", part) for store in self.stores for part in store]
        expressions += [("leaves", part) for part in self.leaves.split(":")]
        expressions += [("leaves", value) for value in self.state.values()]
        for keyword, expression in expressions:
            try:
                evaluate(expression, {**known, BASE_SYMBOL: 1})
            except ValueError as error:
                raise BuildError(
                    f"{self.source}: contract line `{keyword}`: {expression!r}: {error}"
                ) from error

    def _check_ranges(self, binary: FlatBinary) -> None:
        for read in self.reads:
            for relocation in binary.relocations:
                if relocation.symbol != read.symbol or relocation.kind.pc_relative:
                    continue
                low, high = relocation.kind.bounds()
                if not low <= read.low + relocation.addend <= read.high + relocation.addend <= high:
                    raise BuildError(
                        f"{self.source}: symbol '{read.symbol}' may be {read.low:#x}.."
                        f"{read.high:#x} by its `reads` line, but the {relocation.type} at offset "
                        f"{relocation.offset:#x} holds only {low:#x}..{high:#x}"
                    )


def evaluate(expression: str, names: Mapping[str, int]) -> int:
    """The value of an expression of a contract; conditions give 0 or 1.

    Raises:
        ValueError: it is no such expression, or has a name that `names` lacks.
    """
    try:
        tree = ast.parse(expression.strip().replace(BASE_SYMBOL, _BASE_NAME), mode="eval")
        base = {_BASE_NAME: names[BASE_SYMBOL]} if BASE_SYMBOL in names else {}
        return _value(tree.body, {**names, **base})
    except SyntaxError as error:
        raise ValueError(f"not an expression: {expression!r}") from error


def _value(node: ast.expr, names: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Name(id=name):
            raise ValueError(f"unknown name {name.replace(_BASE_NAME, BASE_SYMBOL)!r}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return int(_COMPARE[type(op)](_value(left, names), _value(right, names)))
        case ast.BoolOp(op=ast.Or(), values=values):
            return int(any(_value(value, names) for value in values))
        case ast.BoolOp(op=ast.And(), values=values):
            return int(all(_value(value, names) for value in values))
    raise ValueError(f"not allowed in a contract: {ast.unparse(node)!r}")


def read(source: Path) -> Contract:
    """Reads the contract at the head of a source.

    Raises:
        BuildError: a keyword is missing or its operand cannot be read; the message names the line.
    """
    contract = Contract(source)
    begun = ended = False
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BuildError(f"{source}: not UTF-8 text: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(";"):
            break
        match = _LINE.match(line)
        is_contract = match is not None and match.start(2) == _OPERAND_COLUMN
        ended = ended or (begun and line.strip() == ";")
        begun = begun or is_contract
        if is_contract == (begun and not ended):
            if match and is_contract:
                _take_line(contract, match, f"{source}:{number}")
                contract.numbers.setdefault(match[1], []).append(number)
            continue
        raise BuildError(
            f"{source}:{number}: found {line!r}, expected "
            + ("no contract line behind the contract's end" if ended else "a contract line")
            + f"; a keyword ({', '.join(KEYWORDS)}) stands in column 2, its operand in column 12"
        )
    for keyword in ("enter", "leaves", "limit"):
        if not getattr(contract, keyword):
            raise BuildError(
                f"{source}: the header comment has no `{keyword}` line; "
                "see docs/architecture.md for the form of a contract"
            )
    return contract


def _take_line(contract: Contract, match: re.Match[str], where: str) -> None:
    try:
        _take(contract, match.group(1), match.group(2))
    except ValueError as error:
        raise BuildError(f"{where}: contract line `{match.group(1)}`: {error}") from error


def _take(contract: Contract, keyword: str, operand: str) -> None:
    words = operand.split()
    if keyword in ("enter", "leaves", "limit") and getattr(contract, keyword):
        raise ValueError("stands there twice")
    match keyword:
        case "enter":
            contract.enter = _one_of(words[0], MODES)
            if len(words) > 1 and words[1].startswith("0x"):
                contract.address = _number(words[1])
        case "in":
            contract.inputs[words[0]] = " ".join(words[1:])
        case "reads":
            if len(words) < 3:
                raise ValueError(f"expected SYMBOL UNIT LOW..HIGH, found {operand!r}")
            low, high = (_number(bound) for bound in _range(words[2]))
            if low > high or words[0] in (read.symbol for read in contract.reads):
                raise ValueError(f"expected one line a symbol and LOW..HIGH, found {operand!r}")
            contract.reads.append(Read(words[0], _one_of(words[1], UNITS), low, high))
        case "needs":
            contract.needs.append(_before_text(operand))
        case "writes":
            contract.writes.append(_range(_before_text(operand)))
        case "moves":
            contract.moves.append(_range_and_expression(operand, "TO"))
        case "stores":
            contract.stores.append(_range_and_expression(operand, "VALUE"))
        case "preserves":
            contract.preserves += words
        case "clobbers":
            contract.clobbers += words
        case "leaves":
            contract.leaves = words[0]
            contract.state.update(_assignment(word) for word in words[1:])
        case "limit":
            contract.limit = _number(words[0])
            if contract.limit <= 0:
                raise ValueError(f"found {words[0]}, expected a number of bytes above 0")


def _number(word: str) -> int:
    if not _NUMBER.fullmatch(word):
        raise ValueError(f"found {word!r}, expected a number, as 512 or 0x200")
    return int(word, 0)


def _before_text(operand: str) -> str:
    """An operand up to the prose behind it, which two blanks set off."""
    return operand.split("  ", 1)[0]


def _range(text: str) -> tuple[str, str]:
    low, separator, high = text.partition("..")
    if not (low and separator and high):
        raise ValueError(f"expected LOW..HIGH, found {text!r}")
    return low, high


def _range_and_expression(operand: str, what: str) -> tuple[str, str, str]:
    words = _before_text(operand).split()
    if len(words) != 2:
        raise ValueError(f"expected START..END {what}, found {operand!r}")
    return *_range(words[0]), words[1]


def _assignment(word: str) -> tuple[str, str]:
    register, separator, value = word.partition("=")
    if not (register and separator and value):
        raise ValueError(f"expected REGISTER=VALUE, found {word!r}")
    return register, value


def _one_of(word: str, allowed: tuple[str, ...]) -> str:
    if word not in allowed:
        raise ValueError(f"found {word!r}, expected one of {', '.join(allowed)}")
    return word
