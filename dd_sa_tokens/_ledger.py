"""What is known of a quota's current window, and whether a request may go. Pure: clocks come in as numbers.

A window is a stretch of the server's time in which `limit` requests are allowed; windows follow one another at whole
multiples of `period` on the server's clock. `now` is always the event loop's clock, `wall` seconds since the epoch.
"""

from __future__ import annotations

import math

import attrs

from .models import RateLimit

ALONE_FOR = 1.0
"""Seconds for which the first request of an unconfirmed window holds the others back, at the most."""

_MARGIN = 0.01  # seconds after the expected boundary: clocks and timers are not exact


@attrs.define(eq=False)
class Ticket:
    """A request that is in flight.

    Attributes:
        sent: When it left, on the loop's clock.
        window: The number of the window that it was meant for.
        waited: Seconds that it had to wait for quota.
    """

    sent: float
    window: int
    waited: float = 0.0


@attrs.define
class Boundary:
    """When the current window ends: somewhere in [lo, hi] on the loop's clock.

    A reset of r seconds, rounded up, in an answer to a request sent at t1 and received at t2 puts the end in
    (t1 + r - 1, t2 + r]. A server that rounds to nearest or down puts it half a second or a whole one later: `shift`.

    Attributes:
        lo: Not before this.
        hi: Not after this.
        shift: Seconds by which the server's rounding was found to differ from rounding up.
        guessing: Whether the wall clock may still say where in the interval the end is.
    """

    lo: float
    hi: float
    shift: float = 0.0
    guessing: bool = True

    def observe(self, lo: float, hi: float) -> None:
        """Narrow the interval by one answer's; start over from that where it contradicts (a clock was set)."""
        if self.meets(lo, hi):
            lo, hi = max(lo, self.lo), min(hi, self.hi)
        self.lo, self.hi = lo, hi

    def meets(self, lo: float, hi: float) -> bool:
        """Tell whether the end can be in another interval as well."""
        return max(lo, self.lo) <= min(hi, self.hi)

    def expected(self, period: float, skew: float) -> float:
        """Return when the next window may be counted on.

        That is the wall clock's multiple of the period where the answers allow it, else the end of the interval.

        Args:
            period: Seconds.
            skew: The wall clock's time less the loop's.
        """
        guess = self._guess(period, skew)
        return (self.hi if guess is None else guess) + _MARGIN

    def _guess(self, period: float, skew: float) -> float | None:
        multiple = round((self.middle + skew) / period) * period - skew
        return multiple if self.guessing and self.lo < multiple <= self.hi else None

    @property
    def middle(self) -> float:
        """The middle of the interval."""
        return (self.lo + self.hi) / 2

    def move(self, seconds: float) -> None:
        """Turn to another window."""
        self.lo += seconds
        self.hi += seconds

    def was_early(self, sent: float, period: float, skew: float) -> None:
        """Learn that a request sent when the window was thought over still met it.

        Sent within the interval, it was the wall clock that misled. Sent after it, the server does not round up:
        of the other two roundings the one that the wall clock bears out is taken, else rounding down, the later.
        """
        if sent < self.hi:
            self.guessing = False
            return
        while self.shift < 1.0:
            self.shift += 0.5
            self.move(0.5)
            if self.hi > sent and self._guess(period, skew) is not None:
                break


