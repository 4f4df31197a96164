"""Records, which are values by name, as text that other programs read: JSON, JSON lines and CSV. No I/O."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from .printable import printable

Record = Mapping[str, Any]
RecordFormat = Literal["json", "jsonl", "csv"]

# A spreadsheet takes a cell that begins so for a formula, the full-width forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Records(Protocol):
    """Writes a document of records: its beginning, a record at a time, its end."""

    def begin(self) -> str:
        """Return what comes first."""
        ...

    def record(self, record: Record) -> str:
        """Return a record."""
        ...

    def end(self) -> str:
        """Return what comes last."""
        ...


def plain(value: object) -> object:
    """Return a value as JSON has it: a moment in ISO 8601, in UTC, and a tuple as a list."""
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

    def record(self, record: Record) -> str:
        """Return a line."""
        return to_json(record) + "\n"

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

    def record(self, record: Record) -> str:
        """Return an item."""
        before, self._before = self._before, ","
        return f"{before}\n{to_json(record)}"

    def end(self) -> str:
        """Close the array."""
        return "[]\n" if self._before == "[" else "\n]\n"


class Csv:
    """CSV as RFC 4180 has it, with a heading; cells that a spreadsheet would take for a formula begin with a `'`.

    Args:
        columns: The names in the heading. What a record does not have is left empty; a record inside a record has the
            columns `outer_inner`, and a list is written with spaces between its items.
        for_terminal: Whether it is written to a terminal, which must not obey what is in a cell.
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

    def end(self) -> str:
        """Return nothing."""
        return ""

    def _row(self, values: Sequence[object]) -> str:
        cells = [_csv_cell(value) for value in values]
        line = io.StringIO()
        csv.writer(line).writerow(map(printable, cells) if self._for_terminal else cells)
        return line.getvalue()


def _csv_cell(value: object) -> str:
    text = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)  # pyright: ignore[reportUnknownArgumentType] - JSON
    return f"'{text}" if text.startswith(_FORMULA) else text


def make_records(name: RecordFormat, columns: Sequence[str], *, for_terminal: bool) -> Records:
    """Return a format by its name.

    Args:
        name: Its name.
        columns: For CSV, see there.
        for_terminal: For CSV, too: JSON has nothing in it that a terminal obeys.
    """
    match name:
        case "json":
            return JsonArray()
        case "jsonl":
            return JsonLines()
        case "csv":
            return Csv(columns, for_terminal=for_terminal)
