"""Timing things that take turns, so that a slow minute of the machine hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

_K = TypeVar("_K")

# Rounds by how long one takes: what takes long varies little, and is dear.
_DEAR: Final = 2.0  # seconds
_LEAST: Final = 3
_ROUNDS: Final = ((8.0, _LEAST), (_DEAR, 5), (0.0, 15))


@dataclass(frozen=True, slots=True)
class Sample:
    """How often something was timed, and the seconds that it took."""

    rounds: int
    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Sample":
        ordered = sorted(seconds)
        return cls(len(ordered), ordered[0], statistics.median(ordered), ordered[-1])


def interleaved(
    things: Mapping[_K, Callable[[], float]],
    *,
    most: int,
    seconds: float,
    progress: Callable[[str], None],
) -> dict[_K, Sample]:
    """Times everything once a round, every other round backwards, until each has its rounds.

    Args:
        things: what each thing's time is told by.
        most: rounds that even the fastest gets.
        seconds: no round begins that would end after so long; the first always runs. When the
            rounds that are left would not fit, the dearest get no more than _LEAST of them.
        progress: is told of each round.
    """
    end = time.monotonic() + seconds
    times: dict[_K, list[float]] = {thing: [] for thing in things}
    pending = list(things)
    number = 0
    while pending:
        began = time.monotonic()
        for thing in pending if number % 2 == 0 else reversed(pending):
            times[thing].append(things[thing]())
        number += 1
        progress(f"round {number}: {len(pending)} in {time.monotonic() - began:.1f} s")
        cost = {thing: statistics.median(times[thing]) for thing in pending}
        left = {t: min(most, _rounds(cost[t])) - number for t in pending}
        pending = [thing for thing in pending if left[thing] > 0]
        dear = sorted((t for t in pending if cost[t] >= _DEAR), key=lambda thing: cost[thing])
        while number >= _LEAST and dear and time.monotonic() + _plan(pending, cost, left) > end:
            pending.remove(dear.pop())
        if time.monotonic() + sum(cost[thing] for thing in pending) > end:
            break
    return {thing: Sample.of(seconds) for thing, seconds in times.items()}


def _plan(pending: list[_K], cost: dict[_K, float], left: dict[_K, int]) -> float:
    """Seconds that all the rounds take that are left."""
    return sum(cost[thing] * left[thing] for thing in pending)


def _rounds(cost: float) -> int:
    return next(rounds for limit, rounds in _ROUNDS if cost >= limit)
