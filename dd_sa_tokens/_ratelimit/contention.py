"""Who else spends a rate limit. It shows in how fast `remaining` falls, and decides how much may be in flight."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from .pace import Pace, kept_back

SLOW_START = 1.0
"""Seconds for which a window begins slowly while nothing is known of others."""

_LEAST_CONTENDED = 0.04  # requests of others for each of ours; below, it is a person who looks up a thing or two
_FEW = 14.0  # up to this factor, which is noisy, the others are taken for up to 7 clients
_MOST_OF_FEW = 8.0
_CAUTION = 2.0  # what is left was counted half a round trip ago: others have used some of it since
_PLENTY = 4.0  # times `concurrency`: then a start at full speed does no harm
_PLENTY_FOR_A_CROWD = 64.0  # the same, where others were there before
_CROWD = 8  # requests of others before our first one; more, and a new client begins with one at a time
_SIGNIFICANT = 0.25  # share of a window that must have been ours for the window to show that we were alone


@attrs.define
class Contention:
    """How many times faster `remaining` falls than this client spends: others share the limit, unseen.

    Alone, an answer to the n-th request of a window would leave limit - n. Answers arrive out of order, so a single one
    is unreliable. Sums over the window do not depend on the order. What was used before the window's first answer is
    left out, unless this client began the window when the others did.

    Attributes:
        sent: Requests sent in this window.
        answered: Requests of this window that were answered.
        since: When a caller first asked whether there is room in this window, on the loop's clock.
        past: The factors of the two windows before, the last one first; empty while nothing is known of them.
        prompt: Whether this client began the window at its beginning.
        draw: Returns a random number between 0 and 1.
        paces: How the last requests of a crowded window are sent, by how many of them are reserved: each reserve has a
            share of its own, and every request is taken off all of them.
    """

    sent: int = 0
    answered: int = 0
    since: float = math.inf
    past: tuple[float, ...] = ()
    prompt: bool = False
    draw: Callable[[], float] = lambda: 0.5
    paces: dict[int, Pace] = attrs.field(factory=dict[int, Pace])
    _first_credit: float = attrs.field(default=attrs.Factory(lambda self: self.draw(), takes_self=True))
    _before: int = 0
    _used: int = 0
    _numbers: int = 0

    def begin(self, now: float) -> None:
        """Note that a caller asks for room in this window; the slow start counts from the first time."""
        self.since = min(self.since, now)

    def expect(self, clients: int) -> None:
        """Assume that number of clients until two windows have shown another one."""
        self.past = (float(clients), float(clients))

    def record_send(self) -> int:
        """Count a request of this window; return its number, counted from 1."""
        self.sent += 1
        for pace in self.paces.values():
            pace.record_send()
        return self.sent

    def record_answer(self, number: int, used: int) -> None:
        """Record the response to request `number`, after which all clients together have spent `used`."""
        if not self.answered:
            self._before = max(used - number, 0)
        self.answered += 1
        self._used += used - self._before
        self._numbers += number

    @property
    def current(self) -> float:
        """The factor in this window so far; 1 while no other client is seen."""
        factor = 1.0
        if self._used - self._numbers >= max(self.answered, _LEAST_CONTENDED * self._numbers, 1):
            # At least 2. A smaller factor would let the busier client keep its larger share.
            factor = max(self._used / self._numbers, 2.0)
        if max((factor, *self.past)) <= _FEW:
            return min(factor, _MOST_OF_FEW)
        if not self.prompt or not self.answered:
            return factor
        # In a crowd a client sends a few requests a window, so its place among the others tells most. If all send
        # evenly from the beginning on, the n-th of ours comes when n - 1/2 times the factor are spent.
        used = self._used + self.answered * (self._before - 0.5)
        return max(used / (self._numbers - self.answered * 0.5), 2.0)

    @property
    def factor(self) -> float:
        """The factor to act on. Of the past windows the last contended one counts.

        So only two windows without others make them forgotten.
        """
        current = self.current
        return current if current > _FEW else max(current, next((past for past in self.past if past > 1.0), 1.0))

    def roll_over(self, windows: int, limit: int, in_flight: int, *, prompt: bool) -> None:
        """Begin a new window, `windows` after this one. What is still in flight may be counted in it."""
        if windows > len(self.past) + 1:
            self.past = ()  # too long ago to say anything
        elif self.current > 1.0 or self.answered >= limit * _SIGNIFICANT:
            self.past = (self.current, *self.past)[:2]
        self.sent = in_flight
        self.answered = self._used = self._numbers = self._before = 0
        self.since = math.inf
        self.prompt = prompt and bool(self.past)
        self.paces.clear()
        self._first_credit = self.draw()  # of all: the highest of several draws would let each client go early

    def headroom(self, concurrency: int) -> float:
        """Return how many must be left for `concurrency` requests of ours beside the most others that are assumed."""
        if self.factor > _FEW:
            return math.inf
        if not self.past and self._before > _CROWD:
            return _PLENTY_FOR_A_CROWD * concurrency
        return _CAUTION * _MOST_OF_FEW * concurrency

    def delay(
        self, left: int, in_flight: int, *, reserved: int, concurrency: int, limit: int, now: float, end: float
    ) -> float:
        """Return for how many seconds no request may be sent with `left` left until `end`; 0 if one may be sent now.

        `left` is without what is `reserved`.

        Alone, all of them may be in flight. With others, who may have as many more in flight for each of ours, a part
        of them. The part shrinks as the window empties, so that no client gets a 429 at its end. In a crowd, where the
        part is less than one, each client paces itself. While nothing is known of others, twice as many as have been
        answered, for `SLOW_START` seconds at most, unless plenty is left.
        """
        factor = self.factor
        room = left if factor == 1.0 else left // (_CAUTION * factor)
        if factor > _FEW and not room:
            pace = self.paces.get(reserved)
            if pace is None:
                pace = self.paces[reserved] = Pace(self._first_credit)
            return pace.advance(left, factor, limit, now, end)
        if in_flight >= room:
            return math.inf
        if self.past or now >= self.since + SLOW_START:
            return 0.0
        if self._before > _CROWD and left < _PLENTY_FOR_A_CROWD * concurrency:
            room = max(self.answered, 1)
        elif left < _PLENTY * concurrency:
            room = max(2 * self.answered, 3)
        return 0.0 if in_flight < room else self.since + SLOW_START - now

    def is_over(self, left: int, limit: int) -> bool:
        """Return whether so little is left that none of it is sent."""
        factor = self.factor
        if factor > _FEW:
            return left <= kept_back(factor, limit)
        return factor > 1.0 and left < _CAUTION * factor
