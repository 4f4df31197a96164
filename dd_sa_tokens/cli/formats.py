"""Tokens and failures as text: a table, or records. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import attrs
from rich.console import Console

from dd_sa_tokens.errors import APIError, DatadogError
from dd_sa_tokens.models import AccessToken

from .records import RecordFormat, Records, make_records, plain
from .tables import failures_table, tokens_table

FormatName = Literal["table", RecordFormat]

FIELDS = tuple(field.name for field in attrs.fields(AccessToken))
_ERROR_COLUMNS = ("error_type", "error_status", "error_message")


class Format(Protocol):
    """Writes a document: its beginning, an item at a time, its end."""

    def begin(self) -> str:
        """Return what comes first."""
        ...

    def token(self, token: AccessToken) -> str:
        """Return a token."""
        ...

    def failure(self, token_id: str, error: DatadogError) -> str:
        """Return an ID that failed, and why."""
        ...

    def end(self) -> str:
        """Return what comes last."""
        ...


def flat(token: AccessToken) -> dict[str, Any]:
    """Return a token's fields by name, its dates in ISO 8601."""
    return {name: plain(getattr(token, name)) for name in FIELDS}


def flat_failure(token_id: str, error: DatadogError) -> dict[str, Any]:
    """Return what is written for an ID that failed."""
    status = error.status if isinstance(error, APIError) else None
    return {"id": token_id, "error": {"type": type(error).__name__, "status": status, "message": error.message}}


class TokenRecords:
    """Tokens and failures as records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def begin(self) -> str:
        """Return what comes first."""
        return self._records.begin()

    def token(self, token: AccessToken) -> str:
        """Return a token's record."""
        return self._records.record(flat(token))

    def failure(self, token_id: str, error: DatadogError) -> str:
        """Return a record with only the ID and the error."""
        return self._records.record(flat_failure(token_id, error))

    def end(self) -> str:
        """Return what comes last."""
        return self._records.end()


class Tables:
    """A table of tokens, and one of failures if there are any, when all have come.

    Args:
        console: Whatever the tables are made for: it knows the width and the colours.
        order: The IDs in the order in which to show them; in that in which they come if it is empty.
    """

    def __init__(self, console: Console, order: Sequence[str] = ()) -> None:
        self._console = console
        self._places = {token_id: place for place, token_id in enumerate(order)}
        self._tokens: list[AccessToken] = []
        self._failures: list[tuple[str, DatadogError]] = []

    def begin(self) -> str:
        """Return nothing yet."""
        return ""

    def token(self, token: AccessToken) -> str:
        """Keep a token for the end."""
        self._tokens.append(token)
        return ""

    def failure(self, token_id: str, error: DatadogError) -> str:
        """Keep a failure for the end."""
        self._failures.append((token_id, error))
        return ""

    def end(self) -> str:
        """Return the tables."""
        self._tokens.sort(key=lambda token: self._places.get(token.id, 0))
        self._failures.sort(key=lambda failure: self._places.get(failure[0], 0))
        with self._console.capture() as capture:
            if self._tokens:
                self._console.print(tokens_table(self._tokens, self._console.width))
            if self._tokens and self._failures:
                self._console.print()
            if self._failures:
                self._console.print(failures_table(self._failures, self._console.width))
        return capture.get()


def make_format(name: FormatName, console: Console, order: Sequence[str] = ()) -> Format:
    """Return a format by its name.

    Args:
        name: Its name.
        console: What a table is made for.
        order: See `Tables`.
    """
    if name == "table":
        return Tables(console, order)
    return TokenRecords(make_records(name, (*FIELDS, *_ERROR_COLUMNS), for_terminal=console.is_terminal))
