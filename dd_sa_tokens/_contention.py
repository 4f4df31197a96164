"""Who else spends a quota: it shows in how fast it falls, and decides how much of what is left may be in flight."""

from __future__ import annotations

import math

import attrs

SLOW_FOR = 1.0
"""Seconds for which a window begins slowly while nothing is known of others."""

_LEAST_CONTENDED = 0.04  # requests of others for each of ours; below, it is somebody who looks up a thing or two
_MOST_CONTENDED = 8.0
_CAUTION = 2.0  # what is left was counted half a round trip ago: the others have used some of it since
_PLENTY = 4.0  # times the places: then a start at full speed does no harm
_TELLING = 0.25  # share of a window that must have been ours for it to show that we were alone


@attrs.define
class Contention:
    """How many times faster the quota falls than this client spends it: others share it, unseen.

    Alone, an answer to the n-th request of a window would leave limit - n. Answers come out of order, so one of them
    says little; but the order only swaps the summands, so the sums over all answers of a window say it well. What was
    used before the window's first answer is left out.

    Attributes:
        sent: Requests sent in this window.
        answered: Those of them that were answered.
        since: When somebody first asked whether there is room in this window, on the loop's clock.
        past: The factors of the two windows before, the last one first; empty while nothing is known of them.
    """

    sent: int = 0
    answered: int = 0
    since: float = math.inf
    past: tuple[float, ...] = ()
    _before: int = 0
    _used: int = 0
    _numbers: int = 0

    def note(self, number: int, used: int) -> None:
        """Take in the answer to the request with this number, after which so many were used by everybody."""
        if not self.answered:
            self._before = max(used - number, 0)
        self.answered += 1
        self._used += used - self._before
        self._numbers += number

    @property
    def current(self) -> float:
        """The factor in this window so far; 1 for nobody else."""
        others = self._used - self._numbers
        if others < max(self.answered, _LEAST_CONTENDED * self._numbers, 1):
            return 1.0
        # Where there are others, there is one at least: or who has more would go on having more.
        return min(max(self._used / self._numbers, 2.0), _MOST_CONTENDED)

    def turn(self, windows: int, limit: int, in_flight: int) -> None:
        """Begin a new window, so many after this one; what is still in flight may be counted in it."""
        if windows > len(self.past) + 1:
            self.past = ()  # too long ago to say anything
        elif self.current > 1.0 or self.answered >= limit * _TELLING:
            self.past = (self.current, *self.past)[:2]
        self.sent = in_flight
        self.answered = self._used = self._numbers = 0
        self.since = math.inf

    @staticmethod
    def enough_for_all(places: int) -> float:
        """Return how many must be left for `places` of ours to be in flight beside as many others as there may be."""
        return _CAUTION * _MOST_CONTENDED * places

    def room(self, left: int, places: int, now: float) -> float:
        """Return how many may be in flight when so many are left.

        Alone, all of them. With others, who may have as many more in flight for each of ours, a part of them, which
        shrinks as the window empties, so that nobody is sent away at its end. While nothing is known of the others,
        twice as many as have been answered, for a second at most, unless there is plenty.
        """
        # Of the past, the last window with others in it: two without them have to pass before they are forgotten.
        factor = max(self.current, next((past for past in self.past if past > 1.0), 1.0))
        room = left if factor == 1.0 else left // (_CAUTION * factor)
        if not self.past and left < _PLENTY * places and now < self.since + SLOW_FOR:
            room = min(room, max(2 * self.answered, 3))
        return room
