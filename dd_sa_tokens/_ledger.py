"""What is known of a quota's current window, and whether a request may go. Pure: clocks come in as numbers.

A window is a stretch of the server's time in which `limit` requests are allowed; windows follow one another at whole
multiples of `period` on the server's clock. `now` is always the event loop's clock, `wall` seconds since the epoch.
"""

from __future__ import annotations

import math

import attrs

from ._boundary import Boundary
from ._contention import SLOW_FOR, Contention
from .models import RateLimit

ALONE_FOR = 1.0
"""Seconds for which the first request of an unconfirmed window holds the others back, at the most."""


@attrs.define(eq=False)
class Ticket:
    """A request that is in flight.

    Attributes:
        ledger: Whose numbers the next two are.
        sent: When it left, on the loop's clock.
        window: The number of the window that it was meant for.
        number: Its place among the requests of this window, counted from 1.
        waited: Seconds that it had to wait for quota.
    """

    ledger: Ledger
    sent: float
    window: int
    number: int
    waited: float = 0.0


@attrs.define(eq=False)
class Ledger:
    """The account of one limit: what the answers said, less what is in flight.

    Attributes:
        reserve: Share (0 <= r < 1) of each window that is left to others.
        places: Most requests that the client has in flight; 0 to begin at full speed.
        contention: Who else spends this quota.
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
    places: int = 0
    contention: Contention = attrs.Factory(Contention)
    limit: int | None = None
    period: float | None = None
    name: str | None = None
    remaining: int | None = None
    in_flight: int = 0
    window: int = 0
    boundary: Boundary | None = None
    confirmed: bool = False
    _easy_until: float = -math.inf  # while nothing but plenty is known of the window
    _easy_above: float = math.inf
    _reset: float | None = None  # of the answer that was looked at last
    _alone: Ticket | None = None
    _alone_since: float = -math.inf
    _last_sent: float = -math.inf
    _closed_until: float = -math.inf

    def may_go(self, now: float) -> bool:
        """Tell whether a request may go now."""
        return self._is_easy(now, 0) or self.wait(now) <= 0

    def _is_easy(self, now: float, ahead: int) -> bool:
        """Tell whether so much is left that no rule holds a request back, nor those ahead of it."""
        return now < self._easy_until and self.remaining is not None and self.remaining - ahead >= self._easy_above

    def wait(self, now: float) -> float:
        """Return for how many seconds no request may go; 0 if one may go now.

        An answer may open the gate earlier, so look again after each.
        """
        self._turn(now)
        self.contention.since = min(self.contention.since, now)
        if now < self._closed_until:
            return self._closed_until - now
        left = None if self.remaining is None else self.remaining - self._reserved
        if not self.confirmed:
            if self._alone is None and (left is None or left > self.in_flight):
                return 0.0
            if now < self._alone_since + ALONE_FOR:
                return self._alone_since + ALONE_FOR - now
        if left is None or self.in_flight < self.contention.room(left, self.places, now):
            if self.confirmed and self.places:
                # With so much left, no rule holds back what the client's places let through.
                self._easy_until = self._end()
                self._easy_above = self._reserved + Contention.enough_for_all(self.places)
            return 0.0
        faster = self.contention.since + SLOW_FOR
        if now < faster and self.in_flight < self.contention.room(left, self.places, faster):
            return faster - now
        return max(self._end() - now, 0.0)

    def shortage(self, now: float, ahead: int) -> float:
        """Return for how many seconds the quota is known to be spent for a request with others ahead of it."""
        if self._is_easy(now, ahead):
            return 0.0
        self._turn(now)
        closed = max(self._closed_until - now, 0.0)
        if self.remaining is None:
            return closed
        left = self.remaining - self._reserved
        if self.confirmed and not self.contention.room(left, self.places, now):
            left = 0
        room = left - self.in_flight - ahead
        if room > 0:
            return closed
        short = max(self._end() - now, 0.0)
        if self.limit is not None and self.period is not None:
            short += -room // (self.limit - self._reserved) * self.period
        return max(short, closed)

    def send(self, now: float) -> Ticket:
        """Take a place in flight. The first request of an unconfirmed window goes alone."""
        self.contention.sent += 1
        ticket = Ticket(self, now, self.window, self.contention.sent)
        if not self.confirmed and self._alone is None:
            self._alone = ticket
            idle = not self.in_flight and now - self._last_sent > ALONE_FOR
            if idle or self._alone_since == -math.inf:
                self._alone_since = now
        self._last_sent = now
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
        if rate is not None and status != 429 and self._passes_lightly(ticket, now, rate):
            return
        if rate is not None and (rate.remaining is not None or status < 300 or status == 429):
            self.limit = rate.limit or self.limit
            self.period = rate.period or self.period
            self.name = rate.name or self.name
        if rate is not None and rate.remaining is None and status < 300 and self.limit is not None:
            # A count of our own, where the answers have none: it does not see others.
            rate = attrs.evolve(rate, remaining=max(self.limit - ticket.number, 0))
        if self._tells(rate, status):
            assert rate is not None
            if self.boundary is None:
                self.boundary = Boundary()
            self.boundary.period, self.boundary.skew = self.period, wall - now
            self._place(self.boundary, ticket, now, rate, rejected=status == 429)
        elif status < 300:
            self.confirmed = True
            self._count(ticket)

    def _passes_lightly(self, ticket: Ticket, now: float, rate: RateLimit) -> bool:
        """Take in an answer that tells nothing new: of this window, with the reset seen last, and plenty left.

        It comes out as the long way would have it, which costs a busy client a twentieth of its speed.
        """
        remaining, reset, boundary = rate.remaining, rate.reset, self.boundary
        if (
            now >= self._easy_until
            or reset is None
            or reset != self._reset
            or remaining is None
            or remaining < self._easy_above
            or rate.limit is None
            or rate.limit != self.limit
            or rate.period != self.period
            or ticket.window != self.window
            or ticket.ledger is not self
            or boundary is None
        ):
            return False
        lo = ticket.sent + reset - 1 + boundary.shift
        if boundary.shift == 0.5 or max(lo, ticket.sent) >= boundary.hi:
            return False
        boundary.lo, boundary.after = max(lo, boundary.lo), max(ticket.sent, boundary.after)
        self.contention.note(ticket.number, rate.limit - remaining)
        self.remaining = remaining if self.remaining is None else min(self.remaining, remaining)
        return True

    def _tells(self, rate: RateLimit | None, status: int) -> bool:
        """Tell whether an answer says how much is left, and until when: a 429 must say so itself."""
        if rate is None:
            return False
        if status == 429:
            return rate.reset is not None
        return rate.remaining is not None and (rate.reset is not None or self.period is not None)

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
        return math.inf if self.boundary is None else self.boundary.expected()

    def _count(self, ticket: Ticket) -> None:
        # Sent at the end of a window, it may have been counted in the next one.
        if self.remaining is not None and self.window - ticket.window <= 1:
            self.remaining = max(self.remaining - 1, 0)

    def _turn(self, now: float) -> None:
        """Begin the next window if the current one is over."""
        end = self._end()
        if self.boundary is None or now < end:
            return
        if self.period is None or self.limit is None:
            self._open(1, None)
            self.boundary = None
        else:
            windows = 1 + math.floor((now - end) / self.period)
            self.boundary.move(windows * self.period)
            self._open(windows, self.limit)

    def _open(self, windows: int, remaining: int | None) -> None:
        self.window += 1
        self.remaining = remaining
        self.contention.turn(windows, self.limit or 0, self.in_flight)
        self._unconfirm()

    def _unconfirm(self) -> None:
        self.confirmed = False
        self._easy_until = -math.inf
        self._alone = None
        self._alone_since = -math.inf

    def _place(self, boundary: Boundary, ticket: Ticket, now: float, rate: RateLimit, *, rejected: bool) -> None:
        """Put an answer into the window that it belongs to: this one, a past or a later one."""
        remaining = 0 if rejected else rate.remaining or 0
        later = self._windows_from_here(boundary, ticket, now, rate.reset)
        if later > 0 and now > boundary.lo:
            boundary.move(later * (boundary.period or 0.0))
            self._open(later, remaining)
            self.contention.sent += 1  # this request is no longer in flight, and was counted there
        elif later < 0:
            if self.confirmed or ticket.ledger is not self or ticket.window < self.window:
                return
            boundary.move(-(boundary.period or 0.0))
            boundary.was_early(ticket.sent)
        boundary.observe(ticket.sent, now, rate.reset)
        if self.limit is not None and ticket.ledger is self and ticket.window == self.window and not rejected:
            self.contention.note(ticket.number, self.limit - remaining)
        self.remaining = remaining if self.remaining is None else min(self.remaining, remaining)
        self.confirmed = True
        self._reset, self._easy_until = rate.reset, -math.inf

    def _windows_from_here(self, boundary: Boundary, ticket: Ticket, now: float, reset: float | None) -> int:
        """Count the windows from the current one to an answer's: its own if possible, else the nearest."""
        if boundary.period is None:
            return 0
        lo, hi = boundary.seen(ticket.sent, now, reset)
        own = ticket.window - self.window
        if ticket.ledger is self and boundary.meets(lo - own * boundary.period, hi - own * boundary.period):
            return own
        return round(((lo + hi) / 2 - boundary.middle) / boundary.period)
