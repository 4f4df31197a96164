"""The rate limit as the API counts it: what a window admits, and what its headers say."""

from __future__ import annotations

import math
from typing import Literal

Rounding = Literal["up", "nearest", "down"]


class FixedWindow:
    """A calendar-aligned rate limit. It has no clock: the server's time comes in as seconds since the epoch.

    Windows begin at whole multiples of the period. Its time never runs backwards, though clocks do.
    Source: https://docs.datadoghq.com/api/latest/rate-limits/

    Args:
        limit: Requests allowed in a period.
        period: Its length in seconds.
        rounding: How the seconds to the next window become whole: `"up"` is never 0, the others may be.
        used: Requests spent already of the first window that it comes to know.
    """

    def __init__(self, limit: int, period: float, rounding: Rounding = "up", used: int = 0) -> None:
        self.limit = limit
        self.period = period
        self.rounding = rounding
        self._used = used
        self._now = -math.inf
        self._window: float | None = None

    def advance(self, now: float) -> None:
        """Let time pass until `now`."""
        self._now = max(now, self._now)
        window = self._now // self.period
        if self._window is not None and window != self._window:
            self._used = 0
        self._window = window

    def spend(self, now: float) -> tuple[bool, dict[str, str]]:
        """Count a request at `now` unless the window is used up.

        Returns:
            Whether it is admitted, and the rate-limit headers of its answer.
        """
        self.advance(now)
        admitted = self._used < self.limit
        self._used += admitted
        return admitted, {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Period": f"{self.period:f}".rstrip("0").rstrip("."),
            "X-RateLimit-Remaining": str(max(0, self.limit - self._used)),
            "X-RateLimit-Reset": str(self._reset()),
            "X-RateLimit-Name": "service_account_access_tokens",
        }

    def _reset(self) -> int:
        left = self.period - self._now % self.period
        if self.rounding == "up":
            return math.ceil(left)
        return math.floor(left + 0.5 if self.rounding == "nearest" else left)
