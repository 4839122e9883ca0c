"""Choosing the cases of a matrix: as good as every pair of values, in far fewer cases than all."""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

Case = Mapping[str, Hashable]


def choose(
    rows: Sequence[Case],
    axes: Mapping[str, Sequence[Hashable]],
    allowed: Callable[[Case], bool],
) -> list[Case]:
    """Gives each row a value on every other axis, so that as many pairs as possible are there.

    Greedy, and always the same for the same input. Once every pair is there, those that are there
    least often come next, so that no value is a rare one.

    Args:
        rows: what is given of each case, at least one axis.
        axes: the other axes, and the values on each.
        allowed: whether a whole case makes sense.
    """
    seen: Counter[object] = Counter()
    chosen: list[Case] = []
    for row in rows:
        choices = [
            case
            for values in itertools.product(*axes.values())
            if allowed(case := {**row, **dict(zip(axes, values, strict=True))})
        ]
        best = min(choices, key=lambda case: _worth(case, seen))
        seen.update(pairs(best))
        chosen.append(best)
    return chosen


def pairs(case: Case) -> Iterator[tuple[tuple[str, Hashable], ...]]:
    """Every two values of a case, with their axes."""
    return itertools.combinations(sorted(case.items(), key=lambda item: item[0]), 2)


def _worth(case: Case, seen: Mapping[object, int]) -> tuple[int, int]:
    """The lower the more it adds: how many pairs were there before, then how often in all."""
    counts = [seen.get(pair, 0) for pair in pairs(case)]
    return sum(map(bool, counts)), sum(counts)
