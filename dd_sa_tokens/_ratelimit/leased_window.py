"""A window whose permits come from a store that many processes share; and from the headers while it is unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import attrs

from dd_sa_tokens._cancellation import Cancellation
from dd_sa_tokens.errors import ConfigurationError
from dd_sa_tokens.models import RateLimit

from .leases import Leases
from .permit import Permit
from .store import Lease, LeaseRequest, RateLimitStore
from .window import RateLimitWindow

_UNTIL_AN_EVENT = 1.0  # seconds: the event comes sooner, and then it is asked again who may go

_logger = logging.getLogger("dd_sa_tokens")


@attrs.define
class SharedLimits:
    """What the windows of one client have in common.

    Attributes:
        store: Where the shared windows are.
        scope: Where the client's requests go.
        leased: The window that leased a permit, the store's number of it, and whether its request is the probe.
    """

    store: RateLimitStore
    scope: str
    leased: dict[Permit, tuple[LeasedWindow, int, bool]] = attrs.field(factory=dict)
    _is_checked: bool = False

    def check(self) -> None:
        """Check the store once, before the client's first request.

        A store that is closed later is not checked again: the client then uses the headers only.

        Raises:
            ConfigurationError: The store cannot be used.
        """
        if not self._is_checked:
            self.store.check()
            self._is_checked = True


def share_limits(store: RateLimitStore | None, scope: str) -> SharedLimits | None:
    """Return what the windows of one client need to share their limits; `None` without a store.

    Args:
        store: The store.
        scope: Where the client's requests go: the base URL.

    Raises:
        ConfigurationError: It is no store.
    """
    if store is None:
        return None
    is_store = callable(getattr(store, "lease", None)) and callable(getattr(store, "check", None))
    if not is_store or isinstance(store, type):
        kind = f"the class {store.__name__}" if isinstance(store, type) else type(store).__name__
        msg = f"rate_limit_store must be a store such as a dd_sa_tokens.fleet.RedisStore, not {kind}"
        raise ConfigurationError(msg)
    return SharedLimits(store, scope)


class LeasedWindow:
    """The window of one limit in a store, with the same methods as a `RateLimitWindow`.

    It has such a window, too, which it keeps up to date in case the store fails.
    It asks the store in the background: one round trip at a time, in a task of its own.

    Args:
        shared: The store.
        headers: The window as the headers of this client's answers describe it.
        operation: The first operation that spends the limit. It names the limit in the store until an answer does.
        now: The loop's clock.
        demand: Returns how many callers could go if there were permits, each number with the reserve of these callers.
        on_change: Is called when the store has answered.
    """

    def __init__(
        self,
        shared: SharedLimits,
        headers: RateLimitWindow,
        operation: str,
        *,
        now: Callable[[], float],
        demand: Callable[[], list[tuple[int, float]]],
        on_change: Callable[[], None],
    ) -> None:
        shared.check()
        self._shared = shared
        self._headers = headers
        self._leases = Leases(shared.scope, operation, max(headers.concurrency, 1))
        self._now = now
        self._demand = demand
        self._on_change = on_change
        self._named: tuple[str | None, int | None, float | None] = (None, None, None)
        self._starting: asyncio.Handle | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def name(self) -> str | None:
        """The limit's name; `None` while unknown."""
        return self._headers.name

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return self._headers.in_flight

    @in_flight.setter
    def in_flight(self, count: int) -> None:
        self._headers.in_flight = count

    def can_send(self, now: float, reserve: float = 0.0) -> bool:
        """Return whether a request may be sent now; ask the store for more permits if it is time."""
        leases = self._leases
        may = self._headers.can_send(now, reserve) if leases.by_headers else leases.can_take(now, reserve)
        if leases.wants_more(now, 0 if may and not leases.by_headers else 1, reserve):
            self._ask()
        return may

    def delay_until_admitted(self, now: float, reserve: float = 0.0) -> float:
        """Return for how many seconds no request may be sent; 0 if one may be sent now."""
        if self.can_send(now, reserve):
            return 0.0
        if self._leases.by_headers:
            return self._headers.delay_until_admitted(now, reserve)
        leases = self._leases
        delay = max(min(leases.retry_at, leases.expires), leases.paused_until) - now
        # While the store is asked, or what was leased is for callers without a reserve, an event ends the wait.
        return _UNTIL_AN_EVENT if self._starting or self._task or delay <= 0 else delay

    def exhausted_for(self, now: float, ahead: int, reserve: float = 0.0) -> float:
        """Return for how many seconds the limit is known to be exhausted for a request with `ahead` before it."""
        if self._leases.by_headers:
            return self._headers.exhausted_for(now, ahead, reserve)
        return self._leases.exhausted_for(now, ahead, reserve)

    def acquire(self, now: float, operation: str = "") -> Permit:
        """Give out a permit: a leased one, unless the store is unavailable."""
        permit = self._headers.acquire(now, operation)
        if not self._leases.by_headers:
            is_probe = self._leases.take(now)
            self._shared.leased[permit] = self, self._leases.window, is_probe
        return permit

    def cancel(self, permit: Permit) -> None:
        """Take back the permit of a request that never left."""
        self._headers.cancel(permit)
        owner, window, is_probe = self._shared.leased.pop(permit, (self, 0, False))
        owner.put_back(window, is_probe=is_probe)

    def abandon(self, permit: Permit) -> None:
        """Account for a request that got no answer: the server may have counted it."""
        self._headers.abandon(permit)
        self._finish(permit, rejected=False, confirms=False)

    def record_response(self, permit: Permit, now: float, wall: float, rate: RateLimit | None, status: int) -> None:
        """Learn from an answer; see `RateLimitWindow.record_response`."""
        headers, leases = self._headers, self._leases
        headers.record_response(permit, now, wall, rate, status)
        named = headers.name, headers.limit, headers.period
        if headers.name and named != self._named:
            self._named, leases.record = named, f"{headers.name}/{headers.limit}/{headers.period or 0.0:g}"
        if status == 429 and headers.confirmed and headers.remaining == 0:
            leases.drop()
        if leases.by_headers and headers.limit is not None and leases.limit is None:
            leases.retry_at = min(leases.retry_at, now)  # a limit has shown itself
        self._finish(permit, rejected=status == 429, confirms=headers.confirmed)

    def _finish(self, permit: Permit, *, rejected: bool, confirms: bool) -> None:
        owner, window, is_probe = self._shared.leased.pop(permit, (self, 0, False))
        owner.learn_record(self._leases.record)
        owner.finish(window, rejected=rejected, probe_answered=confirms if is_probe else None)

    def put_back(self, window: int, *, is_probe: bool) -> None:
        """Take back a permit that was leased here, and not used."""
        self._leases.put_back(window, is_probe=is_probe)
        self._watch_idleness()

    def learn_record(self, record: str) -> None:
        """Take over the name that the limit has in the store, as an answer to a request of this window shows it."""
        self._leases.record = record

    def finish(self, window: int, *, rejected: bool, probe_answered: bool | None) -> None:
        """Count a request that had a permit leased here; see `Leases.finish`."""
        self._leases.finish(window, rejected=rejected, probe_answered=probe_answered)
        if self._leases.urgent and not self._leases.by_headers:
            self._ask()
        self._watch_idleness()

    def pause(self, until: float) -> None:
        """Let no request pass until then, in this process or any other."""
        self._headers.pause(until)
        self._leases.pause(self._now(), until)
        self._ask()

    def view(self, now: float) -> RateLimit | None:
        """Describe the current window as the store knows it, or as the answers do; `None` while nothing is known."""
        leases, seen = self._leases, self._headers.view(now)
        if leases.by_headers or leases.limit is None or leases.left is None or now >= leases.expires:
            return seen
        remaining = leases.left + leases.unspent
        if self._headers.confirmed and seen is not None and seen.remaining is not None:
            remaining = min(remaining, seen.remaining)
        return RateLimit(leases.limit, leases.period, remaining, leases.expires - now, self.name)

    def _ask(self) -> None:
        """Ask the store, once the code that runs now has come to its end."""
        if self._starting is None and self._task is None and not self._closed:
            self._starting = asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._starting = None
        self._task = asyncio.get_running_loop().create_task(self._renew_lease())

    async def _renew_lease(self) -> None:
        """Report to the store, apply its lease, and let the limiter admit calls."""
        try:
            lease = await self._try_lease(self._take_request())
            now = self._now()
            if lease is None and not self._leases.by_headers and self._leases.clients > 1:
                self._headers.take_over(self._leases.clients, self._leases.available(now))
            self._leases.apply(now, lease)
        finally:
            self._task = None
        if self._closed:
            return
        self._on_change()
        now = self._now()
        if self._leases.wants_more(now, *self._leases.usable_demand(now, self._demand())):
            self._ask()
        self._watch_idleness()

    def _take_request(self) -> LeaseRequest:
        now, waiting = self._now(), self._demand()
        needed, reserve = self._leases.usable_demand(now, waiting)
        is_idle = not any(count for count, _ in waiting)
        return self._leases.take_request(now, needed, reserve, self._headers.describe(now), is_idle=is_idle)

    async def _try_lease(self, request: LeaseRequest) -> Lease | None:
        caller = Cancellation.of_current_task()
        try:
            lease = await self._shared.store.lease(request)
        except (Exception, asyncio.CancelledError) as error:
            if caller.is_external():
                raise
            # A user's store must not end the only task that asks it.
            _logger.warning("the rate-limit store raised %s: using the headers only", type(error).__name__)
            return None
        if lease is None or isinstance(cast("object", lease), Lease):
            return lease
        _logger.warning("the rate-limit store gave no Lease but %s: using the headers only", type(lease).__name__)
        return None

    def _watch_idleness(self) -> None:
        """Set a timer that reports to the store, and gives unspent permits back, when no caller takes them."""
        if self._idle is None and self._leases.has_report and not self._closed:
            delay = max(self._leases.idle_for(self._now()), 0.0)
            self._idle = asyncio.get_running_loop().call_later(delay, self._on_idle)

    def _on_idle(self) -> None:
        self._idle = None
        if self._leases.has_report and self._leases.idle_for(self._now()) <= 0:
            self._leases.return_unspent()
            self._ask()
        else:
            self._watch_idleness()

    def close(self) -> None:
        """Ask no more, and leave no timer."""
        self._closed = True
        for handle in (self._starting, self._idle):
            if handle is not None:
                handle.cancel()
        self._starting = self._idle = None

    async def return_leases(self) -> None:
        """Report to the store, and return the unspent permits: the client is closed."""
        if self._task is not None:
            await asyncio.wait([self._task])  # a lease that is in flight would be lost
        if self._leases.has_report and not self._leases.by_headers:
            self._leases.return_unspent()
            await self._try_lease(attrs.evolve(self._take_request(), needed=0, wanted=0))


Window = RateLimitWindow | LeasedWindow
"""Where permits come from: the headers of this client's own answers, or a store."""
