"""A part's figures: as tables on the terminal, and as JSON beside the machine and the versions that they came from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from . import machine

RESULTS = Path(__file__).parent / "results"
_TERMINAL = Console(highlight=False)
console = _TERMINAL if _TERMINAL.is_terminal else Console(highlight=False, width=140)

Row = dict[str, Any]


@attrs.frozen
class Options:
    """How much to measure.

    Attributes:
        quick: Whether it is only to show that it runs.
        largest: Most IDs, where their number is what is varied.
    """

    quick: bool = False
    largest: int = 1_000_000

    def up_to_largest(self, counts: tuple[int, ...], *, quick: int) -> tuple[int, ...]:
        """Choose among numbers of IDs: the first so many if quick, else those that are not too large."""
        return counts[:quick] if self.quick else tuple(count for count in counts if count <= self.largest)


@attrs.frozen
class Column:
    """A column: the key of the row's value, what stands above it, and how it is written."""

    key: str
    heading: str
    format: str = ""

    def write(self, value: object) -> str:
        """Write a value; a missing one as a dash."""
        return "-" if value is None else format(value, self.format)


@attrs.frozen
class Table:
    """Rows under a title; the columns without a format are text."""

    title: str
    columns: list[Column]
    rows: list[Row]

    def print(self) -> None:
        """Print it."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE)
        for column in self.columns:
            table.add_column(column.heading, justify="right" if column.format else "left", no_wrap=not column.format)
        for row in self.rows:
            table.add_row(*(column.write(row.get(column.key)) for column in self.columns))
        console.print(table)


@attrs.frozen
class Report:
    """What a part found.

    Attributes:
        part: Its name, as on the command line.
        conditions: How it was measured, in sentences.
        tables: What it prints.
        data: Single measurements, for who wants to look closer.
    """

    part: str
    conditions: list[str]
    tables: list[Table]
    data: Any = None

    def print(self) -> None:
        """Print it."""
        for table in self.tables:
            table.print()
        for condition in self.conditions:
            console.print(f"  {condition}", style="dim", soft_wrap=True)

    def document(self, *, quick: bool) -> dict[str, Any]:
        """Return all of it as a JSON document."""
        return {
            "part": self.part,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": quick,
            "machine": machine.describe(),
            "versions": machine.versions(),
            "conditions": self.conditions,
            "tables": [{"title": table.title, "rows": table.rows} for table in self.tables],
            "data": self.data,
        }


def save(document: dict[str, Any], folder: Path) -> Path:
    """Write a document to a folder, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{document['part']}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def load(folder: Path) -> list[dict[str, Any]]:
    """Read the documents of a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def say(text: str) -> None:
    """Print a plain line."""
    console.print(text, soft_wrap=True)
