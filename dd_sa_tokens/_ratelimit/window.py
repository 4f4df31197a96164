"""The current window of one limit: what is left of it, and whether a request may be sent. Pure: clocks come as numbers.

`now` is always the event loop's clock, `wall` seconds since the epoch. The package's docstring explains the theory.
"""

from __future__ import annotations

import math

import attrs

from dd_sa_tokens.models import RateLimit

from .contention import Contention
from .permit import Permit
from .probe import PROBE_TIMEOUT, Probe
from .store import WindowView
from .window_end import WindowEnd

_PROMPT = 0.05  # seconds after its beginning in which a client begins a window with the others


@attrs.define(eq=False)
class RateLimitWindow:
    """The count of one limit's current window: what the answers said, less what is in flight.

    Whether a request may be sent is asked with its `reserve`, the share (0 <= r < 1) of each window that it leaves to
    others.

    Attributes:
        concurrency: Most requests that the client has in flight; 0 to begin at full speed.
        contention: Who else spends this limit.
        probe: The first request of an unconfirmed window.
        limit: Requests in a window; `None` while unknown.
        period: Seconds from window to window; `None` while unknown.
        name: The limit's name; `None` while unknown.
        remaining: The lowest count seen in the current window; `None` while unknown.
        in_flight: Requests without an answer yet.
        number: The number of the current window, counted from 0.
        end: When the current window ends; `None` while unknown.
        confirmed: Whether an answer has shown that the current window has begun.
    """

    concurrency: int = 0
    contention: Contention = attrs.Factory(Contention)
    probe: Probe = attrs.Factory(Probe)
    limit: int | None = None
    period: float | None = None
    name: str | None = None
    remaining: int | None = None
    in_flight: int = 0
    number: int = 0
    end: WindowEnd | None = None
    confirmed: bool = False
    _headroom_until: float = -math.inf  # until then, nothing holds a request back while enough is left
    _headroom_above: float = math.inf  # without a reserve
    _last_reset: float | None = None  # of the last answer that took the general path
    _last_send: float = -math.inf
    _paused_until: float = -math.inf
    _sent_at_count: int = 0  # requests of this window that had been sent when `remaining` was last lowered

    def can_send(self, now: float, reserve: float = 0.0) -> bool:
        """Return whether a request may be sent now."""
        taken = self._reserved(reserve) if reserve else 0
        return self._has_headroom(now, taken) or self.delay_until_admitted(now, reserve) <= 0

    def _has_headroom(self, now: float, taken: int) -> bool:
        """Return whether so much is left, besides what is `taken`, that no rule holds a request back."""
        return (
            now < self._headroom_until and self.remaining is not None and self.remaining - taken >= self._headroom_above
        )

    def delay_until_admitted(self, now: float, reserve: float = 0.0) -> float:
        """Return for how many seconds no request may be sent; 0 if one may be sent now.

        An answer may make room earlier, so ask again after each.
        """
        self._roll_over(now)
        self.contention.begin(now)
        if now < self._paused_until:
            return self._paused_until - now
        reserved = self._reserved(reserve)
        left = None if self.remaining is None else self.remaining - reserved
        if not self.confirmed:
            if self.probe.permit is None and (left is None or left > self.in_flight):
                return 0.0
            if (delay := self.probe.delay(now)) > 0:
                return delay
        end = self._expected_end()
        delay = 0.0
        if left is not None:
            delay = self.contention.delay(
                left,
                self.in_flight,
                reserved=reserved,
                concurrency=self.concurrency,
                limit=self.limit or 0,
                now=now,
                end=end,
            )
        if delay <= 0:
            if self.confirmed and self.concurrency:
                # With so much left, no rule holds back what the client's concurrency lets through.
                self._headroom_until = end
                self._headroom_above = self.contention.headroom(self.concurrency)
            return 0.0
        return max(min(delay, end - now), 0.0)

    def exhausted_for(self, now: float, ahead: int, reserve: float = 0.0) -> float:
        """Return for how many seconds the limit is known to be exhausted for a request with `ahead` before it."""
        reserved = self._reserved(reserve)
        if self._has_headroom(now, ahead + reserved):
            return 0.0
        self._roll_over(now)
        paused = max(self._paused_until - now, 0.0)
        if self.remaining is None:
            return paused
        left = self.remaining - reserved
        if self.confirmed and self.contention.is_over(left, self.limit or 0):
            left = 0
        # What is in flight may be in `remaining` already; only what was sent after the last count is certainly not.
        # If less than the reserve is left, later windows are not short of it: they begin in full.
        room = max(left - (self.contention.sent - self._sent_at_count), 0) - ahead
        if room > 0:
            return paused
        seconds = max(self._expected_end() - now, 0.0)
        if self.limit is not None and self.period is not None:
            seconds += -room // (self.limit - reserved) * self.period
        return max(seconds, paused)

    def acquire(self, now: float, operation: str = "") -> Permit:
        """Give out a permit. The first request of an unconfirmed window is its probe."""
        permit = Permit(self, operation, now, self.number, self.contention.record_send())
        if not self.confirmed:
            silence = not self.in_flight and now - self._last_send > PROBE_TIMEOUT
            self.probe.send(permit, now, after_silence=silence)
        self._last_send = now
        self.in_flight += 1
        return permit

    def cancel(self, permit: Permit) -> None:
        """Take back the permit of a request that never left."""
        self._take_back(permit)
        if permit.window is self and permit.window_number == self.number and permit.number > self._sent_at_count:
            self._sent_at_count += 1  # it will not show up in `remaining`

    def abandon(self, permit: Permit) -> None:
        """Account for a request that got no answer: the server may have counted it."""
        self._take_back(permit)
        self._deduct(permit)

    def _take_back(self, permit: Permit) -> None:
        self.in_flight -= 1
        if self.probe.permit is permit:
            self.probe.end()

    def record_response(self, permit: Permit, now: float, wall: float, rate: RateLimit | None, status: int) -> None:
        """Learn from an answer.

        Args:
            permit: The request's.
            now: When the answer came, on the loop's clock.
            wall: The same, in seconds since the epoch.
            rate: What the rate-limit headers said; `None` if there were none.
            status: The HTTP status.
        """
        self._take_back(permit)
        if rate is not None and status != 429 and self._record_on_fast_path(permit, now, rate):
            return
        if rate is not None and (rate.remaining is not None or status < 300 or status == 429):
            self.limit = rate.limit or self.limit
            self.period = rate.period or self.period
            self.name = rate.name or self.name
        if rate is not None and rate.remaining is None and status < 300 and self.limit is not None:
            # A count of our own, where the answers have none. It does not see others.
            rate = attrs.evolve(rate, remaining=max(self.limit - permit.number, 0))
        if self._is_informative(rate, status):
            assert rate is not None
            if self.end is None:
                self.end = WindowEnd()
            self.end.set_clock(self.period, wall - now)
            self._classify(self.end, permit, now, rate, rejected=status == 429)
        elif status < 300:
            self.confirmed = True
            self._deduct(permit)

    def _record_on_fast_path(self, permit: Permit, now: float, rate: RateLimit) -> bool:
        """Record a response on the fast path: it is of this window, repeats the last reset, and plenty is left.

        Return whether it was. Same effect as the general path; saves 5% of the CPU time of a busy client.
        """
        remaining, reset, end = rate.remaining, rate.reset, self.end
        if (
            now >= self._headroom_until
            or reset is None
            or reset != self._last_reset
            or remaining is None
            or remaining < self._headroom_above
            or rate.limit is None
            or rate.limit != self.limit
            or rate.period != self.period
            or permit.window_number != self.number
            or permit.window is not self
            or not self.contention.answered  # the first answer of a window shows who was there before
            or end is None
            or not end.narrow_from_below(permit.sent, reset)
        ):
            return False
        self.contention.record_answer(permit.number, rate.limit - remaining)
        self._lower(remaining)
        return True

    def _is_informative(self, rate: RateLimit | None, status: int) -> bool:
        """Return whether an answer says how much is left, and until when. A 429 must say until when by itself."""
        if rate is None:
            return False
        if status == 429:
            return rate.reset is not None
        return rate.remaining is not None and (rate.reset is not None or self.period is not None)

    def pause(self, until: float) -> None:
        """Let nothing pass until then: a 429 asked for it without saying when the window ends."""
        self._paused_until = max(self._paused_until, until)
        self._unconfirm()

    def take_over(self, clients: int, left: int | None) -> None:
        """Go on without the store that shared the limit among several clients.

        What the others have spent since is unknown, so the next request goes alone.

        Args:
            clients: The clients that spend the limit.
            left: What the store had left of this window; `None` if the window has ended, or that is unknown.
        """
        self.contention.expect(clients)
        self._unconfirm()
        if left is not None and self.remaining is not None:
            self.remaining = min(self.remaining, left)

    def view(self, now: float) -> RateLimit | None:
        """Describe the current window as known here; `None` while nothing is known."""
        self._roll_over(now)
        if self.remaining is None and self.limit is None:
            return None
        left = None if self.remaining is None else max(self.remaining - self.in_flight, 0)
        reset = None if self.end is None else max(self._expected_end() - now, 0.0)
        return RateLimit(self.limit, self.period, left, reset, self.name)

    def describe(self, now: float) -> WindowView | None:
        """Describe the current window as its answers show it; `None` if none has come, or a part is unknown."""
        self._roll_over(now)
        end = self.end
        if not self.confirmed or not self.limit or not self.period or self.remaining is None or end is None:
            return None
        return WindowView(
            limit=self.limit,
            period=self.period,
            remaining=self.remaining,
            ends_in=end.expected() - now,
            uncertainty=end.hi - end.lo,
        )

    def _reserved(self, reserve: float) -> int:
        return min(int(self.limit * reserve), self.limit - 1) if reserve and self.limit else 0

    def _expected_end(self) -> float:
        return math.inf if self.end is None else self.end.expected()

    def _lower(self, remaining: int) -> None:
        """Take over a count of this window. Answers come out of order: the lowest is the latest."""
        if self.remaining is None or remaining <= self.remaining:
            self.remaining = remaining
            self._sent_at_count = self.contention.sent

    def _deduct(self, permit: Permit) -> None:
        # Sent at the end of a window, it may have been counted in the next one.
        if self.remaining is not None and self.number - permit.window_number <= 1:
            self.remaining = max(self.remaining - 1, 0)
            if permit.window is self and permit.window_number == self.number and permit.number > self._sent_at_count:
                self._sent_at_count += 1  # it was taken off just now

    def _roll_over(self, now: float) -> None:
        """Begin the next window if the current one is over."""
        ends_at = self._expected_end()
        if self.end is None or now < ends_at:
            return
        if self.period is None or self.limit is None:
            self._start_window(1, None)
            self.end = None
        else:
            windows = 1 + math.floor((now - ends_at) / self.period)
            prompt = self.end.is_known and (now - ends_at) % self.period < _PROMPT
            self.end.move(windows)
            self._start_window(windows, self.limit, prompt=prompt)

    def _start_window(self, windows: int, remaining: int | None, *, prompt: bool = False) -> None:
        self.number += 1
        self.remaining = remaining
        self.contention.roll_over(windows, self.limit or 0, self.in_flight, prompt=prompt)
        self._sent_at_count = self.contention.sent
        self._unconfirm()

    def _unconfirm(self) -> None:
        self.confirmed = False
        self._headroom_until = -math.inf
        self.probe.reset()

    def _classify(self, end: WindowEnd, permit: Permit, now: float, rate: RateLimit, *, rejected: bool) -> None:
        """Put an answer into the window that it belongs to: this one, a past or a later one."""
        remaining = 0 if rejected else rate.remaining or 0
        own = permit.window_number - self.number if permit.window is self else None
        later = end.windows_from_here(permit.sent, now, rate.reset, own)
        if later > 0 and now > end.lo:
            end.move(later)
            self._start_window(later, remaining)
            self.contention.record_send()  # this request is no longer in flight, and was counted there
        elif later < 0:
            if self.confirmed or own is None or own < 0:
                return
            end.move(-1)
        end.observe(permit.sent, now, rate.reset)
        # A new client learns of others from 429s. Later, 429s would overstate the contention, so they are left out.
        counts = not rejected or not self.contention.past
        if self.limit is not None and own is not None and permit.window_number == self.number and counts:
            self.contention.record_answer(permit.number, self.limit - remaining)
        self._lower(remaining)
        self.confirmed = True
        self._last_reset, self._headroom_until = rate.reset, -math.inf
