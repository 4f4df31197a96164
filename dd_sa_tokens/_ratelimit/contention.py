"""Who else spends a rate limit. It shows in how fast `remaining` falls, and decides how much may be in flight."""

from __future__ import annotations

import math

import attrs

SLOW_START = 1.0
"""Seconds for which a window begins slowly while nothing is known of others."""

_LEAST_CONTENDED = 0.04  # requests of others for each of ours; below, it is a person who looks up a thing or two
_MOST_CONTENDED = 8.0
_CAUTION = 2.0  # what is left was counted half a round trip ago: others have used some of it since
_PLENTY = 4.0  # times `concurrency`: then a start at full speed does no harm
_SIGNIFICANT = 0.25  # share of a window that must have been ours for the window to show that we were alone


@attrs.define
class Contention:
    """How many times faster `remaining` falls than this client spends: others share the limit, unseen.

    Alone, an answer to the n-th request of a window would leave limit - n. Answers arrive out of order, so a single one
    is unreliable. Sums over the window do not depend on the order. What was used before the window's first answer is
    left out.

    Attributes:
        sent: Requests sent in this window.
        answered: Requests of this window that were answered.
        since: When a caller first asked whether there is room in this window, on the loop's clock.
        past: The factors of the two windows before, the last one first; empty while nothing is known of them.
    """

    sent: int = 0
    answered: int = 0
    since: float = math.inf
    past: tuple[float, ...] = ()
    _before: int = 0
    _used: int = 0
    _numbers: int = 0

    def begin(self, now: float) -> None:
        """Note that a caller asks for room in this window; the slow start counts from the first time."""
        self.since = min(self.since, now)

    def record_send(self) -> int:
        """Count a request of this window; return its number, counted from 1."""
        self.sent += 1
        return self.sent

    def record_answer(self, number: int, used: int) -> None:
        """Take in the answer to request number `number`, after which `used` requests were spent by all clients."""
        if not self.answered:
            self._before = max(used - number, 0)
        self.answered += 1
        self._used += used - self._before
        self._numbers += number

    @property
    def current(self) -> float:
        """The factor in this window so far; 1 while no other client is seen."""
        others = self._used - self._numbers
        if others < max(self.answered, _LEAST_CONTENDED * self._numbers, 1):
            return 1.0
        # Where there are others, there is at least one more client. Otherwise the client with more would keep it.
        return min(max(self._used / self._numbers, 2.0), _MOST_CONTENDED)

    def roll_over(self, windows: int, limit: int, in_flight: int) -> None:
        """Begin a new window, `windows` after this one. What is still in flight may be counted in it."""
        if windows > len(self.past) + 1:
            self.past = ()  # too long ago to say anything
        elif self.current > 1.0 or self.answered >= limit * _SIGNIFICANT:
            self.past = (self.current, *self.past)[:2]
        self.sent = in_flight
        self.answered = self._used = self._numbers = 0
        self.since = math.inf

    @staticmethod
    def headroom(concurrency: int) -> float:
        """Return how many must be left for `concurrency` requests of ours beside the most others that are assumed."""
        return _CAUTION * _MOST_CONTENDED * concurrency

    def room(self, left: int, concurrency: int, now: float) -> float:
        """Return how many requests may be in flight when `left` are left.

        Alone, all of them. With others, who may have as many more in flight for each of ours, a part of them. The part
        shrinks as the window empties, so that no client gets a 429 at its end. While nothing is known of others, twice
        as many as have been answered, for `SLOW_START` seconds at most, unless plenty is left.
        """
        # Of the past windows, the last contended one counts: only two windows without others make it forgotten.
        factor = max(self.current, next((past for past in self.past if past > 1.0), 1.0))
        room = left if factor == 1.0 else left // (_CAUTION * factor)
        if not self.past and left < _PLENTY * concurrency and now < self.since + SLOW_START:
            room = min(room, max(2 * self.answered, 3))
        return room
