"""Who waits for one limit. Calls with the same reserve and bound stand in one queue; queues do not block one another.

A view of the client may have a reserve of its own, and a bound on its requests in flight. So what holds back the first
call of a queue holds back the whole queue, but no other queue.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator

import attrs

from dd_sa_tokens.config import ConcurrencyBound
from dd_sa_tokens.errors import ClientClosedError, RateLimitError

from .leased_window import Window
from .permit import Permit

_logger = logging.getLogger("dd_sa_tokens")

_NOISE = 0.05  # seconds by which the expected end of a window moves as answers narrow it

Refusal = RateLimitError | ClientClosedError
"""Why a caller gets no permit."""


@attrs.define(eq=False)
class Waiter:
    """A caller that waits for a permit."""

    number: int  # in the order of arrival, over all limits
    operation: str
    reserve: float
    bound: ConcurrencyBound | None
    outcome: asyncio.Future[Permit | Refusal]
    deadline: float  # when its longest wait ends, on the loop's clock
    exhausted_before: float = 0.0  # seconds for which the limit had been exhausted when it came


@attrs.define(eq=False)
class Exhaustion:
    """For how long a limit was exhausted, in all, for calls that leave the same share of it to others."""

    is_exhausted: bool = False  # when this was last sampled
    sampled_at: float = -math.inf
    seconds: float = 0.0

    def sample(self, window: Window, now: float, reserve: float) -> None:
        """Add up the time for which the limit is exhausted."""
        if self.is_exhausted:
            self.seconds += now - self.sampled_at
        seconds = window.exhausted_for(now, 0, reserve)
        if seconds and not self.is_exhausted:
            extra = {"rate_limit": window.view(now), "seconds": seconds}
            _logger.info("the rate limit %s is exhausted for %.2f s", window.name or "(no name)", seconds, extra=extra)
        self.is_exhausted, self.sampled_at = seconds > 0, now


Kind = tuple[float, ConcurrencyBound | None]
"""What callers of one queue have in common: the reserve and the bound."""


@attrs.define(eq=False)
class Queue:
    """The callers that wait for one limit with the same reserve and bound, by number, the oldest first."""

    reserve: float
    bound: ConcurrencyBound | None
    waiters: OrderedDict[int, Waiter] = attrs.field(factory=OrderedDict[int, Waiter])
    expected_start: float = -math.inf  # when the last waiter was expected to pass
    postponed: float = 0.0  # seconds by which that was put off in all, since the deadlines were checked
    slack: float = math.inf  # seconds by which it may be put off before a waiter could miss its deadline
    is_overdue: bool = False  # a waiter's deadline has passed: it waits for other things than the limit

    @property
    def first(self) -> Waiter:
        """The caller that came first."""
        return next(iter(self.waiters.values()))

    def expect_start(self, window: Window, now: float) -> float:
        """Return when the last waiter is expected to pass, as far as this queue says."""
        return now + window.exhausted_for(now, len(self.waiters) - 1, self.reserve)

    def may_miss_a_deadline(self, window: Window, now: float) -> bool:
        """Return whether the window is put off by so much that the longest wait of a waiter may not suffice.

        Only the last waiter is checked. A waiter further ahead that slips by one window is rejected at its own
        deadline. If it then waits for something else than the limit, it is rejected when the limit is exhausted.
        """
        if self.slack == math.inf:
            return False
        expected_start = self.expect_start(window, now)
        later = expected_start - self.expected_start
        if later > _NOISE:
            self.postponed += later
        self.expected_start = expected_start
        if self.postponed > self.slack and expected_start > now:
            return True
        return self.is_overdue and window.exhausted_for(now, 0, self.reserve) > 0

    @property
    def is_bound(self) -> bool:
        """Whether the view of these callers has as many requests in flight as it may have."""
        return self.bound is not None and self.bound.is_full

    def passes_before(self, reserve: float, bound: ConcurrencyBound | None) -> bool:
        """Return whether callers of this queue certainly pass before callers of another one that come later."""
        same = self.reserve == reserve and self.bound is bound
        return same or (self.bound is None and self.reserve <= reserve)


class Queues(dict[Kind, Queue]):
    """The queues of one limit, by their kind. One that is empty is dropped, so this is true if a caller waits."""

    def __init__(self) -> None:
        super().__init__()
        self._exhaustion: dict[float, Exhaustion] = {}  # by reserve; a program has few

    def add(self, waiter: Waiter) -> Queue:
        """Put a caller at the end of its queue; return that."""
        key = (waiter.reserve, waiter.bound)
        queue = self.get(key)
        if queue is None:
            queue = self[key] = Queue(*key)
        queue.waiters[waiter.number] = waiter
        return queue

    def remove(self, waiter: Waiter) -> None:
        """Take a caller out of its queue, if it is there."""
        key = (waiter.reserve, waiter.bound)
        queue = self.get(key)
        if queue is None or queue.waiters.pop(waiter.number, None) is None:
            return
        if not queue.waiters:
            del self[key]

    def move(self, operation: str, other: Queues) -> None:
        """Move the callers of an operation to the queues of another limit, each to the place of its arrival there."""
        moved = [
            waiter for queue in self.values() for waiter in queue.waiters.values() if waiter.operation == operation
        ]
        for waiter in moved:
            self.remove(waiter)
            before = self.exhaustion(waiter.reserve).seconds
            waiter.exhausted_before += other.exhaustion(waiter.reserve).seconds - before
            other.add(waiter).slack = -math.inf  # not known until the deadlines are checked
        for queue in other.values():
            queue.waiters = OrderedDict(sorted(queue.waiters.items()))

    def heads(self) -> Iterable[Waiter]:
        """Return the first caller of each reserve, without those that wait for their own view's requests."""
        heads: dict[float, Waiter] = {}
        for queue in self.values():
            if not queue.is_bound:
                known, first = heads.get(queue.reserve), queue.first
                if known is None or first.number < known.number:
                    heads[queue.reserve] = first
        return heads.values()

    def exhaustion(self, reserve: float) -> Exhaustion:
        """Return for how long the limit was exhausted for callers with a reserve."""
        found = self._exhaustion.get(reserve)
        if found is None:
            found = self._exhaustion[reserve] = Exhaustion()
        return found

    def sample(self, window: Window, now: float) -> None:
        """Add up the time for which the limit is exhausted for the waiting calls."""
        for reserve in {queue.reserve: None for queue in self.values()}:
            self.exhaustion(reserve).sample(window, now, reserve)

    def count_before(self, reserve: float, bound: ConcurrencyBound | None) -> int:
        """Count the callers that certainly pass before one that comes now."""
        return sum(len(queue.waiters) for queue in self.values() if queue.passes_before(reserve, bound))

    def in_order(self) -> Iterator[tuple[Queue, Waiter, int]]:
        """Yield the callers that wait, the oldest first, each with its queue, and how many certainly pass before it.

        One that is rejected before the next is asked for is not among these.
        """
        passed: Counter[Queue] = Counter()
        queue_of = {number: queue for queue in self.values() for number in queue.waiters}
        for number in sorted(queue_of):
            queue = queue_of[number]
            waiter = queue.waiters[number]
            before = sum(n for other, n in passed.items() if other.passes_before(queue.reserve, queue.bound))
            yield queue, waiter, before
            passed[queue] += not waiter.outcome.done()
