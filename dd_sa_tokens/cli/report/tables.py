"""Tables of tokens, and of tokens that were not fetched, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dd_sa_tokens._validation import canonical_id
from dd_sa_tokens.audit import utc_day
from dd_sa_tokens.cli.io.formats import Format, Record
from dd_sa_tokens.cli.io.printable import printable

LONGEST_ID = 36
"""Columns for an ID: a UUID. A longer one is wrapped."""

_DAY = len("2026-01-31")
_LEAK_WIDTH = 100  # columns: a narrower table with leaks has no last use
_OWNER_WIDTH = 120  # columns: a narrower table of tokens does not have their service accounts
_EMAIL_WIDTH = 100  # columns: a narrower table of service accounts has no addresses

# The columns and their shares of the width; None for a day. A narrow terminal shows fewer columns, but always the
# whole ID, because other commands need it.
_Layout = tuple[tuple[str, int | None], ...]
_LAYOUTS: tuple[tuple[int, _Layout], ...] = (
    (130, (("Name", 5), ("Public portion", 4), ("Scopes", 6), ("Last used", None), ("Expires", None))),
    (100, (("Name", 5), ("Scopes", 4), ("Last used", None), ("Expires", None))),
    (72, (("Name", 5), ("Last used", None), ("Expires", None))),
    (0, (("Name", 5), ("Expires", None))),
)


class Tables(Format):
    """Tables that are made at the end of the document.

    Args:
        console: The console that the tables are made for.
        order: The IDs in the order of the rows. Without it, rows have the order of the records.
    """

    def __init__(self, console: Console, order: Sequence[str] = ()) -> None:
        self._console = console
        self._places = {canonical_id(row_id): place for place, row_id in enumerate(order)}
        self._records: list[Record] = []

    def record(self, record: Record) -> str:
        """Keep a record for the end."""
        self._records.append(record)
        return ""

    def end(self) -> str:
        """Return the tables."""
        records = sorted(self._records, key=lambda record: self._places.get(canonical_id(record["id"]), 0))
        return self._draw(records) if records else ""

    def _draw(self, records: Sequence[Record]) -> str:
        raise NotImplementedError


class AccountTable(Tables):
    """A table of service accounts."""

    def _draw(self, records: Sequence[Record]) -> str:
        with self._console.capture() as capture:
            self._console.print(_accounts_table(records, self._console.width))
        return capture.get()


class TokenTables(Tables):
    """A table of tokens and a table of failures."""

    def _draw(self, records: Sequence[Record]) -> str:
        tokens = [record for record in records if "error" not in record]
        failures = [record for record in records if "error" in record]
        with self._console.capture() as capture:
            if tokens:
                self._console.print(tokens_table(tokens, self._console.width))
            if tokens and failures:
                self._console.print()
            if failures:
                self._console.print(_failures_table(failures))
        return capture.get()


def tokens_table(tokens: Sequence[Record], width: int, *, with_id: bool = True) -> Table:
    """Return a table with one line for each token. Cells that do not fit are cut off.

    Args:
        tokens: The records of the tokens.
        width: The columns of the terminal, which decide what is shown.
        with_id: Whether there is a column for the ID. Without it, all other columns are shown.

    Returns:
        The table. It has a column for leaks if a key is known to be leaked, and one for service accounts if there are
        several and it is wide.
    """
    table = _table()
    layout = next(layout for least, layout in _LAYOUTS if width >= least or not with_id)
    if any(token["leak"] for token in tokens):
        others = layout[1:] if width >= _LEAK_WIDTH else layout[-1:]
        layout = (layout[0], ("Leaked", 5), *others)
    if with_id and width >= _OWNER_WIDTH and len({token["service_account_id"] for token in tokens}) > 1:
        layout = (("Service account", 5), *layout)
    if with_id:
        _add_ids(table, tokens)
    for title, ratio in layout:
        if ratio is None:
            table.add_column(title, width=_DAY, no_wrap=True)
        else:
            table.add_column(title, ratio=ratio, no_wrap=True, overflow="ellipsis")
    now = datetime.now(UTC)
    for token in tokens:
        cells = _cells(token, now)
        table.add_row(*([cell(token["id"])] if with_id else []), *(cells[title] for title, _ in layout))
    return table


def _cells(token: Record, now: datetime) -> Mapping[str, Text]:
    expires = _moment(token["expires_at"])
    expired = expires is not None and expires <= now
    return {
        "Name": cell(token["name"] or "-"),
        "Service account": cell(token["service_account_id"] or "-"),
        "Leaked": cell(_leak(token["leak"]), style="red"),
        "Public portion": cell(token["public_portion"] or "-"),
        "Scopes": cell(", ".join(token["scopes"]) or "none"),
        "Last used": Text(_day(_moment(token["last_used_at"]))),
        "Expires": Text(_day(expires), style="red" if expired else ""),
    }


def _accounts_table(accounts: Sequence[Record], width: int) -> Table:
    table = _table()
    _add_ids(table, accounts)
    table.add_column("Name", ratio=5, no_wrap=True, overflow="ellipsis")
    with_email = width >= _EMAIL_WIDTH
    if with_email:
        table.add_column("Email", ratio=5, no_wrap=True, overflow="ellipsis")
    table.add_column("Status", width=len("Disabled"), no_wrap=True, overflow="ellipsis")
    table.add_column("Created", width=_DAY, no_wrap=True)
    for account in accounts:
        created = _moment(account["created_at"])
        status = "Disabled" if account["disabled"] else account["status"] or "-"
        table.add_row(
            cell(account["id"]),
            cell(account["name"] or "-"),
            *([cell(account["email"] or "-")] if with_email else []),
            cell(status, "red" if account["disabled"] else ""),
            Text("-" if created is None else utc_day(created)),
        )
    return table


def _failures_table(failures: Sequence[Record]) -> Table:
    table = _table()
    _add_ids(table, failures)
    table.add_column("Status", width=len("Status"), no_wrap=True)
    table.add_column("Error", ratio=1, overflow="fold")
    for failure in failures:
        error: Mapping[str, Any] = failure["error"]
        table.add_row(cell(failure["id"]), str(error["status"] or "-"), Text(printable(error["message"]), style="red"))
    return table


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, expand=True, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _add_ids(table: Table, records: Iterable[Record]) -> None:
    longest = max((len(record["id"]) for record in records), default=0)
    table.add_column("ID", width=max(len("ID"), min(longest, LONGEST_ID)), overflow="fold")


def cell(text: str, style: str = "") -> Text:
    """Return text from the API for a terminal: rich takes nothing in it for markup, and control characters are gone."""
    return Text(printable(text), style=style)


def _leak(leak: Record | None) -> str:
    """Return where a key was found, or else the ID of the leak."""
    return "" if leak is None else leak["source"] or leak["id"]


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else utc_day(moment)
