"""When a quota's current window ends, as far as answers have shown: an interval that each of them narrows down.

Windows follow one another at whole multiples of `period` on the server's clock. `sent` and `received` are always on the
event loop's clock.
"""

from __future__ import annotations

import math

import attrs

_MARGIN = 0.01  # seconds after the expected boundary: clocks and timers are not exact


@attrs.define
class Boundary:
    """When the current window ends: somewhere in [lo, hi] on the loop's clock.

    A reset of r seconds, rounded up, in an answer to a request sent at t1 and received at t2 puts the end in
    (t1 + r - 1, t2 + r]. A server that rounds to nearest or down puts it half a second or a whole one later: `shift`.
    The real API rounds up; that another one does not shows when it still answers from the old window after `hi`.

    Attributes:
        lo: Not before this, if the server rounds as supposed.
        hi: Not after this, likewise.
        after: Not before this, however it rounds: a request sent then was answered from this window.
        period: Seconds from end to end; `None` while unknown.
        skew: The wall clock's time less the loop's.
        shift: Seconds by which the server's rounding was found to differ from rounding up.
        guessing: Whether the wall clock may still say where in the interval the end is.
    """

    lo: float = -math.inf
    hi: float = math.inf
    after: float = -math.inf
    period: float | None = None
    skew: float = 0.0
    shift: float = 0.0
    guessing: bool = True

    def seen(self, sent: float, received: float, reset: float | None) -> tuple[float, float]:
        """Return the interval in which one answer by itself puts the end."""
        if reset is None:
            return sent, received + (self.period or 0.0)
        return sent + reset - 1 + self.shift, received + reset + self.shift

    def meets(self, lo: float, hi: float) -> bool:
        """Tell whether the end can be in another interval as well."""
        return max(lo, self.lo) <= min(hi, self.hi)

    def observe(self, sent: float, received: float, reset: float | None) -> None:
        """Narrow the interval by one answer; start over from that where it contradicts (a clock was set)."""
        lo, hi = self.seen(sent, received, reset)
        if self.meets(lo, hi):
            lo, hi = max(lo, self.lo), min(hi, self.hi)
        self.lo, self.hi, self.after = lo, hi, max(sent, self.after)
        if not self.shift and self.hi <= self.after:
            self._suppose(0.5)
        # Of the two other roundings, to nearest only while the wall clock bears it out; down is later, so safe.
        if self.shift == 0.5 and (self.hi <= self.after or self.guess() is None):
            self._suppose(1.0)

    def was_early(self, sent: float) -> None:
        """Learn that a request was sent when the window was thought over, and was not."""
        if sent < self.hi:
            self.guessing = False

    def expected(self) -> float:
        """Return when the next window may be counted on: at the wall clock's guess, else at the interval's end."""
        guess = self.guess()
        return (self.hi if guess is None else guess) + _MARGIN

    def guess(self) -> float | None:
        """Return the wall clock's multiple of the period, where the answers allow it."""
        if self.period is None or not self.guessing:
            return None
        # Where several fit, the last: too late costs time, too early a 429.
        multiple = math.floor((self.hi + self.skew) / self.period) * self.period - self.skew
        return multiple if multiple > max(self.lo, self.after) else None

    @property
    def middle(self) -> float:
        """The middle of the interval."""
        return (self.lo + self.hi) / 2

    def move(self, seconds: float) -> None:
        """Turn to another window."""
        self.lo += seconds
        self.hi += seconds
        self.after += seconds

    def _suppose(self, shift: float) -> None:
        self.lo += shift - self.shift
        self.hi += shift - self.shift
        self.shift = shift
