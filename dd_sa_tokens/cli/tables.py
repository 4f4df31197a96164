"""Tokens and failures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dd_sa_tokens.audit import utc_day
from dd_sa_tokens.errors import APIError, DatadogError
from dd_sa_tokens.models import AccessToken

from .printable import printable

_WIDEST = 160  # columns: on a wider terminal a row would be hard to follow
_WIDEST_OF_DEMO = 120
_DAY = len("2026-01-31")
_LONGEST_ID = 36  # a UUID; a longer one is wrapped

# Columns with their share of the room that is left; None for days, which all have the same width. A narrow terminal
# shows fewer: the whole ID comes first, since it is what the other commands want.
_Layout = tuple[tuple[str, int | None], ...]
_LAYOUTS: tuple[tuple[int, _Layout], ...] = (
    (130, (("Name", 5), ("Public portion", 4), ("Scopes", 6), ("Last used", None), ("Expires", None))),
    (100, (("Name", 5), ("Scopes", 4), ("Last used", None), ("Expires", None))),
    (72, (("Name", 5), ("Last used", None), ("Expires", None))),
    (0, (("Name", 5), ("Expires", None))),
)


def tokens_table(tokens: Sequence[AccessToken], width: int) -> Table:
    """Return tokens as a table with their IDs, a line each: what does not fit the width is cut off.

    Args:
        tokens: The tokens.
        width: Columns of the terminal.
    """
    table = _table(width=min(width, _WIDEST))
    _add_ids(table, (token.id for token in tokens))
    layout = next(layout for least, layout in _LAYOUTS if width >= least)
    _fill(table, tokens, layout, with_id=True)
    return table


def print_tokens(console: Console, tokens: Sequence[AccessToken]) -> None:
    """Print tokens as a table without their IDs, a line each: what does not fit the width is cut off, never wrapped."""
    table = _table()
    _fill(table, tokens, _LAYOUTS[0][1], with_id=False)
    console.print(table, width=min(console.width, _WIDEST_OF_DEMO))


def failures_table(failures: Sequence[tuple[str, DatadogError]], width: int) -> Table:
    """Return IDs that failed as a table: what went wrong is wrapped.

    Args:
        failures: The IDs, and the errors that they met.
        width: Columns of the terminal.
    """
    table = _table(width=min(width, _WIDEST))
    _add_ids(table, (token_id for token_id, _ in failures))
    table.add_column("Status", width=len("Status"), no_wrap=True)
    table.add_column("Error", ratio=1, overflow="fold")
    for token_id, error in failures:
        status = str(error.status) if isinstance(error, APIError) else "-"
        table.add_row(cell(token_id), status, Text(printable(error.message), style="red"))
    return table


def _table(width: int | None = None) -> Table:
    return Table(box=box.SIMPLE_HEAD, expand=True, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), width=width)


def _add_ids(table: Table, ids: Iterable[str]) -> None:
    longest = max((len(token_id) for token_id in ids), default=0)
    table.add_column("ID", width=max(len("ID"), min(longest, _LONGEST_ID)), overflow="fold")


def _fill(table: Table, tokens: Iterable[AccessToken], layout: _Layout, *, with_id: bool) -> None:
    for title, ratio in layout:
        if ratio is None:
            table.add_column(title, width=_DAY, no_wrap=True)
        else:
            table.add_column(title, ratio=ratio, no_wrap=True, overflow="ellipsis")
    now = datetime.now(UTC)
    for token in tokens:
        cells = {
            "Name": cell(token.name or "-"),
            "Public portion": cell(token.public_portion or "-"),
            "Scopes": cell(", ".join(token.scopes) or "none"),
            "Last used": Text(_day(token.last_used_at)),
            "Expires": Text(_day(token.expires_at), style="red" if token.is_expired(now) else ""),
        }
        table.add_row(*([cell(token.id)] if with_id else []), *(cells[title] for title, _ in layout))


def cell(text: str) -> Text:
    """Return a text from the API: markup in it is not taken for ours, and nothing in it reaches the terminal raw."""
    return Text(printable(text))


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else utc_day(moment)
