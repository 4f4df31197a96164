"""A circuit breaker: after a failure the store is left alone, and tried again after a while. Pure."""

from __future__ import annotations

import math

import attrs

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


@attrs.define
class Circuit:
    """Whether a store may be asked, after what happened before. All times are seconds on one clock.

    Attributes:
        is_open: Whether the last answer was a failure.
    """

    is_open: bool = False
    _pause: float = _FIRST_PAUSE
    _opened_at: float = -math.inf
    _retry_at: float = -math.inf

    def allows(self, now: float) -> bool:
        """Return whether the store may be asked now. While the circuit is open, one request is let through at times."""
        if not self.is_open:
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + _LONGEST_PAUSE  # unless its outcome is known sooner
        return True

    def record_success(self) -> bool:
        """Record a success; return whether it ends a time of failures."""
        was_open, self.is_open, self._pause = self.is_open, False, _FIRST_PAUSE
        return was_open

    def record_failure(self, begun: float, now: float) -> bool:
        """Record a failure.

        Args:
            begun: When the request was made that failed.
            now: The present time.

        Returns:
            Whether it is the first one since the last answer.
        """
        was_open = self.is_open
        if was_open and begun < self._opened_at:
            return False  # it was in flight beside the first one
        self.is_open = True
        self._opened_at, self._retry_at = now, now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return not was_open
