"""The timeline of an account's tokens, drawn in text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs
from rich.console import Console
from rich.text import Text

from dd_sa_tokens.audit import Finding, Level
from dd_sa_tokens.models import AccessToken

from .printable import printable
from .timeline import LEVELS, Bar, Scale, lay_out, scale_for, worst_levels

_WIDEST = 140  # columns
_WIDEST_NAME = 32
_TICK = 12  # columns for a label on the axis
STYLES: dict[Level | None, str] = {
    Level.HIGH: "bold red",
    Level.MEDIUM: "yellow",
    Level.LOW: "cyan",
    Level.INFO: "blue",
    None: "green",
}
"""How each level looks in a terminal."""


@attrs.frozen
class _Pen:
    """The characters to draw with."""

    life: str
    used: str
    today: str
    before: str
    after: str
    levels: tuple[str, ...]  # in the order of LEVELS


_UNICODE = _Pen("━", "●", "┃", "◀", "▶", ("▲", "◆", "■", "○", "✓"))
_ASCII = _Pen("=", "o", "|", "<", ">", ("H", "M", "L", "i", "-"))


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
        console: Where to print. Characters that its encoding does not have are replaced.
        tokens: The tokens of an account.
        findings: What an audit found; those about other tokens are left aside.
        now: The moment to draw as today, timezone-aware.
        scale: The time to show, where several accounts are to share one. By default that which fits the tokens.
        limit: The most lines to print; the last one then says how many more tokens there are. `None` for all.
    """
    pen = _ASCII if console.options.ascii_only else _UNICODE
    scale = scale or scale_for(tokens, now)
    bars = lay_out(tokens, worst_levels(findings), scale)
    width = min(console.width, _WIDEST)
    name_width = min(_WIDEST_NAME, width // 3)
    bar_width = width - name_width - 4  # the level's sign, and spaces
    indent = " " * (name_width + 3)
    for labels in _axis(scale, bar_width, pen):
        _print(console, Text(indent + labels, style="dim"))
    for bar in bars[:limit]:
        sign = Text(f"{_sign(bar.level, pen)} ", STYLES[bar.level])
        _print(console, Text.assemble(sign, _name(bar, console, name_width), " ", _draw(bar, scale, bar_width, pen)))
    if limit is not None and len(bars) > limit:
        _print(console, Text(f"  and {len(bars) - limit} more", style="dim"))
    console.print(_legend(pen))


def _print(console: Console, line: Text) -> None:
    line.rstrip()
    console.print(line, no_wrap=True, overflow="crop")


def _sign(level: Level | None, pen: _Pen) -> str:
    return pen.levels[LEVELS.index(level)]


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
    """Draw a bar; where several things meet in a column, the last use hides the end, and the end hides today."""
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
    """Write the labels of the axis, and above them where today is."""
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
        parts += [Text(_sign(level, pen), STYLES[level]), Text(f" {level or 'nothing found'}  ")]
    parts.append(Text(f"{pen.life} made to expiry  {pen.used} last use  {pen.before}{pen.after} beyond or unknown"))
    return Text.assemble(*parts)
