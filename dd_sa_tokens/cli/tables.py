"""Tokens as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dd_sa_tokens.models import AccessToken

_WIDEST = 120  # columns: on a wider terminal a row would be hard to follow


def print_tokens(console: Console, tokens: Iterable[AccessToken]) -> None:
    """Print tokens as a table, a line each: what does not fit the width is cut off, never wrapped."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title, ratio in (("Name", 5), ("Public portion", 4), ("Scopes", 6)):
        table.add_column(title, ratio=ratio, no_wrap=True, overflow="ellipsis")
    for title in ("Last used", "Expires"):
        table.add_column(title, width=len("2026-01-31"), no_wrap=True)
    now = datetime.now(UTC)
    for token in tokens:
        table.add_row(
            _printable(token.name or "-"),
            _printable(token.public_portion or "-"),
            _printable(", ".join(token.scopes) or "none"),
            _day(token.last_used_at),
            Text(_day(token.expires_at), style="red" if token.is_expired(now) else ""),
        )
    console.print(table, width=min(console.width, _WIDEST))


def _printable(text: str) -> Text:
    # People name tokens: markup must not be taken for ours, and control characters must not reach the terminal.
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d}"
