"""The timeline of a service account's tokens as text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs
from rich.console import Console
from rich.text import Text

from dd_sa_tokens.audit import Finding, Level
from dd_sa_tokens.cli.io.printable import printable
from dd_sa_tokens.models import AccessToken

from .timeline import LEVELS, SIGNS, Bar, Scale, lay_out, scale_for, worst_levels

LONGEST_NAME = 32
"""Columns for a token's name."""

STYLES: dict[Level | None, str] = dict(
    zip(LEVELS, ("bold white on red", "bold red", "yellow", "cyan", "blue", "green"), strict=True)
)
"""The style of each level in a terminal."""

_TICK = 12  # columns for a label of the axis


@attrs.frozen
class _Pen:
    """The characters to draw with."""

    life: str
    used: str
    today: str
    before: str
    after: str
    signs: dict[Level | None, str]


_UNICODE = _Pen("━", "●", "┃", "◀", "▶", SIGNS)
_ASCII = _Pen("=", "o", "|", "<", ">", dict(zip(LEVELS, "CHMLi-", strict=True)))


def level_sign(console: Console, level: Level | None) -> str:
    """Return the sign of a level, or a letter where the console has no such character."""
    return _pen(console).signs[level]


def _pen(console: Console) -> _Pen:
    return _ASCII if console.options.ascii_only else _UNICODE


def print_timeline(
    console: Console,
    tokens: Sequence[AccessToken],
    findings: Iterable[Finding],
    *,
    now: datetime,
    scale: Scale | None = None,
    limit: int | None = None,
) -> None:
    """Print a line for each token, the worst first: its level, its name, and a bar from its creation to its expiry.

    Args:
        console: Where to print. Characters that its encoding lacks are replaced.
        tokens: The tokens of a service account.
        findings: The findings of an audit. Those about other tokens are ignored.
        now: The moment that is drawn as today, timezone-aware.
        scale: The part of time to show, if several service accounts share one. By default it fits the tokens.
        limit: The most lines to print. The last line then says how many more tokens there are. `None` for all.
    """
    pen = _pen(console)
    scale = scale or scale_for(tokens, now)
    bars = lay_out(tokens, worst_levels(findings), scale)
    name_width = min(LONGEST_NAME, console.width // 3)
    bar_width = console.width - name_width - 4  # the sign of the level, and spaces
    indent = " " * (name_width + 3)
    for labels in _axis(scale, bar_width, pen):
        _print(console, Text(indent + labels, style="dim"))
    for bar in bars[:limit]:
        sign = Text(f"{pen.signs[bar.level]} ", STYLES[bar.level])
        _print(console, Text.assemble(sign, _name(bar, console, name_width), " ", _draw(bar, scale, bar_width, pen)))
    if limit is not None and len(bars) > limit:
        _print(console, Text(f"  and {len(bars) - limit} more", style="dim"))
    console.print(_legend(pen))


def _print(console: Console, line: Text) -> None:
    line.rstrip()
    console.print(line, no_wrap=True, overflow="crop")


def _name(bar: Bar, console: Console, width: int) -> Text:
    shown = printable(bar.token.name or bar.token.id)
    if console.options.ascii_only:
        shown = shown.encode(console.encoding, "replace").decode(console.encoding)
    name = Text(shown)
    name.truncate(width, overflow="crop" if console.options.ascii_only else "ellipsis", pad=True)
    return name


def _column(place: float, width: int) -> int:
    return min(int(place * width), width - 1)


def _draw(bar: Bar, scale: Scale, width: int, pen: _Pen) -> Text:
    """Draw a bar. In a column with several signs, the last use hides the end, and the end hides today."""
    cells: list[tuple[str, str]] = [(" ", "")] * width
    start, end, style = _column(bar.start, width), _column(bar.end, width), STYLES[bar.level]
    cells[start : end + 1] = [(pen.life, style)] * (end + 1 - start)
    cells[_column(scale.today, width)] = (pen.today, "dim")
    if bar.open_start:
        cells[start] = (pen.before, style)
    if bar.open_end:
        cells[end] = (pen.after, style)
    if bar.used is not None:
        cells[_column(bar.used, width)] = (pen.used, "bold")
    return Text.assemble(*cells)


def _axis(scale: Scale, width: int, pen: _Pen) -> list[str]:
    """Return two lines: the mark of today, and the labels of the axis."""
    labels = [" "] * width
    for tick in scale.ticks(max(2, width // _TICK)):
        start = min(_column(tick.place, width), width - len(tick.label))
        labels[start : start + len(tick.label)] = tick.label
    today = f"{pen.today} today"
    column = _column(scale.today, width)
    if column + len(today) > width:
        column, today = column - len("today "), f"today {pen.today}"
    return [" " * column + today, "".join(labels)]


def _legend(pen: _Pen) -> Text:
    parts = [Text("  ")]
    for level in LEVELS:
        parts += [Text(pen.signs[level], STYLES[level]), Text(f" {level or 'nothing found'}  ")]
    parts.append(Text(f"{pen.life} created to expiry  {pen.used} last use  {pen.before}{pen.after} beyond or unknown"))
    return Text.assemble(*parts)
