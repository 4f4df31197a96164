"""The limiter: windows with an event loop around them. It decides who waits, in what order, and for how long.

A request passes when its operation's window has room and the client is below its `concurrency`. The callers that wait
for one limit pass in the order in which they came; among several limits the oldest caller that may go is first. One
timer serves all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator

import attrs

from dd_sa_tokens._clock import Clock
from dd_sa_tokens._protocol.headers import knows_reset
from dd_sa_tokens.errors import ClientClosedError, RateLimitError
from dd_sa_tokens.models import RateLimit

from .window import Permit, RateLimitWindow

_logger = logging.getLogger("dd_sa_tokens")

_NOISE = 0.05  # seconds by which the expected end of a window moves as answers narrow it


Refusal = RateLimitError | ClientClosedError


@attrs.define(eq=False)
class _Waiter:
    operation: str
    outcome: asyncio.Future[Permit | Refusal]
    deadline: float  # when its longest wait ends, on the loop's clock


@attrs.define(eq=False)
class _Bucket:
    """The window of one limit and the callers that wait for it, by the number that each drew, the oldest first."""

    window: RateLimitWindow
    waiters: OrderedDict[int, _Waiter] = attrs.field(factory=OrderedDict[int, _Waiter])
    with_deadline: int = 0  # waiters that have one
    expected_start: float = -math.inf  # when the last waiter was expected to pass
    is_exhausted: bool = False  # whether the limit was exhausted when this was last sampled
    sampled_at: float = -math.inf
    exhausted_seconds: float = 0.0  # for how long the limit was exhausted, in all

    def sample(self, now: float) -> None:
        """Add up the time for which the limit is exhausted."""
        if self.is_exhausted:
            self.exhausted_seconds += now - self.sampled_at
        seconds = self.window.exhausted_for(now, 0)
        if seconds and not self.is_exhausted:
            _logger.info("the rate limit %s is exhausted for %.2f s", self.window.name or "(no name)", seconds)
        self.is_exhausted, self.sampled_at = seconds > 0, now


class RateLimiter:
    """Lets requests through as the rate limits and the client's concurrency allow.

    Each permit must come back: through `record_response`, `abandon` or `cancel`.

    Args:
        concurrency: Most requests in flight.
        reserve: Share of each window that is left to others.
        clock: Where the time comes from.
    """

    def __init__(self, concurrency: int, *, reserve: float = 0.0, clock: Clock = Clock()) -> None:
        self._concurrency = concurrency
        self._reserve = reserve
        self._now = clock.monotonic
        self._wall = clock.wall
        self._buckets: dict[str, _Bucket] = {}  # by operation; operations with the same limit share one
        self._by_name: dict[str, _Bucket] = {}
        self._last: _Bucket | None = None
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0  # uvloop's handles for less than 1 ms have no `when()`, so the time is stored here
        self.in_flight = 0
        self.waited = 0.0

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current window of the operation used last."""
        return None if self._last is None else self._last.window.view(self._now())

    def try_acquire(self, operation: str) -> Permit | None:
        """Return a permit if the request may be sent at once; `None` if it has to wait."""
        bucket = self._buckets.get(operation)
        if bucket is None:
            window = RateLimitWindow(reserve=self._reserve, concurrency=self._concurrency)
            bucket = self._buckets[operation] = _Bucket(window)
        self._last = bucket
        now = self._now()
        if bucket.waiters or self.in_flight >= self._concurrency or not bucket.window.can_send(now):
            return None
        self.in_flight += 1
        return bucket.window.acquire(now, operation)

    async def acquire(self, operation: str, max_wait: float | None = None) -> Permit | Refusal:
        """Wait for a permit.

        Args:
            operation: What the request is for.
            max_wait: Most seconds to wait for the rate limit; `None` for as long as it takes.

        Returns:
            The permit; or an error, as soon as it is known that the wait would be longer, or the client was closed.
        """
        permit = self.try_acquire(operation)
        if permit is not None:
            return permit
        bucket = self._buckets[operation]
        begun = self._now()
        bucket.sample(begun)
        before = bucket.exhausted_seconds
        seconds = bucket.window.exhausted_for(begun, len(bucket.waiters))
        if max_wait is not None and seconds > max_wait:
            return self._refusal(bucket, begun, seconds)
        deadline = math.inf if max_wait is None else begun + max_wait
        waiter = _Waiter(operation, asyncio.get_running_loop().create_future(), deadline)
        number = next(self._numbers)
        bucket.waiters[number] = waiter
        bucket.with_deadline += max_wait is not None
        bucket.expected_start = begun + seconds
        self._arm(begun)
        alarm = None
        if max_wait is not None:
            alarm = waiter.outcome.get_loop().call_later(max_wait, self._reject_expired, operation)
        try:
            outcome = await waiter.outcome
        except asyncio.CancelledError:
            if not waiter.outcome.cancelled():
                self._give_back(waiter.outcome.result())
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            bucket = self._buckets[operation]  # it may be another by now
            bucket.waiters.pop(number, None)
            bucket.with_deadline -= max_wait is not None
            bucket.sample(self._now())
            waited = max(bucket.exhausted_seconds - before, 0.0)
            self.waited += waited
        if isinstance(outcome, Permit):
            outcome.waited = waited
        return outcome

    def _give_back(self, outcome: Permit | Refusal) -> None:
        if isinstance(outcome, Permit):
            self.cancel(outcome)

    def record_response(self, permit: Permit, rate: RateLimit | None, status: int, *, pause: float = 0.0) -> None:
        """Learn from an answer, and take the permit back.

        Args:
            permit: The request's.
            rate: What the rate-limit headers said; `None` if there were none.
            status: The HTTP status.
            pause: Seconds for which a 429 holds everyone back if its headers do not say until when the window lasts.
        """
        if status == 429 and pause and not knows_reset(rate):
            # Before the permit is free, or the next waiter would slip through.
            self._pause(permit.operation, pause)
        if rate is not None and rate.name and self._buckets[permit.operation].window.name is None:
            self._share(permit.operation, rate.name)
        window = self._buckets[permit.operation].window
        window.record_response(permit, self._now(), self._wall(), rate, status)
        self._release(permit.operation)

    def abandon(self, permit: Permit) -> None:
        """Take back the permit of a request that went out and got no answer."""
        self._buckets[permit.operation].window.abandon(permit)
        self._release(permit.operation)

    def cancel(self, permit: Permit) -> None:
        """Take back the permit of a request that was never sent."""
        self._buckets[permit.operation].window.cancel(permit)
        self._release(permit.operation)

    def close(self) -> None:
        """End the wait of all callers: the client is being closed."""
        for bucket in self._buckets.values():
            for waiter in bucket.waiters.values():
                if not waiter.outcome.done():
                    waiter.outcome.set_result(ClientClosedError("the client was closed while the call was waiting"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause(self, operation: str, seconds: float) -> None:
        """Let nothing of this operation's limit pass for a while."""
        bucket = self._buckets[operation]
        bucket.window.pause(self._now() + seconds)
        if bucket.with_deadline:
            self._reject_postponed(operation)

    def _share(self, operation: str, name: str) -> None:
        """Put an operation whose limit has told its name for the first time into the bucket of that name."""
        bucket = self._buckets[operation]
        shared = self._by_name.setdefault(name, bucket)
        if shared is not bucket:
            self._buckets[operation] = shared
            shared.window.in_flight += bucket.window.in_flight
            shared.waiters = OrderedDict(sorted([*shared.waiters.items(), *bucket.waiters.items()]))
            shared.with_deadline += bucket.with_deadline
            self._last = shared if self._last is bucket else self._last

    def _release(self, operation: str) -> None:
        self.in_flight -= 1
        if self._buckets[operation].with_deadline:
            self._reject_postponed(operation)
        for bucket in self._buckets.values():
            if bucket.waiters:
                self._admit()
                return

    def _with_waiters(self) -> Iterator[_Bucket]:
        return (bucket for bucket in self._buckets.values() if bucket.waiters)

    def _admit(self) -> None:
        """Let the next callers pass, as many as may."""
        now = self._now()
        for bucket in self._with_waiters():
            bucket.sample(now)
        while self.in_flight < self._concurrency:
            ready = [bucket for bucket in self._with_waiters() if bucket.window.can_send(now)]
            if not ready:
                break
            bucket = min(ready, key=lambda bucket: next(iter(bucket.waiters)))
            _, waiter = bucket.waiters.popitem(last=False)
            if not waiter.outcome.done():
                self.in_flight += 1
                waiter.outcome.set_result(bucket.window.acquire(now, waiter.operation))
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Set the timer for the moment at which the first window with waiters may have room again."""
        if self.in_flight >= self._concurrency:
            return  # an answer will make room
        delays = [bucket.window.delay_until_admitted(now) for bucket in self._with_waiters()]
        if not delays:
            return
        # At once, if a window has begun since the waiter was told to wait.
        delay = max(min(delays), 0.0)
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer, self._timer_due = loop.call_later(delay, self._on_timer), due

    def _on_timer(self) -> None:
        self._timer = None
        self._admit()

    def _reject_postponed(self, operation: str) -> None:
        """Reject the waiters whose longest wait will not suffice, each time the window is put off.

        Only the last waiter is checked. A waiter further ahead that slips by one window, for which a single request of
        others suffices, is rejected at its own deadline.
        """
        bucket, now = self._buckets[operation], self._now()
        seconds = bucket.window.exhausted_for(now, len(bucket.waiters) - 1)
        expected, bucket.expected_start = bucket.expected_start, now + seconds
        if seconds and bucket.expected_start > expected + _NOISE:
            self._reject_expired(operation)

    def _reject_expired(self, operation: str) -> None:
        """Reject the waiters that would have to wait beyond their deadline."""
        bucket, now, ahead = self._buckets[operation], self._now(), 0
        for waiter in bucket.waiters.values():
            seconds = bucket.window.exhausted_for(now, ahead)
            if seconds and now + seconds > waiter.deadline and not waiter.outcome.done():
                waiter.outcome.set_result(self._refusal(bucket, now, seconds))
            else:
                ahead += 1

    def _refusal(self, bucket: _Bucket, now: float, seconds: float) -> RateLimitError:
        return RateLimitError(
            f"the rate limit is exhausted for {seconds:.1f} s, longer than max_rate_limit_wait allows",
            status=429,
            rate_limit=bucket.window.view(now),
            retry_after=seconds,
        )
