"""Tokens and failures as text: JSON, JSON lines, CSV, or a table. No I/O."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import attrs
from rich.console import Console

from dd_sa_tokens.errors import APIError, DatadogError
from dd_sa_tokens.models import AccessToken

from .tables import failures_table, tokens_table

FormatName = Literal["table", "json", "jsonl", "csv"]

FIELDS = tuple(field.name for field in attrs.fields(AccessToken))
_ERROR_COLUMNS = ("error_type", "error_status", "error_message")
# A spreadsheet takes a cell that begins so for a formula, the full-width forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


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
    return {name: _plain(getattr(token, name)) for name in FIELDS}


def flat_failure(token_id: str, error: DatadogError) -> dict[str, Any]:
    """Return what is written for an ID that failed."""
    status = error.status if isinstance(error, APIError) else None
    return {"id": token_id, "error": {"type": type(error).__name__, "status": status, "message": error.message}}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - the scopes


def to_json(value: object) -> str:
    """Return JSON on one line, in which nothing is left for a terminal to obey."""
    text = json.dumps(value, ensure_ascii=False)
    return (
        text if text.isprintable() else "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    )


class JsonLines:
    """One JSON object a line."""

    def begin(self) -> str:
        """Return nothing."""
        return ""

    def token(self, token: AccessToken) -> str:
        """Return a line."""
        return to_json(flat(token)) + "\n"

    def failure(self, token_id: str, error: DatadogError) -> str:
        """Return a line."""
        return to_json(flat_failure(token_id, error)) + "\n"

    def end(self) -> str:
        """Return nothing."""
        return ""


class JsonArray:
    """One JSON array, an object a line."""

    def __init__(self) -> None:
        self._before = "["

    def begin(self) -> str:
        """Return nothing yet: an array without items is written at its end."""
        return ""

    def token(self, token: AccessToken) -> str:
        """Return an item."""
        return self._item(flat(token))

    def failure(self, token_id: str, error: DatadogError) -> str:
        """Return an item."""
        return self._item(flat_failure(token_id, error))

    def _item(self, value: dict[str, Any]) -> str:
        before, self._before = self._before, ","
        return f"{before}\n{to_json(value)}"

    def end(self) -> str:
        """Close the array."""
        return "[]\n" if self._before == "[" else "\n]\n"


class Csv:
    """CSV as RFC 4180 has it, with a heading; cells that a spreadsheet would take for a formula begin with a `'`."""

    def begin(self) -> str:
        """Return the heading."""
        return _csv_row((*FIELDS, *_ERROR_COLUMNS))

    def token(self, token: AccessToken) -> str:
        """Return a row."""
        values = flat(token)
        values["scopes"] = " ".join(token.scopes)
        return _csv_row((*values.values(), *("" for _ in _ERROR_COLUMNS)))

    def failure(self, token_id: str, error: DatadogError) -> str:
        """Return a row with only the ID and the error's cells filled."""
        about = flat_failure(token_id, error)["error"]
        return _csv_row((token_id, *("" for _ in FIELDS[1:]), *about.values()))

    def end(self) -> str:
        """Return nothing."""
        return ""


def _csv_row(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_csv_cell(value) for value in values])
    return line.getvalue()


def _csv_cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


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
    match name:
        case "json":
            return JsonArray()
        case "jsonl":
            return JsonLines()
        case "csv":
            return Csv()
        case "table":
            return Tables(console, order)
