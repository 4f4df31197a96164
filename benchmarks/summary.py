"""The figures that the README shows, as Markdown, from the JSON of a run: so that nobody has to copy them by hand."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .report import Row

_WIDTH = 50  # in flight


def markdown(documents: Iterable[dict[str, Any]]) -> str:
    """Return where the figures come from, and a table for each part that has one here."""
    found = {document["part"]: document for document in documents}
    parts = [(name, table) for name, table in _TABLES.items() if name in found]
    origins = dict.fromkeys(_origin(found[name]) for name, _ in parts)
    blocks = [" ".join(origins), *("\n".join(table(_rows(found[name]))) for name, table in parts)]
    return "\n\n".join(blocks)


def _rows(document: dict[str, Any]) -> list[Row]:
    return [row for table in document["tables"] for row in table["rows"]]


def _origin(document: dict[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    names = ("aiohttp", "orjson", "datadog-api-client", "httpx", "uvloop")
    packages = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['python']}, {document['date'][:10]}; {packages}."


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _line(heading)
    yield _line(["---"] + ["---:"] * (len(heading) - 1))
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _throughput(rows: list[Row]) -> Iterator[str]:
    widths = {row["width"] for row in rows}
    width = _WIDTH if _WIDTH in widths else max(widths)
    rows = [row for row in rows if row["width"] == width]
    loops = list(dict.fromkeys(row["loop"] for row in rows))
    heading = [f"{width} in flight"]
    for loop in loops:
        heading += [f"tokens/s, {loop}", "ours / its", "in CPU time"]
    cells = {row["peer"]: [row["peer"]] for row in rows}
    for row in rows:
        ratios = (row["ours_against_it"], row["cpu_ours_against_it"])
        cells[row["peer"]] += [format(row["per_second"], ",.0f"), *(format(ratio, ".2f") for ratio in ratios)]
    yield from _table(heading, cells.values())


def _quota(rows: list[Row]) -> Iterator[str]:
    cells: list[list[str]] = []
    for client in dict.fromkeys(row["client"] for row in rows):
        mine = [row for row in rows if row["client"] == client]
        over = [row["over"] for row in mine if row["over"] is not None]
        whole = f"{statistics.median(over):.2f} s, {max(over):.2f} s" if over else "-"
        lost = sum(row["lost"] for row in mine)
        cells.append([client, f"{sum(row['rejected'] for row in mine):,}", f"{lost:,}", f"{len(over)}", whole])
    heading = [
        f"{len(rows) // len(cells)} cases",
        "429s",
        "IDs lost",
        "cases without a loss",
        "over the least: median, most",
    ]
    yield from _table(heading, cells)


def _memory(rows: list[Row]) -> Iterator[str]:
    most = {row["way"]: row for row in rows}  # the last one of each has the most IDs
    cells = [
        [
            row["way"],
            f"{row['ids']:,}",
            f"{row['peak_mib']:,.2f} MiB",
            "-" if row["kept_bytes_an_id"] is None else f"{row['kept_bytes_an_id']:,.0f} bytes",
        ]
        for row in most.values()
    ]
    yield from _table(["memory", "IDs", "growth at the peak", "a token kept"], cells)


def _decode(rows: list[Row]) -> Iterator[str]:
    cells = [
        [row["decoder"], f"{row['one_us']:,.1f} µs", f"{row['page_us_a_token']:,.1f} µs"]
        for row in sorted(rows, key=lambda row: float(row["one_us"]))
    ]
    yield from _table(["decoding", "one token", "a token of a page of 100"], cells)


def _import(rows: list[Row]) -> Iterator[str]:
    cells = [[row["what"], f"{row['ms']:,.0f} ms", f"{row['mib']:,.1f} MiB"] for row in rows]
    yield from _table(["importing", "time", "memory"], cells)


def _growth(rows: list[Row]) -> Iterator[str]:
    counts = sorted({row["count"] for row in rows})
    cells: list[list[str]] = []
    for what in dict.fromkeys(row["what"] for row in rows):
        each = {row["count"]: f"{row['us_each']:,.1f}" for row in rows if row["what"] == what}
        cells.append([what, *(each.get(count, "") for count in counts)])
    yield from _table(["µs for each of so many", *(f"{count:,}" for count in counts)], cells)


_TABLES = {
    "throughput": _throughput,
    "quota": _quota,
    "memory": _memory,
    "decode": _decode,
    "import": _import,
    "growth": _growth,
}