@attrs.define(eq=False)
class Ledger:
    """The account of one limit: what the answers said, less what is in flight.

    Attributes:
        reserve: Share (0 <= r < 1) of each window that is left to others.
        limit: Requests in a window; `None` while unknown.
        period: Seconds from window to window; `None` while unknown.
        name: The limit's name.
        remaining: The lowest count seen in the current window; `None` while unknown.
        in_flight: Requests without an answer yet.
        window: The number of the current window, counted from 0.
        boundary: When the current window ends; `None` while unknown.
        confirmed: Whether an answer has shown that the current window has begun.
    """

    reserve: float = 0.0
    limit: int | None = None
    period: float | None = None
    name: str | None = None
    remaining: int | None = None
    in_flight: int = 0
    window: int = 0
    boundary: Boundary | None = None
    confirmed: bool = False
    _alone: Ticket | None = None
    _alone_since: float = -math.inf
    _closed_until: float = -math.inf
    _skew: float = 0.0

    def wait(self, now: float) -> float:
        """Return for how many seconds no request may go; 0 if one may go now.

        An answer may open the gate earlier, so look again after each.
        """
        self._turn(now)
        if now < self._closed_until:
            return self._closed_until - now
        if not self.confirmed and self._alone is not None and now < self._alone_since + ALONE_FOR:
            return self._alone_since + ALONE_FOR - now
        if self.remaining is None or self.remaining - self.in_flight > self._reserved:
            return 0.0
        return max(self._end() - now, 0.0)

    def shortage(self, now: float, ahead: int) -> float:
        """Return for how many seconds the quota is known to be spent for a request with others ahead of it."""
        self._turn(now)
        closed = max(self._closed_until - now, 0.0)
        if self.remaining is None:
            return closed
        room = self.remaining - self.in_flight - self._reserved - ahead
        if room > 0:
            return closed
        short = max(self._end() - now, 0.0)
        if self.limit is not None and self.period is not None:
            short += -room // (self.limit - self._reserved) * self.period
        return max(short, closed)

    def send(self, now: float) -> Ticket:
        """Take a place in flight. The first request of an unconfirmed window goes alone."""
        ticket = Ticket(now, self.window)
        if not self.confirmed and self._alone is None:
            self._alone = ticket
            if not self.in_flight or self._alone_since == -math.inf:
                self._alone_since = now
        self.in_flight += 1
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Give back the place of a request that never left."""
        self.in_flight -= 1
        if self._alone is ticket:
            self._alone = None

    def lost(self, ticket: Ticket) -> None:
        """Account for a request that got no answer: it may have been counted."""
        self.forget(ticket)
        self._count(ticket)

    def answered(self, ticket: Ticket, now: float, wall: float, rate: RateLimit | None, status: int) -> None:
        """Learn from an answer.

        Args:
            ticket: The request's.
            now: When the answer came, on the loop's clock.
            wall: The same, in seconds since the epoch.
            rate: What the rate-limit headers said; `None` if there were none.
            status: The HTTP status.
        """
        self.forget(ticket)
        self._skew = wall - now
        if rate is None or (rate.remaining is None and status != 429):
            if status < 300:
                self.confirmed = True
                self._count(ticket)
            return
        self.limit = rate.limit or self.limit
        self.period = rate.period or self.period
        self.name = rate.name or self.name
        rejected = status == 429
        if rate.reset is not None or (self.period is not None and not rejected):
            self._place(ticket, now, rate.reset, 0 if rejected else rate.remaining or 0)

    def close(self, until: float) -> None:
        """Let nothing pass until then: a 429 said so without saying when the window ends."""
        self._closed_until = max(self._closed_until, until)
        self._unconfirm()

    def view(self, now: float) -> RateLimit | None:
        """Describe the current window as known here; `None` while nothing is known."""
        self._turn(now)
        if self.remaining is None and self.limit is None:
            return None
        left = None if self.remaining is None else max(self.remaining - self.in_flight, 0)
        reset = None if self.boundary is None else max(self._end() - now, 0.0)
        return RateLimit(self.limit, self.period, left, reset, self.name)

    @property
    def _reserved(self) -> int:
        return 0 if self.limit is None else min(int(self.limit * self.reserve), self.limit - 1)

    def _end(self) -> float:
        assert self.boundary is not None
        if self.period is None:
            return self.boundary.hi + _MARGIN
        return self.boundary.expected(self.period, self._skew)

    def _count(self, ticket: Ticket) -> None:
        if self.remaining is not None and ticket.window == self.window:
            self.remaining = max(self.remaining - 1, 0)

    def _turn(self, now: float) -> None:
        """Begin the next window if the current one is over."""
        if self.boundary is None or now < self._end():
            return
        if self.period is None or self.limit is None:
            self._open(None)
            self.boundary = None
        else:
            windows = 1 + math.floor((now - self._end()) / self.period)
            self.boundary.move(windows * self.period)
            self._open(self.limit)

    def _open(self, remaining: int | None) -> None:
        self.window += 1
        self.remaining = remaining
        self._unconfirm()

    def _unconfirm(self) -> None:
        self.confirmed = False
        self._alone = None
        self._alone_since = -math.inf

    def _place(self, ticket: Ticket, now: float, reset: float | None, remaining: int) -> None:
        """Put an answer into the window that it belongs to: this one, a past or a later one."""
        lo, hi = self._end_seen(ticket, now, reset)
        if self.boundary is None:
            self.boundary, self.remaining = Boundary(lo, hi), remaining
        later = self._windows_from_here(ticket, self.boundary, lo, hi)
        if later > 0 and now > self.boundary.lo and self.period is not None:
            self.boundary.move(later * self.period)
            self._open(remaining)
        elif later < 0 and self.period is not None:
            if self.confirmed or ticket.window < self.window:
                return
            self.boundary.move(-self.period)
            self.boundary.was_early(ticket.sent, self.period, self._skew)
            lo, hi = self._end_seen(ticket, now, reset)
        self.boundary.observe(lo, hi)
        self.remaining = remaining if self.remaining is None else min(self.remaining, remaining)
        self.confirmed = True

    def _end_seen(self, ticket: Ticket, now: float, reset: float | None) -> tuple[float, float]:
        """Return the interval in which one answer by itself puts the end of its window."""
        if reset is None:
            return ticket.sent, now + (self.period or 0.0)
        shift = 0.0 if self.boundary is None else self.boundary.shift
        return ticket.sent + reset - 1 + shift, now + reset + shift

    def _windows_from_here(self, ticket: Ticket, boundary: Boundary, lo: float, hi: float) -> int:
        """Count the windows from the current one to an answer's: its own if possible, else the nearest."""
        if self.period is None:
            return 0
        own = ticket.window - self.window
        if boundary.meets(lo - own * self.period, hi - own * self.period):
            return own
        return round(((lo + hi) / 2 - boundary.middle) / self.period)
