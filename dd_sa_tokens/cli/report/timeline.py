"""Each token as a bar on a time axis, in numbers. The page and the terminal draw the same bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import attrs

from dd_sa_tokens.audit import Finding, Level
from dd_sa_tokens.models import AccessToken

_LEAST = timedelta(days=30).total_seconds()  # shown before and after now, even if all tokens are young
_MOST_BEFORE = timedelta(days=4 * 365).total_seconds()  # one very old token must not compress all others
_MOST_AFTER = timedelta(days=2 * 365).total_seconds()
_MARGIN = 0.04  # share of the width on each side, for bars that continue beyond it
_STEPS = (1, 2, 3, 6, 12, 24, 60)  # months between ticks
_EDGE = 0.06  # share of the width: a label closer to the edge would be cut off

LEVELS: tuple[Level | None, ...] = (*sorted(Level, reverse=True), None)
"""The levels that a token's worst finding can have, the worst first; `None` for a token without findings."""

SIGNS: dict[Level | None, str] = dict(zip(LEVELS, "✖▲◆■○✓", strict=True))
"""A shape for each level, because not all readers see colours."""


@attrs.frozen
class Bar:
    """A token's life on the axis. Positions are shares of the width, from 0 to 1.

    Attributes:
        token: The token.
        level: The level of its worst finding; `None` without one.
        start: Its creation.
        end: Its expiry; never left of `start`.
        open_start: Whether it was created before the axis begins, or the date is unknown.
        open_end: Whether it never expires, or expires after the axis ends.
        used: Its last use; `None` if it was never used.
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
    """The beginning of a month on the axis.

    Attributes:
        place: Its position, from 0 to 1.
        label: The month, or the year.
    """

    place: float
    label: str


@attrs.frozen
class Scale:
    """The part of time that the axis shows.

    Attributes:
        now: The moment of the audit.
        first: The left edge, in seconds after `now`: negative.
        last: The right edge, in seconds after `now`.
    """

    now: datetime
    first: float
    last: float

    @property
    def today(self) -> float:
        """The position of `now`."""
        return self.place(self.now)

    def place(self, moment: datetime) -> float:
        """Return the position of a moment: below 0 or above 1 if the axis does not show it."""
        return (_seconds(moment, self.now) - self.first) / (self.last - self.first)

    def ticks(self, most: int) -> tuple[Tick, ...]:
        """Return at most `most` months to label, with equal distances, and none at the edges."""
        for step in _STEPS:
            ticks = tuple(self._months(step))
            if len(ticks) <= most:
                return ticks
        return ()

    def _months(self, step: int) -> Iterator[Tick]:
        months = math.ceil((self.last - self.first) / timedelta(days=28).total_seconds())
        this = self.now.year * 12 + self.now.month - 1
        for month in range(this - months, this + months + 1):
            if month % step == 0 and 12 <= month < 120_000:  # the years of datetime
                place = self.place(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))
                if _EDGE <= place <= 1 - _EDGE:
                    yield Tick(place, f"{month // 12:04}" if step >= 12 else f"{month // 12:04}-{month % 12 + 1:02}")


def _seconds(moment: datetime, now: datetime) -> float:
    # Unlike sums and conversions, a difference exists for any two datetimes in any timezones.
    return (moment - now).total_seconds()


def scale_for(tokens: Iterable[AccessToken], now: datetime) -> Scale:
    """Return a scale from the first creation to the last expiry, within limits."""
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
    """Return a bar for each token: the worst level first; within a level, the earliest expiry first."""
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
