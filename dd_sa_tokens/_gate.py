"""Who waits, in what order, for how long: the ledgers with an event loop around them.

A request passes when its operation's ledger has room and the client has a free place (`concurrency`). Those who wait
for one ledger pass in the order in which they came; among ledgers the oldest waiter that may go is first. One timer
serves all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

import attrs

from ._ledger import Ledger, Ticket
from .errors import ClientClosedError, RateLimitError
from .models import RateLimit

_logger = logging.getLogger("dd_sa_tokens")

_NOISE = 0.05  # seconds by which the expected end of a window moves as answers narrow it down


Refusal = RateLimitError | ClientClosedError


@attrs.define(eq=False)
class _Waiter:
    answer: asyncio.Future[Ticket | Refusal]
    deadline: float  # when its patience ends, on the loop's clock


@attrs.define(eq=False)
class _Lane:
    """One ledger and those who wait for it, by the number that each drew, the oldest first."""

    ledger: Ledger
    waiters: OrderedDict[int, _Waiter] = attrs.field(factory=OrderedDict[int, _Waiter])
    impatient: int = 0  # waiters with a deadline
    served: float = -math.inf  # when the last of them was expected to have quota
    short: bool = False  # whether the quota was spent when somebody last looked
    looked: float = -math.inf  # when that was
    shortages: float = 0.0  # seconds for which the quota was spent, in all

    def look(self, now: float) -> None:
        """Keep the account of the shortages."""
        if self.short:
            self.shortages += now - self.looked
        short = self.ledger.shortage(now, 0)
        if short and not self.short:
            _logger.info("the quota %s is spent for %.2f s", self.ledger.name or "(no name)", short)
        self.short, self.looked = short > 0, now


class Gate:
    """Lets requests through as the quota and the client's places allow.

    Each ticket must come back, as `answered`, `lost` or `forget`.

    Args:
        places: Most requests in flight.
        reserve: Share of each window's quota that is left to others.
        clock: The loop's clock, in seconds.
        wall: Seconds since the epoch.
    """

    def __init__(
        self,
        places: int,
        *,
        reserve: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._places = places
        self._reserve = reserve
        self._clock = clock
        self._wall = wall
        self._lanes: dict[str, _Lane] = {}  # by operation; those with the same limit have the same one
        self._named: dict[str, _Lane] = {}
        self._last: _Lane | None = None
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._rings_at = 0.0  # kept here, since uvloop has handles that do not tell: for less than a millisecond
        self.in_flight = 0
        self.waited = 0.0

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current window of the operation used last."""
        return None if self._last is None else self._last.ledger.view(self._clock())

    def try_enter(self, operation: str) -> Ticket | None:
        """Pass at once, if nobody has to wait."""
        lane = self._lanes.get(operation)
        if lane is None:
            lane = self._lanes[operation] = _Lane(Ledger(reserve=self._reserve, places=self._places))
        self._last = lane
        now = self._clock()
        if lane.waiters or self.in_flight >= self._places or not lane.ledger.may_go(now):
            return None
        self.in_flight += 1
        return lane.ledger.send(now)

    async def enter(self, operation: str, patience: float | None = None) -> Ticket | Refusal:
        """Wait for permission.

        Args:
            operation: What the request is for.
            patience: Seconds that the call is ready to wait for quota; `None` for as long as it takes.

        Returns:
            The permission; or an error, as soon as it is known that the quota would let it wait longer, or the
            client was closed.
        """
        ticket = self.try_enter(operation)
        if ticket is not None:
            return ticket
        lane = self._lanes[operation]
        begun = self._clock()
        lane.look(begun)
        before = lane.shortages
        short = lane.ledger.shortage(begun, len(lane.waiters))
        if patience is not None and short > patience:
            return self._refusal(lane, begun, short)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), math.inf if patience is None else begun + patience)
        number = next(self._numbers)
        lane.waiters[number] = waiter
        lane.impatient += patience is not None
        lane.served = begun + short
        self._arm(begun)
        alarm = None if patience is None else waiter.answer.get_loop().call_later(patience, self._turn_away, operation)
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            if not waiter.answer.cancelled():
                self._give_back(operation, waiter.answer.result())
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            lane = self._lanes[operation]  # it may be another by now
            lane.waiters.pop(number, None)
            lane.impatient -= patience is not None
            lane.look(self._clock())
            waited = max(lane.shortages - before, 0.0)
            self.waited += waited
        if isinstance(answer, Ticket):
            answer.waited = waited
        return answer

    def _give_back(self, operation: str, answer: Ticket | Refusal) -> None:
        if isinstance(answer, Ticket):
            self.forget(operation, answer)

    def answered(self, operation: str, ticket: Ticket, rate: RateLimit | None, status: int) -> None:
        """Take in an answer: its status and what its rate-limit headers said."""
        if rate is not None and rate.name and self._lanes[operation].ledger.name is None:
            self._share(operation, rate.name)
        self._lanes[operation].ledger.answered(ticket, self._clock(), self._wall(), rate, status)
        self._left(operation)

    def _share(self, operation: str, name: str) -> None:
        """Put an operation whose limit has told its name for the first time under the ledger of that name."""
        lane = self._lanes[operation]
        shared = self._named.setdefault(name, lane)
        if shared is not lane:
            self._lanes[operation] = shared
            shared.ledger.in_flight += lane.ledger.in_flight
            shared.waiters = OrderedDict(sorted([*shared.waiters.items(), *lane.waiters.items()]))
            shared.impatient += lane.impatient
            self._last = shared if self._last is lane else self._last

    def lost(self, operation: str, ticket: Ticket) -> None:
        """Take note that a request went out and no answer came."""
        self._lanes[operation].ledger.lost(ticket)
        self._left(operation)

    def forget(self, operation: str, ticket: Ticket) -> None:
        """Take back the ticket of a request that was never sent."""
        self._lanes[operation].ledger.forget(ticket)
        self._left(operation)

    def close(self, operation: str, seconds: float) -> None:
        """Let nothing of this operation's quota pass for a while."""
        lane = self._lanes[operation]
        lane.ledger.close(self._clock() + seconds)
        if lane.impatient:
            self._refuse_impatient(operation)

    def shut(self) -> None:
        """Turn away all who wait: the client is being closed."""
        for lane in self._lanes.values():
            for waiter in lane.waiters.values():
                if not waiter.answer.done():
                    waiter.answer.set_result(ClientClosedError("the client was closed while the call was waiting"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _left(self, operation: str) -> None:
        self.in_flight -= 1
        if self._lanes[operation].impatient:
            self._refuse_impatient(operation)
        for lane in self._lanes.values():
            if lane.waiters:
                self._admit()
                return

    def _admit(self) -> None:
        """Let the next ones pass, as many as may."""
        now = self._clock()
        for lane in self._lanes.values():
            if lane.waiters:
                lane.look(now)
        while self.in_flight < self._places:
            ready = [lane for lane in self._lanes.values() if lane.waiters and lane.ledger.may_go(now)]
            if not ready:
                break
            lane = min(ready, key=lambda lane: next(iter(lane.waiters)))
            _, waiter = lane.waiters.popitem(last=False)
            if not waiter.answer.done():
                self.in_flight += 1
                waiter.answer.set_result(lane.ledger.send(now))
        self._arm(now)

    def _arm(self, now: float) -> None:
        """See to it that the timer rings when the first ledger with waiters may have room again."""
        if self.in_flight >= self._places:
            return  # an answer will give a place
        waits = [lane.ledger.wait(now) for lane in self._lanes.values() if lane.waiters]
        if not waits:
            return
        # At once, if a window has begun since the waiter was told to wait.
        delay = max(min(waits), 0.0)
        loop = asyncio.get_running_loop()
        rings_at = loop.time() + delay
        if self._timer is not None:
            if self._rings_at <= rings_at:
                return
            self._timer.cancel()
        self._timer, self._rings_at = loop.call_later(delay, self._ring), rings_at

    def _ring(self) -> None:
        self._timer = None
        self._admit()

    def _refuse_impatient(self, operation: str) -> None:
        """Turn away those whose patience will not last, whenever the quota is put off.

        That is seen by the last one in the queue. Who is put off by a window although the last one is not, which one
        request of others is enough for, learns it when its patience ends at the latest.
        """
        lane, now = self._lanes[operation], self._clock()
        short = lane.ledger.shortage(now, len(lane.waiters) - 1)
        expected, lane.served = lane.served, now + short
        if short and lane.served > expected + _NOISE:
            self._turn_away(operation)

    def _turn_away(self, operation: str) -> None:
        """Refuse those who would have to wait longer than their patience lasts."""
        lane, now, ahead = self._lanes[operation], self._clock(), 0
        for waiter in lane.waiters.values():
            short = lane.ledger.shortage(now, ahead)
            if short and now + short > waiter.deadline and not waiter.answer.done():
                waiter.answer.set_result(self._refusal(lane, now, short))
            else:
                ahead += 1

    def _refusal(self, lane: _Lane, now: float, short: float) -> RateLimitError:
        return RateLimitError(
            f"the quota is spent for {short:.1f} s, longer than max_rate_limit_wait allows",
            status=429,
            rate_limit=lane.ledger.view(now),
            retry_after=short,
        )
