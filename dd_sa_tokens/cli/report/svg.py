"""The timeline of a service account's tokens as SVG: the numbers that the template of the page needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

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
_MOST_NAMED = 250  # rows with names; for more tokens, the bars alone are drawn, close together
_PACKED = 2000  # pixels for all rows without names, but at least one for each
_GROUP = 20  # pixels between the groups of packed rows, for their names
_LONGEST_NAME = 32  # characters: as many as fit beside the bars, or above them on a phone
_TAIL = "h8m6 0h8m6 0h8"  # dashes: the bar continues beyond the axis, or its end is unknown
_TAIL_LENGTH = 42


@attrs.frozen
class Label:
    """The name of a token, or of a group of tokens.

    Attributes:
        y: Its baseline, in pixels from the top.
        level: The level of the worst finding; `None` without one.
        text: The name.
    """

    y: float
    level: Level | None
    text: str


@attrs.frozen
class Stroke:
    """A token's bar.

    Attributes:
        level: The level of its worst finding; `None` without one.
        path: The data of an SVG path.
    """

    level: Level | None
    path: str


@attrs.frozen
class Use:
    """A last use.

    Attributes:
        x: Its position, from 0 to 1.
        y: Pixels from the top.
    """

    x: float
    y: float


@attrs.frozen
class Drawing:
    """The timeline of one service account.

    Attributes:
        height: In pixels.
        axis: The height of the axis, at the top, in pixels.
        thickness: Of a bar, in pixels.
        packed: Whether there are too many tokens to name each.
        bars: A bar for each token.
        labels: The names beside them.
        uses: The last uses.
        dot: The radius of a last use, in pixels.
        ticks: The labels of the axis.
        today: The position of the audit's moment, from 0 to 1.
    """

    height: int
    axis: int
    thickness: float
    packed: bool
    bars: Sequence[Stroke]
    labels: Sequence[Label]
    uses: Sequence[Use]
    dot: float
    ticks: Sequence[Tick]
    today: float


def draw(bars: Sequence[Bar], scale: Scale) -> Drawing:
    """Return the drawing of the bars, in their order."""
    packed = len(bars) > _MOST_NAMED
    row = max(1, min(5, _PACKED // len(bars))) if packed else _ROW
    y, previous = float(_AXIS), object()
    strokes: list[Stroke] = []
    labels: list[Label] = []
    uses: list[Use] = []
    sizes = Counter(bar.level for bar in bars)
    for bar in bars:
        if packed and bar.level != previous:
            labels.append(
                Label(y + _GROUP - 6, bar.level, f"{level_name(bar.level)}: {count(sizes[bar.level], 'token')}")
            )
            y, previous = y + _GROUP, bar.level
        middle = y + row / 2 if packed else y + 20
        if not packed:
            labels.append(Label(y + 11, bar.level, _short(bar.token)))
        strokes.append(Stroke(bar.level, _path(bar, middle)))
        if bar.used is not None:
            uses.append(Use(bar.used, middle))
        y += row
    return Drawing(
        height=int(y) + 8,
        axis=_AXIS,
        thickness=max(1, row - 1) if packed else _BAR,
        packed=packed,
        bars=strokes,
        labels=labels,
        uses=uses,
        dot=max(1, row / 2) if packed else 5,
        ticks=scale.ticks(_TICKS),
        today=scale.today,
    )


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
