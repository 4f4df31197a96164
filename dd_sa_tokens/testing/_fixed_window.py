"""The rate limit as the API counts it: what a window admits, and what the headers say."""

from __future__ import annotations

import math
from typing import Literal

Rounding = Literal["up", "nearest", "down"]


class FixedWindow:
    """A fixed-window rate limit, aligned to the calendar.

    Windows begin at whole multiples of the period. The class has no clock: each call gives the server's time, in
    seconds since the epoch. A time that goes backwards counts as the latest time so far.
    Source: https://docs.datadoghq.com/api/latest/rate-limits/

    Args:
        limit: Requests allowed in a period.
        period: The length of the period in seconds.
        rounding: How the seconds until the next window become a whole number: `"up"` by default, `"nearest"` or
            `"down"`. `"up"` never gives 0; the others may.
        used: Requests that the first window has spent already; 0 by default. The first call decides which window is
            the first.
        name: The name of the limit, sent as `X-RateLimit-Name`; `service_account_access_tokens` by default.

    Attributes:
        limit: Requests allowed in a period.
        period: The length of the period in seconds.
        rounding: How the seconds until the next window become a whole number.
        name: The name of the limit.
    """

    def __init__(
        self,
        limit: int,
        period: float,
        rounding: Rounding = "up",
        used: int = 0,
        name: str = "service_account_access_tokens",
    ) -> None:
        self.limit = limit
        self.period = period
        self.rounding = rounding
        self.name = name
        self._used = used
        self._now = -math.inf
        self._window: float | None = None

    def advance(self, now: float) -> None:
        """Let time pass.

        Args:
            now: The server's time, in seconds since the epoch.
        """
        self._now = max(now, self._now)
        window = self._now // self.period
        if self._window is not None and window != self._window:
            self._used = 0
        self._window = window

    def spend(self, now: float) -> tuple[bool, dict[str, str]]:
        """Count a request, unless the window is used up.

        Args:
            now: The server's time, in seconds since the epoch.

        Returns:
            Whether the request is admitted, and the rate-limit headers of its answer.
        """
        self.advance(now)
        admitted = self._used < self.limit
        self._used += admitted
        return admitted, {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Period": f"{self.period:f}".rstrip("0").rstrip("."),
            "X-RateLimit-Remaining": str(max(0, self.limit - self._used)),
            "X-RateLimit-Reset": str(self._reset()),
            "X-RateLimit-Name": self.name,
        }

    def _reset(self) -> int:
        left = self.period - self._now % self.period
        if self.rounding == "up":
            return math.ceil(left)
        return math.floor(left + 0.5 if self.rounding == "nearest" else left)
