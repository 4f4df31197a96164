"""The limiter: windows with an event loop around them. It decides who waits, in what order, and for how long.

A request passes when its operation's window has room besides the reserve, and both the client and the request's view
are below their `concurrency`. Of all callers that may go, the one that came first passes first. One timer serves all of
them.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Iterator

from dd_sa_tokens._clock import Clock
from dd_sa_tokens._protocol.headers import knows_reset
from dd_sa_tokens.config import ConcurrencyBound
from dd_sa_tokens.errors import ClientClosedError, RateLimitError
from dd_sa_tokens.models import RateLimit

from .buckets import Bucket, Buckets, Route
from .contention import Contention
from .leased_window import LeasedWindow, SharedLimits
from .permit import Permit
from .queues import Refusal, Waiter
from .window import RateLimitWindow


class RateLimiter:
    """Lets requests through as the rate limits and the client's concurrency allow.

    Each permit must come back: through `record_response`, `abandon` or `cancel`.

    Args:
        concurrency: Most requests in flight.
        clock: Where the time comes from.
        shared: Where the limits are shared with other processes; `None` if others are seen in headers only.
    """

    def __init__(self, concurrency: int, *, clock: Clock = Clock(), shared: SharedLimits | None = None) -> None:
        self.concurrency = concurrency
        self._now = clock.monotonic
        self._wall = clock.wall
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
        headers = RateLimitWindow(concurrency=self.concurrency, contention=Contention(draw=random.random))
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

    def _demand(self, bucket: Bucket) -> list[tuple[int, float]]:
        """Return how many callers could go if there were permits, each number with the reserve of these callers."""
        most = self.concurrency - self.in_flight
        return [
            (min(len(queue.waiters), most), queue.reserve) for queue in bucket.queues.values() if not queue.is_bound
        ]

    def _on_lease(self, bucket: Bucket) -> None:
        """After a reply of the store, admit the calls that now may pass, and reject those whose wait is too long."""
        self._reject_postponed(bucket)
        self._admit()

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current window of the operation used last."""
        return None if self._last is None else self._last.window.view(self._now())

    def share_a_limit(self, *operations: str) -> bool:
        """Return whether operations are known to spend the same limit."""
        return len({id(self._routes[name].bucket) if name in self._routes else name for name in operations}) == 1

    def try_acquire(self, operation: str, reserve: float = 0.0, bound: ConcurrencyBound | None = None) -> Permit | None:
        """Return a permit if the request may be sent at once; `None` if it has to wait, or others wait.

        Args:
            operation: What the request is for.
            reserve: Share (0 <= r < 1) of the window that the request leaves to others.
            bound: Limits the requests of a view that are in flight; `None` if only the client's own limit holds.
        """
        route = self._routes.get(operation) or self._buckets.add_route(operation)
        bucket = self._last = route.bucket
        now = self._now()
        if (
            bucket.queues
            or self.in_flight >= self.concurrency
            or (bound is not None and bound.is_full)
            or not bucket.window.can_send(now, reserve)
        ):
            return None
        return self._grant(operation, route, bound, now)

    def _grant(self, operation: str, route: Route, bound: ConcurrencyBound | None, now: float) -> Permit:
        self.in_flight += 1
        route.in_flight += 1
        permit = route.bucket.window.acquire(now, operation)
        if bound is not None:
            bound.in_flight += 1
            permit.bound = bound
        return permit

    async def acquire(
        self,
        operation: str,
        max_wait: float | None = None,
        *,
        reserve: float = 0.0,
        bound: ConcurrencyBound | None = None,
    ) -> Permit | Refusal:
        """Wait for a permit.

        Args:
            operation: What the request is for.
            max_wait: Most seconds to wait for the rate limit; `None` for as long as it takes.
            reserve: As for `try_acquire`.
            bound: As for `try_acquire`.

        Returns:
            The permit; or an error, as soon as it is known that the wait would be longer, or the client was closed. A
            refusal is returned, not raised.
        """
        permit = self.try_acquire(operation, reserve, bound)
        if permit is not None:
            return permit
        bucket, begun = self._routes[operation].bucket, self._now()
        bucket.queues.exhaustion(reserve).sample(bucket.window, begun, reserve)
        seconds = bucket.window.exhausted_for(begun, bucket.queues.count_before(reserve, bound), reserve)
        if max_wait is not None and seconds > max_wait:
            return self._refusal(bucket, begun, seconds, reserve)
        loop = asyncio.get_running_loop()
        deadline = math.inf if max_wait is None else begun + max_wait
        waiter = Waiter(next(self._numbers), operation, reserve, bound, loop.create_future(), deadline)
        self._enqueue(waiter, bucket, begun)
        timer = None
        if max_wait is not None:
            timer = loop.call_later(max_wait, self._on_deadline, operation)
        try:
            outcome = await waiter.outcome
        except asyncio.CancelledError:
            if not waiter.outcome.cancelled():
                self._cancel_if_granted(waiter.outcome.result())
            raise
        finally:
            if timer is not None:
                timer.cancel()
            waited = self._leave(waiter)
        if isinstance(outcome, Permit):
            outcome.waited = waited
        return outcome

    def _enqueue(self, waiter: Waiter, bucket: Bucket, now: float) -> None:
        waiter.exhausted_before = bucket.queues.exhaustion(waiter.reserve).seconds
        queue = bucket.queues.add(waiter)
        queue.expected_start = queue.expect_start(bucket.window, now)
        queue.slack = min(queue.slack, queue.postponed + waiter.deadline - queue.expected_start)
        if len(queue.waiters) == 1:
            self._admit()  # if only other queues have to wait, it passes at once

    def _leave(self, waiter: Waiter) -> float:
        """Take a caller out of its queue, if it is still there; return how long it waited for the rate limit."""
        bucket = self._routes[waiter.operation].bucket  # it may be another than when the caller came
        bucket.queues.remove(waiter)
        exhaustion = bucket.queues.exhaustion(waiter.reserve)
        exhaustion.sample(bucket.window, self._now(), waiter.reserve)
        waited = max(exhaustion.seconds - waiter.exhausted_before, 0.0)
        self.waited += waited
        return waited

    def _cancel_if_granted(self, outcome: Permit | Refusal) -> None:
        if isinstance(outcome, Permit):
            self.cancel(outcome)

    def record_response(self, permit: Permit, rate: RateLimit | None, status: int, *, pause: float = 0.0) -> None:
        """Learn from an answer, and take the permit back.

        Args:
            permit: The request's.
            rate: What the rate-limit headers said; `None` if there were none.
            status: The HTTP status.
            pause: Seconds for which a 429 pauses all requests of its limit, if its headers do not say when the window
                ends.
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
        self._release(permit, route)

    def abandon(self, permit: Permit) -> None:
        """Take back the permit of a request that went out and got no answer."""
        route = self._routes[permit.operation]
        route.bucket.window.abandon(permit)
        self._release(permit, route)

    def cancel(self, permit: Permit) -> None:
        """Take back the permit of a request that was never sent."""
        route = self._routes[permit.operation]
        route.bucket.window.cancel(permit)
        self._release(permit, route)

    def close(self) -> None:
        """End the wait of all callers: the client is being closed."""
        for bucket in self._buckets.all:
            for _, waiter, _ in bucket.queues.in_order():
                if not waiter.outcome.done():
                    waiter.outcome.set_result(ClientClosedError("the client was closed while the call was waiting"))
            if isinstance(bucket.window, LeasedWindow):
                bucket.window.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def return_leases(self) -> None:
        """Return to the store what was leased and is not used: the client is being closed."""
        for bucket in self._buckets.all:
            if isinstance(bucket.window, LeasedWindow):
                await bucket.window.return_leases()

    def pause(self, operation: str, seconds: float) -> None:
        """Let nothing of this operation's limit pass for a while."""
        bucket = self._routes[operation].bucket
        bucket.window.pause(self._now() + seconds)
        self._reject_postponed(bucket)

    def _release(self, permit: Permit, route: Route) -> None:
        self.in_flight -= 1
        route.in_flight -= 1
        if permit.bound is not None:
            permit.bound.in_flight -= 1
        if route.bucket.queues:
            self._reject_postponed(route.bucket)
        for bucket in self._buckets.all:
            if bucket.queues:
                self._admit()
                return

    def _heads(self) -> Iterator[tuple[Bucket, Waiter]]:
        """Yield, for each bucket, the first waiting call of each reserve; see `Queues.heads`."""
        for bucket in self._buckets.all:
            for waiter in bucket.queues.heads():
                yield bucket, waiter

    def _admit(self) -> None:
        """Let the next callers pass, as many as may."""
        now = self._now()
        for bucket in self._buckets.all:
            bucket.queues.sample(bucket.window, now)
        while self.in_flight < self.concurrency:
            ready = [pair for pair in self._heads() if pair[0].window.can_send(now, pair[1].reserve)]
            if not ready:
                break
            bucket, waiter = min(ready, key=lambda pair: pair[1].number)
            bucket.queues.remove(waiter)
            if not waiter.outcome.done():
                route = self._routes[waiter.operation]
                waiter.outcome.set_result(self._grant(waiter.operation, route, waiter.bound, now))
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Set the timer for the moment at which the first window with waiters may have room again."""
        if self.in_flight >= self.concurrency:
            return  # an answer will make room
        delays = [bucket.window.delay_until_admitted(now, waiter.reserve) for bucket, waiter in self._heads()]
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
        """Reject the waiters whose longest wait will not suffice, once the window is put off by enough for that."""
        now = self._now()
        if any([queue.may_miss_a_deadline(bucket.window, now) for queue in bucket.queues.values()]):  # noqa: C419 - each
            self._reject_expired(bucket)

    def _reject_expired(self, bucket: Bucket) -> None:
        """Reject the waiters that would have to wait beyond their deadline."""
        now = self._now()
        for queue in bucket.queues.values():
            queue.postponed, queue.slack, queue.is_overdue = 0.0, math.inf, False
        for queue, waiter, before in bucket.queues.in_order():
            seconds = bucket.window.exhausted_for(now, before, waiter.reserve)
            if seconds and now + seconds > waiter.deadline and not waiter.outcome.done():
                waiter.outcome.set_result(self._refusal(bucket, now, seconds, waiter.reserve))
            elif not waiter.outcome.done():
                queue.slack = min(queue.slack, max(waiter.deadline - now - seconds, 0.0))
                queue.is_overdue = queue.is_overdue or waiter.deadline <= now

    def _refusal(self, bucket: Bucket, now: float, seconds: float, reserve: float) -> RateLimitError:
        less = f", less the reserve of {reserve:g}," if reserve else ""
        return RateLimitError(
            f"the rate limit{less} is exhausted for {seconds:.1f} s, longer than max_rate_limit_wait allows",
            status=429,
            rate_limit=bucket.window.view(now),
            retry_after=seconds,
        )
