"""How the last requests of a crowded window are sent: one by one, each client at its own moment."""

from __future__ import annotations

import math

import attrs

_TICK = 0.001  # seconds; the least wait, so that rounding does not keep a client awake
_LEAST_TIME = 0.02  # seconds until a window's end that are reckoned with at least


def kept_back(factor: float, limit: int) -> float:
    """Return how many requests `factor` clients leave unused, because they cannot see each other's last ones."""
    return min(1.5 * math.sqrt(factor), 0.05 * limit)


@attrs.define
class Pace:
    """The last requests of a crowded window, spread over the time that is left.

    Many clients that see the same few requests left would send together. So each takes its share of them one by one,
    from a random moment on.

    Attributes:
        credit: Requests that may be sent now; it grows with time.
        rate: How fast it grows, in requests a second.
    """

    credit: float
    rate: float = 0.0
    _at: float = math.inf
    _left: float | None = None

    def record_send(self) -> None:
        """Spend a request of the share."""
        self.credit -= 1.0

    def advance(self, left: float, factor: float, limit: int, now: float, end: float) -> float:
        """Return for how many seconds no request may be sent; 0 if one may be sent now.

        The rate is set by each new count alone: between two counts the others are expected to spend as we do.
        """
        self.credit = min(self.credit + self.rate * max(now - self._at, 0.0), 1.5)
        self._at = now
        if left != self._left:
            self._left = left
            # Each client begins a window with one request; those of the others may not be in the count yet.
            share = (min(left, limit - factor) - kept_back(factor, limit)) / factor
            self.rate = max(share, 0.0) / max(end - now, _LEAST_TIME)
        if self.credit >= 1.0:
            return 0.0
        return max((1.0 - self.credit) / self.rate, _TICK) if self.rate else math.inf
