"""The timeline of a service account's tokens as SVG: the numbers that the template of the page needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs

from dd_sa_tokens.audit import Level
from dd_sa_tokens.models import AccessToken

from .audit_result import count, level_name
from .timeline import LEVELS, Bar, Scale, Tick

_WIDTH = 1000  # units; a browser stretches them to the width of the page, while heights are in pixels
_TICKS = 6  # at most: as many as fit a phone
_AXIS = 36  # pixels above the first row
_ROW = 28  # pixels for a name and the bar below it
_BAR = 8  # pixels
_DOT = 5  # pixels: the radius of a last use
_MOST_NAMED = 500  # rows with names, the worst tokens first; the bars of the others are drawn close together
_PACKED = 2000  # pixels for all rows without names, but at least one for each
_GROUP = 20  # pixels between the groups of packed rows, for their names
_LONGEST_NAME = 32  # characters: as many as fit beside the bars, or above them on a phone
_TAIL = "h8m6 0h8m6 0h8"  # dashes: the bar continues beyond the axis, or its end is unknown
_TAIL_LENGTH = 42


@attrs.frozen
class Label:
    """The name of a group of tokens without names of their own.

    Attributes:
        y: Its baseline, in pixels from the top.
        level: The level of the worst finding; `None` without one.
        text: The name.
        first: The position of the group's first row.
        rows: How many rows the group has.
    """

    y: float
    level: Level | None
    text: str
    first: int
    rows: int


@attrs.frozen
class Row:
    """A token's row: its bar, its last use, and its name.

    Attributes:
        token: The token.
        level: The level of its worst finding; `None` without one.
        top: Its upper edge, in pixels from the top.
        height: In pixels.
        path: The data of the bar's SVG path.
        thickness: Of the bar, in pixels.
        used: The position of the last use, from 0 to 1; `None` if it was never used.
        y: The middle of the bar, in pixels from the top.
        dot: The radius of a last use, in pixels.
        name: The name; `None` if there is no height for it.
    """

    token: AccessToken
    level: Level | None
    top: float
    height: int
    path: str
    thickness: int
    used: float | None
    y: float
    dot: float
    name: str | None


@attrs.frozen
class Drawing:
    """The timeline of one service account.

    Attributes:
        height: In pixels.
        axis: The height of the axis, at the top, in pixels.
        group: The height of a group's name, in pixels.
        rows: A row for each token.
        labels: The names of the groups of rows without names.
        ticks: The labels of the axis.
        today: The position of the audit's moment, from 0 to 1.
    """

    height: int
    axis: int
    group: int
    rows: Sequence[Row]
    labels: Sequence[Label]
    ticks: Sequence[Tick]
    today: float


def draw(bars: Sequence[Bar], scale: Scale) -> Drawing:
    """Return the drawing of the bars, in their order. The first ones, which are the worst, have names."""
    named, packed = bars[:_MOST_NAMED], bars[_MOST_NAMED:]
    rows = [_named_row(bar, _AXIS + place * _ROW) for place, bar in enumerate(named)]
    labels: list[Label] = []
    y = float(_AXIS + len(rows) * _ROW)
    height = max(1, min(5, _PACKED // max(1, len(packed))))
    for level, members in groupby(packed, key=lambda bar: bar.level):
        group = list(members)
        more = "more token" if named[-1].level == level else "token"
        text = f"{level_name(level)}: {count(len(group), more)}"
        labels.append(Label(y + _GROUP - 6, level, text, first=len(rows), rows=len(group)))
        y += _GROUP
        rows += [_packed_row(bar, y + place * height, height) for place, bar in enumerate(group)]
        y += len(group) * height
    return Drawing(
        height=int(y) + 8,
        axis=_AXIS,
        group=_GROUP,
        rows=rows,
        labels=labels,
        ticks=scale.ticks(_TICKS),
        today=scale.today,
    )


def _named_row(bar: Bar, top: float) -> Row:
    y = top + 20
    return Row(bar.token, bar.level, top, _ROW, _path(bar, y), _BAR, bar.used, y, _DOT, _short(bar.token))


def _packed_row(bar: Bar, top: float, height: int) -> Row:
    y, thickness, dot = top + height / 2, max(1, height - 1), max(1, height / 2)
    return Row(bar.token, bar.level, top, height, _path(bar, y), thickness, bar.used, y, dot, None)


def _short(token: AccessToken) -> str:
    name = token.name or token.id
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _path(bar: Bar, y: float) -> str:
    """Return a line, with dashes where the bar continues beyond the axis or its end is unknown."""
    start, end = round(bar.start * _WIDTH), round(bar.end * _WIDTH)
    head = bar.open_start and end - start > 3 * _TAIL_LENGTH
    tail = bar.open_end and end - start > 3 * _TAIL_LENGTH
    if not (head or tail):
        return f"M{min(start, _WIDTH - 3)} {y:g}h{max(end - start, 3)}"  # a very short life is still visible
    begin = f"M{start} {y:g}" + (f"{_TAIL}m6 0" if head else "")
    return f"{begin}H{end - _TAIL_LENGTH - 6}m6 0{_TAIL}" if tail else f"{begin}H{end}"


def describe(bars: Iterable[Bar], scale: Scale) -> str:
    """Return the text alternative of the drawing."""
    bars = list(bars)
    levels = Counter(bar.level for bar in bars)
    worst = ", ".join(f"{levels[level]} {level_name(level)}" for level in LEVELS if levels[level])
    expired = sum(bar.token.is_expired(scale.now) for bar in bars)
    endless = sum(bar.token.expires_at is None for bar in bars)
    unused = sum(bar.token.never_used for bar in bars)
    return (
        "Each token is a bar from its creation to its expiry, the worst first. "
        f"Tokens: {len(bars)} ({worst or 'none'}). "
        f"Expired: {expired}. Without an expiry: {endless}. Never used: {unused}. "
        "The tables of this page have the same information."
    )
