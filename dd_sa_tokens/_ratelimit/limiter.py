"""The limiter: windows with an event loop around them. It decides who waits, in what order, and for how long.

A request passes when its operation's window has room and the client is below its `concurrency`. The callers that wait
for one limit pass in the order in which they came; among several limits the oldest caller that may go is first. One
timer serves all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator

from dd_sa_tokens._clock import Clock
from dd_sa_tokens._protocol.headers import knows_reset
from dd_sa_tokens.errors import ClientClosedError, RateLimitError
from dd_sa_tokens.models import RateLimit

from .buckets import Bucket, Buckets, Refusal, Route, Waiter
from .leased_window import LeasedWindow, SharedLimits
from .window import Permit, RateLimitWindow

_NOISE = 0.05  # seconds by which the expected end of a window moves as answers narrow it


class RateLimiter:
    """Lets requests through as the rate limits and the client's concurrency allow.

    Each permit must come back: through `record_response`, `abandon` or `cancel`.

    Args:
        concurrency: Most requests in flight.
        reserve: Share of each window that is left to others.
        clock: Where the time comes from.
        shared: Where the limits are shared with other processes; `None` if they are seen in headers only.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        reserve: float = 0.0,
        clock: Clock = Clock(),
        shared: SharedLimits | None = None,
    ) -> None:
        self._concurrency = concurrency
        self._now = clock.monotonic
        self._wall = clock.wall
        self._reserve = reserve
        self._shared = shared
        self._buckets = Buckets(self._new_bucket)
        self._routes = self._buckets.routes
        self._last: Bucket | None = None
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0  # uvloop's handles for less than 1 ms have no `when()`, so the time is stored here
        self.in_flight = 0
        self.waited = 0.0

    def _new_bucket(self, operation: str) -> Bucket:
        headers = RateLimitWindow(reserve=self._reserve, concurrency=self._concurrency)
        bucket = Bucket(headers)
        if self._shared is not None:
            bucket.window = LeasedWindow(
                self._shared,
                headers,
                operation,
                now=self._now,
                demand=lambda: self._demand(bucket),
                on_change=lambda: self._on_lease(bucket),
            )
        return bucket

    def _demand(self, bucket: Bucket) -> tuple[int, float]:
        """Return how many callers could go at once if there were permits, and the share that they leave to others."""
        return min(len(bucket.waiters), self._concurrency - self.in_flight), self._reserve

    def _on_lease(self, bucket: Bucket) -> None:
        """Let those pass who may after the store has answered, and reject those who would have to wait too long."""
        if bucket.with_deadline:
            self._reject_postponed(bucket)
        self._admit()

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current window of the operation used last."""
        return None if self._last is None else self._last.window.view(self._now())

    def share_a_limit(self, *operations: str) -> bool:
        """Return whether operations are known to spend the same limit."""
        return len({id(self._routes[name].bucket) if name in self._routes else name for name in operations}) == 1

    def try_acquire(self, operation: str) -> Permit | None:
        """Return a permit if the request may be sent at once; `None` if it has to wait."""
        route = self._routes.get(operation) or self._buckets.add_route(operation)
        bucket = self._last = route.bucket
        now = self._now()
        if bucket.waiters or self.in_flight >= self._concurrency or not bucket.window.can_send(now):
            return None
        self.in_flight += 1
        route.in_flight += 1
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
        bucket = self._routes[operation].bucket
        begun = self._now()
        bucket.sample(begun)
        before = bucket.exhausted_seconds
        seconds = bucket.window.exhausted_for(begun, len(bucket.waiters))
        if max_wait is not None and seconds > max_wait:
            return self._refusal(bucket, begun, seconds)
        deadline = math.inf if max_wait is None else begun + max_wait
        waiter = Waiter(operation, asyncio.get_running_loop().create_future(), deadline)
        number = next(self._numbers)
        bucket.waiters[number] = waiter
        bucket.with_deadline += max_wait is not None
        bucket.expected_start = begun + seconds
        self._arm(begun)
        alarm = None
        if max_wait is not None:
            alarm = waiter.outcome.get_loop().call_later(max_wait, self._on_deadline, operation)
        try:
            outcome = await waiter.outcome
        except asyncio.CancelledError:
            if not waiter.outcome.cancelled():
                self._give_back(waiter.outcome.result())
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            bucket = self._routes[operation].bucket  # it may be another by now
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
            self.pause(permit.operation, pause)
        route = self._routes[permit.operation]
        bucket = route.bucket
        if rate is not None and rate.name and bucket.key != (key := (rate.name, rate.limit, rate.period)):
            self._buckets.assign(permit.operation, route, key)
            self._last = route.bucket if self._last is bucket else self._last
        route.bucket.window.record_response(permit, self._now(), self._wall(), rate, status)
        self._release(route)

    def abandon(self, permit: Permit) -> None:
        """Take back the permit of a request that went out and got no answer."""
        route = self._routes[permit.operation]
        route.bucket.window.abandon(permit)
        self._release(route)

    def cancel(self, permit: Permit) -> None:
        """Take back the permit of a request that was never sent."""
        route = self._routes[permit.operation]
        route.bucket.window.cancel(permit)
        self._release(route)

    def close(self) -> None:
        """End the wait of all callers: the client is being closed."""
        for bucket in self._buckets.all:
            for waiter in bucket.waiters.values():
                if not waiter.outcome.done():
                    waiter.outcome.set_result(ClientClosedError("the client was closed while the call was waiting"))
            if isinstance(bucket.window, LeasedWindow):
                bucket.window.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def give_back(self) -> None:
        """Give back to the store what was leased and is not used: the client is being closed."""
        for bucket in self._buckets.all:
            if isinstance(bucket.window, LeasedWindow):
                await bucket.window.give_back()

    def pause(self, operation: str, seconds: float) -> None:
        """Let nothing of this operation's limit pass for a while."""
        bucket = self._routes[operation].bucket
        bucket.window.pause(self._now() + seconds)
        if bucket.with_deadline:
            self._reject_postponed(bucket)

    def _release(self, route: Route) -> None:
        self.in_flight -= 1
        route.in_flight -= 1
        if route.bucket.with_deadline:
            self._reject_postponed(route.bucket)
        for bucket in self._buckets.all:
            if bucket.waiters:
                self._admit()
                return

    def _with_waiters(self) -> Iterator[Bucket]:
        return (bucket for bucket in self._buckets.all if bucket.waiters)

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
                self._routes[waiter.operation].in_flight += 1
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

    def _on_deadline(self, operation: str) -> None:
        self._reject_expired(self._routes[operation].bucket)

    def _reject_postponed(self, bucket: Bucket) -> None:
        """Reject the waiters whose longest wait will not suffice, each time the window is put off.

        Only the last waiter is checked. A waiter further ahead that slips by one window, for which a single request of
        others suffices, is rejected at its own deadline.
        """
        now = self._now()
        seconds = bucket.window.exhausted_for(now, len(bucket.waiters) - 1)
        expected, bucket.expected_start = bucket.expected_start, now + seconds
        if seconds and bucket.expected_start > expected + _NOISE:
            self._reject_expired(bucket)

    def _reject_expired(self, bucket: Bucket) -> None:
        """Reject the waiters that would have to wait beyond their deadline."""
        now, ahead = self._now(), 0
        for waiter in bucket.waiters.values():
            seconds = bucket.window.exhausted_for(now, ahead)
            if seconds and now + seconds > waiter.deadline and not waiter.outcome.done():
                waiter.outcome.set_result(self._refusal(bucket, now, seconds))
            else:
                ahead += 1

    def _refusal(self, bucket: Bucket, now: float, seconds: float) -> RateLimitError:
        return RateLimitError(
            f"the rate limit is exhausted for {seconds:.1f} s, longer than max_rate_limit_wait allows",
            status=429,
            rate_limit=bucket.window.view(now),
            retry_after=seconds,
        )
