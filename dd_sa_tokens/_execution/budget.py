"""The budget that keeps retries from making an outage worse."""

from __future__ import annotations

from collections.abc import Callable


class RetryBudget:
    """What all calls of a client together may spend on retries: during an outage they must not multiply the load.

    A full budget holds 100 retries. Five successes give one back, and so does each second.

    Args:
        now: The clock, in seconds.
    """

    capacity = 100.0
    per_success = 0.2
    per_second = 1.0

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._left = self.capacity
        self._counted_at = now()

    def take(self) -> bool:
        """Spend one retry; return whether there was one."""
        now = self._now()
        self._left = min(self._left + (now - self._counted_at) * self.per_second, self.capacity)
        self._counted_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def record_success(self) -> None:
        """Earn back a part of a retry."""
        self._left = min(self._left + self.per_success, self.capacity)
