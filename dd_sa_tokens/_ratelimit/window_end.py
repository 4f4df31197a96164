"""When the current window ends: an interval of the loop's clock that each answer narrows.

`sent` and `received` are always on the event loop's clock. The package's docstring explains the theory.
"""

from __future__ import annotations

import math

import attrs

_MARGIN = 0.01  # seconds after the expected end: clocks and timers are not exact


@attrs.define
class WindowEnd:
    """When the current window ends: at a moment in [lo, hi] on the loop's clock.

    Attributes:
        lo: Not before this, if the server rounds as assumed.
        hi: Not after this, if the server rounds as assumed.
        after: Not before this, however the server rounds: a request sent then was answered from this window.
        period: Seconds from end to end; `None` while unknown.
        skew: The wall clock's time less the loop's, in seconds.
        rounding_offset: Seconds by which the server's rounding differs from rounding up: 0, 0.5 or 1.
    """

    lo: float = -math.inf
    hi: float = math.inf
    after: float = -math.inf
    period: float | None = None
    skew: float = 0.0
    rounding_offset: float = 0.0

    def set_clock(self, period: float | None, skew: float) -> None:
        """Take over the length of the windows and the difference of the two clocks, in seconds."""
        self.period, self.skew = period, skew

    def interval_of(self, sent: float, received: float, reset: float | None) -> tuple[float, float]:
        """Return the interval in which one answer by itself puts the end."""
        if reset is None:
            return sent, received + (self.period or 0.0)
        return sent + reset - 1 + self.rounding_offset, received + reset + self.rounding_offset

    def overlaps(self, lo: float, hi: float) -> bool:
        """Return whether the end can be in another interval as well."""
        return max(lo, self.lo) <= min(hi, self.hi)

    def observe(self, sent: float, received: float, reset: float | None) -> None:
        """Narrow the interval by one answer. Start over where the answer contradicts it: a clock was set."""
        lo, hi = self.interval_of(sent, received, reset)
        if self.overlaps(lo, hi):
            lo, hi = max(lo, self.lo), min(hi, self.hi)
        self.lo, self.hi, self.after = lo, hi, max(sent, self.after)
        if not self.rounding_offset and self.hi <= self.after:
            self._assume_rounding(0.5)
        # Of the two other roundings, "to nearest" holds only while the wall clock agrees. "Down" is later, so safe.
        if self.rounding_offset == 0.5 and (self.hi <= self.after or self.wall_clock_estimate() is None):
            self._assume_rounding(1.0)

    def narrow_from_below(self, sent: float, reset: float) -> bool:
        """Raise the lower bound by a response with a known `reset`; return whether no other rule is needed.

        Fast path of `observe`, with the same effect. The upper bound does not fall: the reset is the one seen last, and
        the answer came later.
        """
        lo = sent + reset - 1 + self.rounding_offset
        if self.rounding_offset == 0.5 or max(lo, sent) >= self.hi:
            return False
        self.lo, self.after = max(lo, self.lo), max(sent, self.after)
        return True

    def windows_from_here(self, sent: float, received: float, reset: float | None, expected: int | None) -> int:
        """Count the windows from the current one to the window of an answer; negative for a past one.

        Args:
            sent: When the request was sent.
            received: When the answer came.
            reset: Seconds until the window's end, as the answer says.
            expected: The count for which the request was meant, taken if the answer allows it; `None` if unknown.
        """
        if self.period is None or self.hi == math.inf:  # nothing is known that the answer could be compared with
            return 0
        lo, hi = self.interval_of(sent, received, reset)
        if expected is not None and self.overlaps(lo - expected * self.period, hi - expected * self.period):
            return expected
        return round(((lo + hi) / 2 - self.middle) / self.period)

    def expected(self) -> float:
        """Return when the next window may be counted on: the wall clock's estimate, else the interval's end."""
        estimate = self.wall_clock_estimate()
        return (self.hi if estimate is None else estimate) + _MARGIN

    @property
    def is_known(self) -> bool:
        """Whether the end is known to a tenth of a second."""
        return self.hi - self.lo < 0.1 or self.wall_clock_estimate() is not None

    def wall_clock_estimate(self) -> float | None:
        """Return the wall clock's multiple of the period, if it lies in the interval; `None` otherwise."""
        if self.period is None:
            return None
        # If several multiples fit, take the last one: being late costs time, being early costs a 429.
        multiple = math.floor((self.hi + self.skew) / self.period) * self.period - self.skew
        return multiple if multiple > max(self.lo, self.after) else None

    @property
    def middle(self) -> float:
        """The middle of the interval."""
        return (self.lo + self.hi) / 2

    def move(self, windows: int) -> None:
        """Turn to another window: a number of windows later, or earlier if negative."""
        seconds = windows * (self.period or 0.0)
        self.lo += seconds
        self.hi += seconds
        self.after += seconds

    def _assume_rounding(self, offset: float) -> None:
        self.lo += offset - self.rounding_offset
        self.hi += offset - self.rounding_offset
        self.rounding_offset = offset
