"""The figures of a part: tables in Markdown, for the terminal and README.md, and JSON for the charts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import cattrs

from .machine import describe, package_versions

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n\n).*?(\n\n<!-- end of figures -->)", re.DOTALL)
_SHOWN = ("aiohttp", "orjson", "datadog-api-client", "httpx", "uvloop")  # packages that README.md names

Row = dict[str, Any]


@attrs.frozen
class Column:
    """A column: the key of its values, its heading, their format and unit; a column without a format is text."""

    key: str
    heading: str
    format: str = ""
    unit: str = ""

    def write(self, row: Row) -> str:
        """Format the value of a row; a dash where there is none."""
        value = row.get(self.key)
        return "-" if value is None else format(value, self.format) + self.unit


@attrs.frozen
class Table:
    """Rows under columns."""

    columns: list[Column]
    rows: list[Row]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [[column.heading for column in self.columns]]
        lines += [[column.write(row) for column in self.columns] for row in self.rows]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        sides = [">" if column.format else "<" for column in self.columns]
        rule = ["-" * (width - 1) + ":-"[side == "<"] for width, side in zip(widths, sides, strict=True)]
        template = " | ".join(f"{{:{side}{width}}}" for width, side in zip(widths, sides, strict=True))
        return "\n".join(f"| {template.format(*cells)} |" for cells in [lines[0], rule, *lines[1:]])


def pivot(rows: list[Row], index: Column, across: str, values: list[Column]) -> Table:
    """Return a table with a row for each value of `index`, and the columns `values` for each value of `across`."""
    columns, lines = [index], dict[Any, Row]()
    numbers = [row[across] for row in rows if isinstance(row[across], int)]
    for head in dict.fromkeys(sorted(numbers) or [row[across] for row in rows]):
        label = f"{head:,}" if numbers else head
        for value in values:
            key = f"{value.key} {label}"
            columns.append(attrs.evolve(value, key=key, heading=f"{value.heading} {label}".strip()))
            for row in rows:
                if row[across] == head:
                    lines.setdefault(row[index.key], {index.key: row[index.key]})[key] = row[value.key]
    return Table(columns, list(lines.values()))


@attrs.frozen
class Report:
    """What a part measured."""

    part: str  # its name, as on the command line
    conditions: list[str]  # how it was measured, in sentences
    tables: list[Table]
    data: list[Row] = attrs.Factory(list[Row])  # further rows, for the charts and a closer look
    quick: bool = False  # whether little was measured, only to show that it runs
    date: str = attrs.Factory(lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    machine: dict[str, Any] = attrs.Factory(describe)
    versions: dict[str, str] = attrs.Factory(package_versions)

    def markdown(self) -> str:
        """Return the tables, the conditions, and what the figures were measured on."""
        host = self.machine
        packages = ", ".join(f"{name} {self.versions[name]}" for name in _SHOWN if name in self.versions)
        origin = (
            f"Measured on {self.date[:10]} at commit {host['commit']}: {host['cpu']}, {host['cores']} cores, "
            f"load {host['load']} at the end, {host['python']}; {packages}."
        )
        tables = [table.markdown() for table in self.tables]
        return "\n\n".join([*tables, "\n".join(f"- {line}" for line in [*self.conditions, origin])])

    def save(self, folder: Path) -> None:
        """Write the report to a folder as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(cattrs.unstructure(self), indent=1, ensure_ascii=False) + "\n"
        (folder / f"{self.part}.json").write_text(text, encoding="utf-8")


def load(folder: Path) -> list[Report]:
    """Return the reports of a folder."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))]
    return [cattrs.structure(json.loads(text), Report) for text in texts]


def with_figures(text: str, reports: Iterable[Report]) -> str:
    """Return the text of README.md with the figures of these reports in it."""
    found = {report.part: report.markdown() for report in reports}
    return _BLOCK.sub(lambda block: block[1] + found[block[2]] + block[3], text)
