"""An event loop with a virtual clock: hours pass in milliseconds, and each run gives the same result."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""The wall clock, in seconds since the epoch, when the loop's clock is 0; a multiple of each period that is used."""


class _JumpingSelector(selectors.DefaultSelector):
    """Advances the loop's clock instead of waiting."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            msg = "every task waits, and no timer is set"
            raise RuntimeError(msg)
        if not ready and timeout:
            self.now += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock says `start` at first, in seconds, and advances only while every task waits."""

    def __init__(self, start: float = 0.0) -> None:
        self._jumping = _JumpingSelector(start)
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def block(self, seconds: float) -> None:
        """Advance the clock as code does that holds the loop."""
        self._jumping.now += seconds

    @property
    def timers(self) -> int:
        """The number of timers that are set."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined] # asyncio's own


def wall_clock() -> float:
    """Return the virtual wall clock, in seconds since the epoch."""
    return EPOCH + asyncio.get_running_loop().time()


def run_virtual(main: Coroutine[Any, Any, T], *, start: float = 0.0) -> T:
    """Run a coroutine to its end on a loop with a virtual clock."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start)) as runner:
        return runner.run(main)
