"""Charts of the figures, as SVG: transparent, in colours that can be read on light and on dark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import machine
from .machine import Skipped
from .report import Row, say

_INK = "#777777"  # 4.5 to 1 on white, 4.2 to 1 on GitHub's dark
_OURS = "#2f81d7"
_OTHERS = ("#c4691c", "#3f9142", "#a05fb4", "#b8860b", "#5f8a8b", "#c05070", "#8a7f6d")
_STYLE = {
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": "medium",
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.color": _INK,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(document: dict[str, Any], folder: Path) -> None:
    """Draw a part's chart beside its JSON, if there is matplotlib."""
    try:
        machine.require("matplotlib")
    except Skipped as reason:
        say(f"{document['part']}: no chart, {reason}")
        return
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    with mpl.rc_context(_STYLE):
        figure = _CHARTS[document["part"]](plt, document["tables"])
        figure.tight_layout()
        figure.savefig(folder / f"{document['part']}.svg", metadata={"Date": None})
        plt.close(figure)


def _colours(names: Iterable[str]) -> dict[str, str]:
    """Give our own lines one colour, and each other one of its own."""
    others = iter(_OTHERS * 2)
    return {name: _OURS if "dd_sa_tokens" in name else next(others) for name in dict.fromkeys(names)}


def _bars(
    axes: Any,
    rows: list[Row],
    *,
    name: str,
    value: str,
    title: str,
    form: str = ",.0f",
    by: str = "",
    log: bool = False,
) -> None:
    """Draw horizontal bars, the first row at the top, each with its value behind it; those of one kind alike."""
    names, values = [row[name] for row in rows], [row[value] or 0 for row in rows]
    colours = _colours(row[by or name] for row in rows)
    bars = axes.barh(names, values, color=[colours[row[by or name]] for row in rows], height=0.7)
    axes.bar_label(bars, labels=[format(one, form) for one in values], padding=3)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title(title, loc="left")
    if log:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=5)  # more would run into each other
    axes.margins(x=0.18)


def _lines(axes: Any, rows: list[Row], *, name: str, across: str, value: str, title: str) -> None:
    """Draw a line for each name."""
    colours = _colours(row[name] for row in rows)
    styles = iter(("-", "--", ":", "-."))
    for one, colour in colours.items():
        points = [(row[across], row[value]) for row in rows if row[name] == one]
        style = next(styles) if colour == _OURS else "-"
        axes.plot(*zip(*points, strict=True), style, marker="o", markersize=4, color=colour, label=one)
    axes.set_xscale("log")
    axes.set_title(title, loc="left")


def _dots(axes: Any, rows: list[Row], value: str, title: str) -> None:
    """Draw a dot for each case, in a row for each client."""
    colours = _colours(row["client"] for row in rows)
    for client, colour in colours.items():
        found = [row[value] for row in rows if row["client"] == client and row[value] is not None]
        axes.scatter(found, [client] * len(found), color=colour, alpha=0.6, s=45)
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.set_xlim(left=min(0, *axes.get_xlim()))


def _throughput(plt: Any, tables: list[dict[str, Any]]) -> Any:
    rows = [row for table in tables for row in table["rows"]]
    loops = list(dict.fromkeys(row["loop"] for row in rows))
    widths = [row["width"] for row in rows]
    width = 50 if 50 in widths else max(widths)
    figure, axes = plt.subplots(1, len(loops), figsize=(11, 3.6), sharey=True, squeeze=False)
    for place, loop in zip(axes[0], loops, strict=True):
        chosen = [row for row in rows if row["loop"] == loop and row["width"] == width]
        _bars(place, chosen, name="peer", value="per_second", title=f"tokens/s, {width} in flight, {loop}")
    for place in axes[0][1:]:  # they share the axis, which each of them has turned around
        place.set_ylim(len(chosen) - 0.4, -0.6)
    return figure


def _quota(plt: Any, tables: list[dict[str, Any]]) -> Any:
    rows = tables[0]["rows"]
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), sharey=True)
    _dots(axes[0], rows, "rejected", "429s provoked, a dot for each case")
    _dots(axes[1], rows, "lost", "IDs lost")
    _dots(axes[2], rows, "over", "seconds over the least possible")
    axes[0].set_ylim(len(_colours(row["client"] for row in rows)) - 0.5, -0.5)
    return figure


def _sharing(plt: Any, tables: list[dict[str, Any]]) -> Any:
    rows = [
        row | {"who": f"{row['gate']}, {row['clients']} client{'s' * (row['clients'] > 1)}"}
        for row in tables[1]["rows"]
    ]
    figure, axes = plt.subplots(figsize=(11, 3.4))
    title = tables[1]["title"].replace("Simulated: ", "429s, simulated: ")
    _bars(axes, rows, name="who", value="rejected", title=title, by="gate")
    return figure


def _memory(plt: Any, tables: list[dict[str, Any]]) -> Any:
    rows = [row | {"peak_mib": max(row["peak_mib"], 0.01)} for row in tables[0]["rows"]]
    figure, axes = plt.subplots(figsize=(11, 3.6))
    title = "growth of resident memory at its peak, MiB, by number of IDs"
    _lines(axes, rows, name="way", across="ids", value="peak_mib", title=title)
    axes.set_yscale("log")
    axes.legend()
    return figure


def _decode(plt: Any, tables: list[dict[str, Any]]) -> Any:
    rows = sorted(tables[0]["rows"], key=lambda row: row["one_us"])
    figure, axes = plt.subplots(figsize=(11, 3.2))
    title = "µs to decode one token, logarithmic"
    _bars(axes, rows, name="decoder", value="one_us", title=title, form=",.1f", log=True)
    return figure


def _import(plt: Any, tables: list[dict[str, Any]]) -> Any:
    rows = tables[0]["rows"]
    figure, axes = plt.subplots(1, 2, figsize=(11, 2.8), sharey=True)
    _bars(axes[0], rows, name="what", value="ms", title="ms to import")
    _bars(axes[1], rows, name="what", value="mib", title="MiB of memory", form=".1f")
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _growth(plt: Any, tables: list[dict[str, Any]]) -> Any:
    rows = tables[0]["rows"]
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6))
    _lines(axes[0], rows, name="what", across="count", value="seconds", title="seconds in all, by number")
    axes[0].set_yscale("log")
    _lines(axes[1], rows, name="what", across="count", value="us_each", title="µs for each, by number")
    axes[1].set_ylim(bottom=0)
    axes[0].legend(fontsize="small")
    return figure


def _soak(plt: Any, tables: list[dict[str, Any]]) -> Any:
    figure, axes = plt.subplots(figsize=(11, 2.6))
    title = "resident memory of the client, MiB, by IDs fetched"
    _lines(axes, tables[1]["rows"], name="way", across="ids", value="mib", title=title)
    axes.set_xscale("linear")
    axes.set_ylim(0, 1.2 * max(row["mib"] for row in tables[1]["rows"]))
    return figure


_CHARTS: dict[str, Callable[[Any, list[dict[str, Any]]], Any]] = {
    "throughput": _throughput,
    "quota": _quota,
    "sharing": _sharing,
    "memory": _memory,
    "decode": _decode,
    "import": _import,
    "growth": _growth,
    "soak": _soak,
}
