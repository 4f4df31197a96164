"""The formats that other programs read: JSON, JSON lines and CSV. Each turns records into text. No I/O."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import attrs

from dd_sa_tokens.errors import APIError, DatadogError
from dd_sa_tokens.models import AccessToken, Leak, ServiceAccount

from .printable import printable

Record = Mapping[str, Any]
RecordFormat = Literal["json", "jsonl", "csv"]

FIELDS = tuple(field.name for field in attrs.fields(AccessToken))
TOKEN_COLUMNS = (
    *(name for name in FIELDS if name != "leak"),
    *("leak_id", "leak_detected_at", "leak_source"),
    *("error_type", "error_status", "error_message"),
)

ACCOUNT_COLUMNS = tuple(field.name for field in attrs.fields(ServiceAccount))

# A spreadsheet takes a cell that begins with one of these for a formula; the last four are full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Format:
    """Turns records into the text of a document."""

    def begin(self) -> str:
        """Return the beginning of the document."""
        return ""

    def record(self, record: Record) -> str:
        """Return the text of a record."""
        raise NotImplementedError

    def end(self) -> str:
        """Return the end of the document."""
        return ""

    def document(self, records: Iterable[Record]) -> str:
        """Return a whole document."""
        return "".join([self.begin(), *map(self.record, records), self.end()])


class Json(Format):
    """One JSON object on each line.

    Args:
        array: Whether the lines are the items of an array.
        ascii_only: Whether to escape all other characters, for a file that is not UTF-8.
    """

    def __init__(self, *, array: bool, ascii_only: bool) -> None:
        self._array = array
        self._ascii_only = ascii_only
        self._before = "["

    def record(self, record: Record) -> str:
        """Return a line, or an item of the array."""
        text = to_json(record, ascii_only=self._ascii_only)
        if not self._array:
            return f"{text}\n"
        before, self._before = self._before, ","
        return f"{before}\n{text}"

    def end(self) -> str:
        """Return the end of the array, or an empty array."""
        if not self._array:
            return ""
        return "[]\n" if self._before == "[" else "\n]\n"


class Csv(Format):
    """CSV after RFC 4180, with a heading. A cell that a spreadsheet would take for a formula begins with a `'`.

    Args:
        columns: The names in the heading. A value that a record lacks leaves its cell empty. A record inside a record
            has the columns `outer_inner`. A list is written with spaces between its items.
        for_terminal: Whether to replace the control characters, which a terminal would obey.
    """

    def __init__(self, columns: Sequence[str], *, for_terminal: bool = False) -> None:
        self._columns = columns
        self._for_terminal = for_terminal

    def begin(self) -> str:
        """Return the heading."""
        return self._row(self._columns)

    def record(self, record: Record) -> str:
        """Return a row."""
        cells = dict(record)
        for outer, inner in record.items():
            if isinstance(inner, dict):
                cells |= {f"{outer}_{name}": value for name, value in inner.items()}  # pyright: ignore[reportUnknownVariableType] - JSON
        return self._row([cells.get(column) for column in self._columns])

    def _row(self, values: Sequence[object]) -> str:
        cells = [_csv_cell(value) for value in values]
        line = io.StringIO()
        csv.writer(line).writerow(map(printable, cells) if self._for_terminal else cells)
        return line.getvalue()


def _csv_cell(value: object) -> str:
    text = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)  # pyright: ignore[reportUnknownArgumentType] - JSON
    return f"'{text}" if text.startswith(_FORMULA) else text


def make_format(name: RecordFormat, columns: Sequence[str], *, ascii_only: bool, for_terminal: bool) -> Format:
    """Make a format.

    Args:
        name: Its name.
        columns: For CSV: see `Csv`.
        ascii_only: For JSON: see `Json`.
        for_terminal: For CSV. JSON escapes control characters in any case.
    """
    if name == "csv":
        return Csv(columns, for_terminal=for_terminal)
    return Json(array=name == "json", ascii_only=ascii_only)


def to_json(value: object, *, ascii_only: bool = False) -> str:
    """Return JSON on one line. Control characters are escaped, so that a terminal obeys nothing in it."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def token_record(token: AccessToken) -> dict[str, Any]:
    """Return a token's fields by name, with its dates in ISO 8601; its leak is an object or `None`."""
    return {name: json_value(getattr(token, name)) for name in FIELDS}


def account_record(account: ServiceAccount) -> dict[str, Any]:
    """Return a service account's fields by name, with its date in ISO 8601."""
    return {name: json_value(getattr(account, name)) for name in ACCOUNT_COLUMNS}


def failure_record(token_id: str, error: DatadogError) -> dict[str, Any]:
    """Return the ID of a token that was not fetched, and its error."""
    status = error.status if isinstance(error, APIError) else None
    return {"id": token_id, "error": {"type": type(error).__name__, "status": status, "message": error.message}}


def json_value(value: object) -> object:
    """Return a value for JSON: a datetime as ISO 8601 in UTC, a tuple as a list, a leak as an object."""
    if isinstance(value, Leak):
        return {field.name: json_value(getattr(value, field.name)) for field in attrs.fields(Leak)}
    if isinstance(value, datetime):
        with suppress(OverflowError):  # in the first hours of year 1 or the last of 9999, UTC may have no such time
            value = value.astimezone(UTC)
        return value.isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - the scopes
