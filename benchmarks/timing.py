"""How everything here is timed: cases take turns in random order, and each gives a sample in each round."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import attrgetter
from typing import Self, TypeVar

import attrs

from .processes import cpu_seconds

Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")


@attrs.frozen
class Sample:
    """Seconds for each item: by the clock, and of CPU time of this process and of the server's."""

    wall: float
    cpu: float
    server: float = 0.0  # 0 where there is no server, or no /proc


class Stopwatch:
    """Times what happens in its context, after a garbage collection. `server_pid` is the process of the server."""

    def __init__(self, server_pid: int | None = None) -> None:
        self._server_pid = server_pid

    def __enter__(self) -> Self:
        gc.collect()
        self._start = self._read()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end = self._read()

    def sample(self, items: int) -> Sample:
        """Return the seconds for each of so many items."""
        return Sample(*((end - start) / items for start, end in zip(self._start, self._end, strict=True)))

    def _read(self) -> tuple[float, float, float]:
        server = 0.0 if self._server_pid is None else cpu_seconds(self._server_pid)
        return time.perf_counter(), time.process_time(), server


def interleave(cases: Mapping[Key, Callable[[], T]], rounds: int) -> dict[Key, list[T]]:
    """Run each case once in each round, each round in another order, and return what each gave.

    A slow minute of the machine then meets all cases alike. What was imported before is kept out of the garbage
    collector, so that one case does not pay for another's modules.
    """
    order = random.Random(8)
    found: dict[Key, list[T]] = {key: [] for key in cases}
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            for key in order.sample(list(cases), len(cases)):
                found[key].append(cases[key]())
    finally:
        gc.unfreeze()
    return found


def median(samples: Iterable[object], attribute: str) -> float:
    """Return the median of an attribute."""
    return float(statistics.median(map(attrgetter(attribute), samples)))


def ratios(ours: list[Sample], theirs: list[Sample], attribute: str) -> list[float]:
    """Return their seconds over ours, round by round: above 1, ours is faster."""
    read = attrgetter(attribute)
    return [read(their) / read(our) for our, their in zip(ours, theirs, strict=True)]
