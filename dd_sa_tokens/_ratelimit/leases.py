"""The permits that one client has leased from a store, and when it asks for more. Pure: times come as numbers."""

from __future__ import annotations

import math

import attrs

from .store import Lease, LeaseRequest, WindowView

_LEAST_BATCH = 10  # fewest permits that are asked for ahead of demand
_BATCHES = 4  # times `concurrency`: most of these. A round trip then costs a busy client 1%.
_IDLE = 0.1  # seconds after which unspent permits are given back
_IDLE_WHILE_FAR = 1.0
_RETRY_UNAVAILABLE = 0.1  # seconds until the store is asked again; it says at once that it is still unavailable
_RETRY_UNLIMITED = 1.0  # the same, where no limit is known
_FIRST_PROBE_POLL, _LONGEST_PROBE_POLL = 0.02, 0.1  # seconds, while another client's probe is in flight
_SHORTEST_POLL, _LONGEST_POLL = 0.2, 1.0  # seconds, while the limit is exhausted: permits may come back
_POLLS_PER_WINDOW = 10  # while the limit is exhausted
_POLL_SPACING = 0.002  # seconds for each client of the fleet: together they ask the store 500 times a second at most


def _operation_of(leases: Leases) -> str:
    return leases.operation


@attrs.define
class Leases:
    """What one client has of the store's window of one limit.

    Attributes:
        scope: Where the requests go.
        operation: The operation that is asked for.
        concurrency: Most requests that the client has in flight.
        record: The limit's name in the store.
        by_headers: Whether each client uses its own headers only: the store is unavailable, or knows no limit.
        window: The number of the store's window; 0 while none is known.
        unspent: Permits leased and not used yet.
        expires: When the window ends.
        left: Permits that no client had at the last answer; `None` while unknown.
        clients: Clients that had asked the store lately at its last answer.
        limit: Requests in a window; `None` while unknown.
        period: Seconds from window to window.
        paused_until: When the store's pause ends.
        retry_at: When the store may be asked again for want of permits.
        urgent: Whether the store is to hear at once of what has happened.
        is_far: Whether plenty is left, so that permits are leased for callers to come, too.
        is_tight: Whether others leave so little that each finished request is reported at once.
    """

    scope: str
    operation: str
    concurrency: int
    record: str = attrs.field(init=False, default=attrs.Factory(_operation_of, takes_self=True))
    by_headers: bool = False
    window: int = 0
    unspent: int = 0
    expires: float = math.inf
    left: int | None = None
    limit: int | None = None
    period: float = 0.0
    paused_until: float = -math.inf
    retry_at: float = -math.inf
    urgent: bool = False
    is_far: bool = False
    is_tight: bool = False
    clients: int = 1
    _batch: int = _LEAST_BATCH
    _used_up: bool = False  # the last lease
    _low: int = 0  # how few make the client ask for more before it has none
    _finished: int = 0
    _returned: int = 0
    _probe_due: bool = False  # the next permit is the window's probe
    _probe_answered: bool | None = None
    _pause: float = 0.0
    _probe_polls: int = 0
    _last_take: float = -math.inf
    _only_reports: bool = False  # no caller waited when the last request was built
    _last_reserve: float = 0.0  # the reserve of the last request
    _refused: float = 0.0  # calls with this reserve or a larger one get no permit before `retry_at`

    def can_take(self, now: float, reserve: float = 0.0) -> bool:
        """Return whether a leased permit may be used now by a caller that leaves a share to others."""
        if self.unspent <= 0 or now >= self.expires or now < self.paused_until:
            return False
        return not reserve or self.left is None or self.left + self.unspent > self.reserved(reserve)

    def take(self, now: float) -> bool:
        """Use a permit; return whether its request is the window's probe."""
        self.unspent -= 1
        self._used_up = self._used_up or not self.unspent
        self._last_take = now
        is_probe, self._probe_due = self._probe_due, False
        return is_probe

    def put_back(self, window: int, *, is_probe: bool) -> None:
        """Take back a permit whose request was never sent."""
        if window and window == self.window:
            self.unspent += 1
            self._probe_due = self._probe_due or is_probe

    def finish(self, window: int, *, rejected: bool = False, probe_answered: bool | None = None) -> None:
        """Count a request that has ended.

        Args:
            window: The window that its permit was leased in.
            rejected: Whether it got a 429, and so has spent nothing of the window.
            probe_answered: Whether it was the window's probe, and confirmed it; `None` if it was not the probe.
        """
        if not window or window != self.window:
            return
        self._returned += rejected
        self._finished += not rejected
        self._probe_answered = self._probe_answered if probe_answered is None else probe_answered
        self.urgent = self.urgent or probe_answered is not None or self.is_tight

    def drop(self) -> None:
        """Give back what is unspent: the limit is exhausted, although permits are left."""
        self._returned += self.unspent
        self.unspent = 0
        self.urgent = True

    def pause(self, now: float, until: float) -> None:
        """Let no client send until then."""
        self.drop()
        self.paused_until = max(self.paused_until, until)
        self._pause = max(until - now, 0.0)

    def wants_more(self, now: float, needed: int, reserve: float = 0.0) -> bool:
        """Return whether the store is to be asked now.

        Args:
            now: The present time.
            needed: Callers that wait.
            reserve: The least share that they leave to others.
        """
        may_retry = now >= self.retry_at or reserve < self._refused
        if self.urgent and not self.by_headers:
            return True
        if now >= self.expires or self.by_headers:
            return needed > 0 and may_retry
        if self.unspent < needed or not self.unspent:
            return needed > 0 and may_retry and now >= self.paused_until
        return self.is_far and self.unspent <= self._low and may_retry

    def usable_demand(self, now: float, waiting: list[tuple[int, float]]) -> tuple[int, float]:
        """Return how many permits the waiting calls can use, and the least share that they leave to others.

        Args:
            now: The present time.
            waiting: How many callers wait, each number with the reserve of these callers.
        """
        is_known = self.left is not None and now < self.expires
        left = (self.left or 0) + self.unspent
        usable = [(count, share) for count, share in waiting if not is_known or left > self.reserved(share)]
        least = min((share for _, share in waiting), default=0.0)
        return sum(count for count, _ in usable), min((share for _, share in usable), default=least)

    @property
    def has_report(self) -> bool:
        """Whether permits are unspent, or requests have ended that the store does not know of."""
        return self.unspent > 0 or self._finished > 0

    def idle_for(self, now: float) -> float:
        """Return for how many seconds more an idle client waits with its report; 0 or less if it reports now."""
        return self._last_take + (_IDLE_WHILE_FAR if self.is_far else _IDLE) - now

    def available(self, now: float) -> int | None:
        """Return how many permits of the window no other client has; `None` while that is unknown."""
        return None if self.left is None or now >= self.expires else self.left + self.unspent

    def return_unspent(self) -> None:
        """Report what has ended, and return what is unspent: the client is idle."""
        self._batch = max(self._batch // 2, _LEAST_BATCH)
        if self._probe_due:
            self._probe_due, self._probe_answered = False, False
        self.drop()

    def take_request(
        self, now: float, needed: int, reserve: float, view: WindowView | None, *, is_idle: bool
    ) -> LeaseRequest:
        """Build the next request, and reset what it reports.

        Args:
            now: The present time.
            needed: Callers that wait.
            reserve: The share that they leave to others.
            view: What the headers say of the current window.
            is_idle: Whether no caller waits, not even one that no permit is left for.
        """
        if now >= self.expires:
            self._forget_window()
        if self._used_up or (self.unspent <= self._low and self.is_far):
            self._batch, self._used_up = min(2 * self._batch, max(_BATCHES * self.concurrency, _LEAST_BATCH)), False
        missing = max(needed - self.unspent, 0)
        is_low = self.is_far and self.unspent <= self._low and not self._returned
        ahead = self._batch if needed or is_low else 0
        request = LeaseRequest(
            scope=self.scope,
            record=self.record,
            operation=self.operation,
            window=self.window,
            finished=self._finished,
            returned=self._returned,
            needed=missing,
            wanted=missing + ahead,
            reserve=reserve,
            probe_answered=self._probe_answered,
            pause=self._pause,
            view=view,
        )
        self._finished = self._returned = 0
        self._probe_answered, self._pause, self.urgent = None, 0.0, False
        self._only_reports, self._last_reserve = is_idle, reserve
        return request

    def apply(self, now: float, lease: Lease | None) -> None:
        """Apply the store's reply; `None` if it is unavailable."""
        if lease is None:
            self._forget_window()
            self.by_headers, self.urgent, self.retry_at = True, False, now + _RETRY_UNAVAILABLE
            return
        if lease.record != self.record:
            self.record, self.retry_at = lease.record, now
            return
        if lease.window != self.window:
            self._forget_window()
            self.window = lease.window
        self.unspent += lease.granted
        if lease.granted:
            self._last_take = max(self._last_take, now)
        self._probe_due = self._probe_due or lease.is_probe
        self.left, self.limit, self.period = lease.left, lease.limit, lease.period or 0.0
        self.is_far, self.is_tight, self._low = lease.is_far, lease.is_tight, self.unspent // 4
        self.clients = lease.clients
        if lease.paused_for:
            self.paused_until = now + lease.paused_for
        self.expires = math.inf if lease.limit is None else now + lease.ends_in
        self.by_headers = lease.limit is None and not (self.unspent or lease.is_probing or lease.paused_for)
        self.retry_at, self._refused = self._next_poll_at(now, lease), self._last_reserve if lease.left else 0.0

    def _next_poll_at(self, now: float, lease: Lease) -> float:
        if lease.is_probing:
            self._probe_polls += 1
            seconds = min(_FIRST_PROBE_POLL * 2.0 ** (self._probe_polls - 1), _LONGEST_PROBE_POLL)
            return now + max(seconds, lease.clients * _POLL_SPACING)
        self._probe_polls = 0
        if self.by_headers:
            return now + _RETRY_UNLIMITED
        if lease.granted or self._only_reports:
            return now
        seconds = min(max(self.period / _POLLS_PER_WINDOW, _SHORTEST_POLL), _LONGEST_POLL)
        return min(self.expires, now + max(seconds, lease.clients * _POLL_SPACING))

    def _forget_window(self) -> None:
        self.window = self.unspent = self._finished = self._returned = 0
        self.left = None
        self.expires = math.inf
        self._probe_due, self._probe_answered = False, None

    def exhausted_for(self, now: float, ahead: int, reserve: float) -> float:
        """Return for how many seconds the limit is known to be exhausted for a caller with `ahead` before it."""
        paused = max(self.paused_until - now, 0.0)
        if self.limit is None or self.left is None or now >= self.expires:
            return paused
        reserved = self.reserved(reserve)
        room = max(self.left + self.unspent - reserved, 0) - ahead
        if room > 0:
            return paused
        windows: int = -room // (self.limit - reserved)
        return max(self.expires - now + windows * self.period, paused)

    def reserved(self, reserve: float) -> int:
        """Return how many requests of a window a share is."""
        return 0 if self.limit is None else min(int(self.limit * reserve), self.limit - 1)
