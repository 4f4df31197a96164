"""The timeline as SVG: the numbers that the report's template puts into its picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from dd_sa_tokens.audit import Level
from dd_sa_tokens.models import AccessToken

from .timeline import LEVELS, Bar, Scale, Tick

SIGNS: dict[Level | None, str] = {Level.HIGH: "▲", Level.MEDIUM: "◆", Level.LOW: "■", Level.INFO: "○", None: "✓"}
"""A shape for each level, since colour alone does not tell everybody."""

_WIDTH = 1000  # units; the picture is stretched to the width of its place, its height is in pixels
_TICKS = 6  # at most: as many as fit a phone
_AXIS = 36  # pixels above the first row
_ROW = 28  # pixels for a name and the bar below it
_BAR = 8  # pixels
_MOST_NAMED = 250  # rows with names; of more tokens the bars alone are drawn, close together
_PACKED = 2000  # pixels for all rows without names, but at least one for each
_GROUP = 20  # pixels between the groups of packed rows, for their names
_LONGEST_NAME = 32  # characters: as many as fit beside the bars, or above them on a phone
_TAIL = "h8m6 0h8m6 0h8"  # dashes: nobody knows how it goes on
_TAIL_LENGTH = 42


@attrs.frozen
class Label:
    """A name in the picture: of a token, or of a group of tokens."""

    y: float
    level: Level | None
    text: str


@attrs.frozen
class Stroke:
    """A token's bar as the data of an SVG path."""

    level: Level | None
    path: str


@attrs.frozen
class Use:
    """A last use: a share of the width, and pixels from the top."""

    x: float
    y: float


@attrs.frozen
class Picture:
    """What to draw for one account.

    Attributes:
        height: In pixels.
        axis: The part of the height, at the top, that belongs to the axis.
        thickness: Of a bar, in pixels.
        packed: Whether there are too many tokens to name each.
        bars: A bar for each token.
        labels: The names beside them.
        uses: The last uses.
        dot: The radius of a last use, in pixels.
        ticks: The labels of the axis.
        today: Where now is, from 0 to 1.
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


def draw(bars: Sequence[Bar], scale: Scale) -> Picture:
    """Lay out the picture of an account's tokens, in the order of the bars."""
    packed = len(bars) > _MOST_NAMED
    row = max(1, min(5, _PACKED // len(bars))) if packed else _ROW
    y, previous = float(_AXIS), object()
    strokes: list[Stroke] = []
    labels: list[Label] = []
    uses: list[Use] = []
    sizes = Counter(bar.level for bar in bars)
    for bar in bars:
        if packed and bar.level != previous:
            labels.append(Label(y + _GROUP - 6, bar.level, f"{sizes[bar.level]} {bar.level or 'without findings'}"))
            y, previous = y + _GROUP, bar.level
        middle = y + row / 2 if packed else y + 20
        if not packed:
            labels.append(Label(y + 11, bar.level, _short(bar.token)))
        strokes.append(Stroke(bar.level, _path(bar, middle)))
        if bar.used is not None:
            uses.append(Use(bar.used, middle))
        y += row
    return Picture(
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
    """Write a bar as a line, in dashes where it goes on beyond what is known or shown."""
    start, end = round(bar.start * _WIDTH), round(bar.end * _WIDTH)
    head = bar.open_start and end - start > 3 * _TAIL_LENGTH
    tail = bar.open_end and end - start > 3 * _TAIL_LENGTH
    if not (head or tail):
        return f"M{min(start, _WIDTH - 3)} {y:g}h{max(end - start, 3)}"  # what lived for a moment is seen, too
    begin = f"M{start} {y:g}" + (f"{_TAIL}m6 0" if head else "")
    return f"{begin}H{end - _TAIL_LENGTH - 6}m6 0{_TAIL}" if tail else f"{begin}H{end}"


def describe(bars: Iterable[Bar], scale: Scale) -> str:
    """Say in words what the picture shows."""
    bars = list(bars)
    levels = Counter(bar.level for bar in bars)
    worst = ", ".join(f"{levels[level]} {level or 'without findings'}" for level in LEVELS if levels[level])
    expired = sum(bar.token.is_expired(scale.now) for bar in bars)
    forever = sum(bar.token.expires_at is None for bar in bars)
    unused = sum(bar.token.never_used for bar in bars)
    return (
        "Each token is a bar from its creation to its expiry, the worst first. "
        f"Tokens: {len(bars)} ({worst or 'none'}). "
        f"Expired: {expired}. Without an expiry: {forever}. Never used: {unused}. "
        "The tables of this page say the same in words."
    )
