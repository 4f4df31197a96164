"""Tokens over time, as numbers: where each bar begins and ends. The report and the terminal draw the same bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import attrs

from dd_sa_tokens.audit import Finding, Level
from dd_sa_tokens.models import AccessToken

_LEAST = timedelta(days=30).total_seconds()  # shown on either side of now, however young all tokens are
_MOST_BEFORE = timedelta(days=4 * 365).total_seconds()  # one ancient token must not press the others together
_MOST_AFTER = timedelta(days=2 * 365).total_seconds()
_MARGIN = 0.04  # of the width on either side, for what goes on beyond
_STEPS = (1, 2, 3, 6, 12, 24, 60)  # months between ticks
_EDGE = 0.06  # of the width: a label nearer to the edge would be cut off

LEVELS: tuple[Level | None, ...] = (*sorted(Level, reverse=True), None)
"""What a token's worst finding can be, the worst first; `None` for a token without findings."""


@attrs.frozen
class Bar:
    """A token's life in the picture. Places are shares of the picture's width, from 0 to 1.

    Attributes:
        token: The token.
        level: The level of its worst finding; `None` without one.
        start: Where it was made.
        end: Where it expires; never left of `start`.
        open_start: Whether it was made before the picture begins, or nobody knows when.
        open_end: Whether it never expires, or after the picture ends.
        used: Where it was last used; `None` if never.
    """

    token: AccessToken
    level: Level | None
    start: float
    end: float
    open_start: bool
    open_end: bool
    used: float | None


@attrs.frozen
class Tick:
    """The beginning of a month on the picture's axis."""

    place: float
    label: str


@attrs.frozen
class Scale:
    """The time that a picture shows.

    Attributes:
        now: The moment that the picture was taken.
        first: Its left edge, in seconds after `now`: negative.
        last: Its right edge, in seconds after `now`.
    """

    now: datetime
    first: float
    last: float

    @property
    def today(self) -> float:
        """Where now is."""
        return self.place(self.now)

    def place(self, moment: datetime) -> float:
        """Tell where a moment is: below 0 or above 1 if it is not in the picture."""
        return (_seconds(moment, self.now) - self.first) / (self.last - self.first)

    def ticks(self, most: int) -> tuple[Tick, ...]:
        """Choose the beginnings of months to label: so many at most, evenly spread, none too near to an edge."""
        for step in _STEPS:
            ticks = tuple(self._months(step))
            if len(ticks) <= most:
                return ticks
        return ()

    def _months(self, step: int) -> Iterator[Tick]:
        months = math.ceil((self.last - self.first) / timedelta(days=28).total_seconds())
        this = self.now.year * 12 + self.now.month - 1
        for month in range(this - months, this + months + 1):
            if month % step == 0 and 12 <= month < 120_000:  # the years that Python knows
                place = self.place(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))
                if _EDGE <= place <= 1 - _EDGE:
                    yield Tick(place, f"{month // 12:04}" if step >= 12 else f"{month // 12:04}-{month % 12 + 1:02}")


def _seconds(moment: datetime, now: datetime) -> float:
    # Differences, unlike sums and conversions, exist for any two datetimes, whatever their timezones.
    return (moment - now).total_seconds()


def scale_for(tokens: Iterable[AccessToken], now: datetime) -> Scale:
    """Choose the time to show: from the first creation to the last expiry, within reason."""
    before, after = _LEAST, _LEAST
    for token in tokens:
        for moment in (token.created_at, token.last_used_at, token.expires_at):
            if moment is not None:
                seconds = _seconds(moment, now)
                before, after = max(before, -seconds), max(after, seconds)
    before, after = min(before, _MOST_BEFORE), min(after, _MOST_AFTER)
    margin = _MARGIN * (before + after)
    return Scale(now, -before - margin, after + margin)


def worst_levels(findings: Iterable[Finding]) -> dict[AccessToken, Level]:
    """Return the level of each token's worst finding."""
    worst: dict[AccessToken, Level] = {}
    for finding in findings:
        worst[finding.token] = max(finding.level, worst.get(finding.token, finding.level))
    return worst


def lay_out(tokens: Iterable[AccessToken], worst: Mapping[AccessToken, Level], scale: Scale) -> list[Bar]:
    """Make a bar for each token: the worst first; among those of a level the one that ends first."""
    bars = [_bar(token, worst.get(token), scale) for token in tokens]
    return sorted(bars, key=lambda bar: (LEVELS.index(bar.level), bar.end, bar.start))


def _bar(token: AccessToken, level: Level | None, scale: Scale) -> Bar:
    start = -1.0 if token.created_at is None else scale.place(token.created_at)
    end = 2.0 if token.expires_at is None else scale.place(token.expires_at)
    return Bar(
        token=token,
        level=level,
        start=_inside(start),
        end=max(_inside(start), _inside(end)),
        open_start=start < 0,
        open_end=end > 1,
        used=None if token.last_used_at is None else _inside(scale.place(token.last_used_at)),
    )


def _inside(place: float) -> float:
    return min(max(place, 0.0), 1.0)
