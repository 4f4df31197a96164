"""Charts of the figures, as SVG: transparent, in colours that are readable on light and on dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from .machine import installed
from .report import Report, Row

_INK = "#777777"  # contrast 4.5 to 1 on white, 4.2 to 1 on GitHub's dark
_COLOURS = {
    "dd_sa_tokens": "#2f81d7",
    "aiohttp": "#3f9142",
    "official client": "#c4691c",
    "httpx": "#a05fb4",
    "msgspec": "#5f8a8b",
    "cattrs default": "#b8860b",
}
"""The colour of each client, in every chart; what is no client is grey."""
_INKED = (
    "axes.edgecolor",
    "axes.labelcolor",
    "axes.titlecolor",
    "grid.color",
    "text.color",
    "xtick.color",
    "ytick.color",
)
_STYLE: dict[Any, Any] = dict.fromkeys(_INKED, _INK) | {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "font.size": 10,
    "grid.alpha": 0.25,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
}
_WIDTH = 11.0  # inches
_PLAIN = "{x:,.10g}"  # numbers on an axis


def draw(report: Report, folder: Path) -> None:
    """Draw the chart of a part beside its JSON, under a line that says what to see, if matplotlib is installed."""
    if not installed("charts", ["matplotlib"]):
        return
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    panels, height, caption, fill = _CHARTS[report.part]
    mpl.use("svg")
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(1, panels, figsize=(_WIDTH, height), sharey=panels > 1, squeeze=False)
        fill(list(axes[0]), report.data or report.tables[0].rows)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / height))
        figure.text(0.01, 1 - 0.1 / height, caption, va="top", fontweight="bold")
        figure.savefig(folder / f"{report.part}.svg", metadata={"Date": None})
        plt.close(figure)


def _colour(name: str) -> str:
    return _COLOURS.get(name.partition(",")[0], _INK)


def _from_the_top(axes: Any, names: Sequence[str], title: str) -> None:
    """Put one name on each line, the first at the top."""
    axes.set_title(title)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(_PLAIN)


def _write_beside(axes: Any, text: str, point: tuple[float, float], colour: str) -> None:
    axes.annotate(text, point, (8, 0), textcoords="offset points", va="center", color=colour)


def _bars(axes: Any, rows: list[Row], *, value: str, title: str, name: str = "client", form: str = ",.0f") -> None:
    """Draw horizontal bars from 0, each with its value behind it."""
    values = [row[value] or 0 for row in rows]
    bars = axes.barh(range(len(rows)), values, color=[_colour(row[name]) for row in rows], height=0.7)
    axes.bar_label(bars, labels=[format(one, form) for one in values], padding=3)
    _from_the_top(axes, [row[name] for row in rows], title)
    axes.locator_params(axis="x", nbins=5)  # more labels would overlap
    axes.margins(x=0.18)


def _marks(axes: Any, rows: list[Row], *, value: str, title: str, crossed: str = "") -> None:
    """Draw a dot for each case on the line of its client; a cross where the value under `crossed` is not 0."""
    names = list(dict.fromkeys(row["client"] for row in rows))
    for row in rows:
        if row[value] is not None:
            marker = "x" if row.get(crossed) else "o"
            colour, line = _colour(row["client"]), names.index(row["client"])
            axes.scatter(row[value], line, marker=marker, color=colour, alpha=0.7, s=45)
    _from_the_top(axes, names, title)


def _lines(
    axes: Any, rows: list[Row], *, across: str, value: str, name: str = "client", named: bool = True, **settings: Any
) -> None:
    """Draw a line for each name, with the name at its end; lines of one client differ in their dashes.

    `settings` are those of `Axes.set`. The x axis is logarithmic unless they say otherwise.
    """
    styles = {colour: cycle(("-", "--", ":", "-.")) for colour in {*_COLOURS.values(), _INK}}
    for one in dict.fromkeys(row[name] for row in rows):
        colour = _colour(one)
        points = [(row[across], row[value]) for row in rows if row[name] == one]
        axes.plot(*zip(*points, strict=True), next(styles[colour]), marker="o", markersize=4, color=colour, label=one)
        if named:
            _write_beside(axes, one, points[-1], colour)
    axes.set(**{"xscale": "log"} | settings)
    axes.xaxis.set_major_formatter(_PLAIN)


def _throughput(axes: list[Any], rows: list[Row]) -> None:
    for place, setting in zip(axes, ("50, asyncio", "50, uvloop"), strict=True):
        chosen = [row for row in rows if row["setting"] == setting]
        if chosen:  # uvloop may not be installed
            _bars(place, chosen, value="per_second", title=f"tokens per second, concurrency {setting}")


def _lists(axes: list[Any], rows: list[Row]) -> None:
    _bars(axes[0], rows, value="per_second", title="tokens per second")
    _bars(axes[1], rows, value="hold_ms", title="longest hold of the event loop, ms", form=",.1f")


def _neighbours(axes: list[Any], rows: list[Row]) -> None:
    for place, key in zip(axes, ("p50", "p99", "worst"), strict=True):
        _bars(place, rows, value=key, title=f"delay of another task, ms, {key}", form=",.1f")


def _rate_limit(axes: list[Any], rows: list[Row]) -> None:
    rows = [row | {"lost_share": 100 * row["lost"] / row["ids"]} for row in rows]
    _marks(axes[0], rows, value="lost_share", title="IDs lost, %")
    _marks(axes[1], rows, value="above", title="seconds above the minimum", crossed="lost")
    _marks(axes[2], rows, value="rejected", title="429 responses")


def _sharing(axes: list[Any], rows: list[Row]) -> None:
    panels = {"rejected_share": "429s in 100 requests", "fill": "spent of a full window, %"}
    settings = {"xlabel": "clients", "xticks": sorted({row["clients"] for row in rows})}
    for place, (value, title) in zip(axes, panels.items(), strict=True):
        _lines(place, rows, across="clients", value=value, named=False, title=title, **settings)
        place.minorticks_off()
    axes[1].legend(loc="center", frameon=False, labelcolor="linecolor", handlelength=3)


def _memory(axes: list[Any], rows: list[Row]) -> None:
    rows = [row | {"peak_mib": max(row["peak_mib"], 0.01)} for row in rows]
    title = "growth of resident memory at its peak, MiB, by number of IDs (both logarithmic)"
    limits = (None, 30 * max(row["ids"] for row in rows))
    _lines(axes[0], rows, across="ids", value="peak_mib", title=title, yscale="log", xlim=limits)
    axes[0].yaxis.set_major_formatter(_PLAIN)


def _decode(axes: list[Any], rows: list[Row]) -> None:
    for line, row in enumerate(rows):
        colour, point = _colour(row["decoder"]), (row["one_us"], line)
        axes[0].plot(*point, "o", color=colour, markersize=8)
        _write_beside(axes[0], f"{row['one_us']:,.1f}", point, colour)
    axes[0].set_xscale("log")
    _from_the_top(axes[0], [row["decoder"] for row in rows], "µs to decode one token (logarithmic)")
    axes[0].margins(x=0.08)


def _imports(axes: list[Any], rows: list[Row]) -> None:
    _bars(axes[0], rows, name="import", value="ms", title="ms to import")
    _bars(axes[1], rows, name="import", value="mib", title="MiB of memory", form=".1f")


def _growth(axes: list[Any], rows: list[Row]) -> None:
    rows = [row | {"case": f"dd_sa_tokens, {row['case']}"} for row in rows if row["count"] >= 10]
    title = "µs for each, by number (logarithmic)"
    limits = {"xlim": (None, 40 * max(row["count"] for row in rows)), "ylim": (0, None)}
    _lines(axes[0], rows, name="case", across="count", value="us_each", title=title, **limits)


def _soak(axes: list[Any], rows: list[Row]) -> None:
    most = {key: max(row[key] for row in rows) for key in ("ids", "mib")}
    settings = {"xscale": "linear", "xlim": (0, 1.35 * most["ids"]), "ylim": (0, 1.2 * most["mib"])}
    title = "resident memory of the client, MiB"
    _lines(axes[0], rows, across="ids", value="mib", title=title, xlabel="IDs fetched", **settings)


_CHARTS: dict[str, tuple[int, float, str, Callable[[list[Any], list[Row]], None]]] = {
    "throughput": (2, 3.8, "Single gets from a server that is faster than any client. Longer is better.", _throughput),
    "lists": (2, 2.6, "A list of 20,000 tokens. Left, longer is better; right, shorter is.", _lists),
    "neighbours": (3, 3.0, "What another task on the event loop waits meanwhile. Shorter is better.", _neighbours),
    "rate_limit": (
        3,
        2.8,
        "A mark for each case. The time of a cross does not count: the client lost IDs.",
        _rate_limit,
    ),
    "sharing": (2, 3.8, "Clients that share a rate limit, simulated. Left, lower is better; right, higher.", _sharing),
    "memory": (1, 4.6, "Memory by number of IDs. A level line means that memory does not grow.", _memory),
    "decode": (1, 3.2, "From JSON to typed tokens. Further left is better. Grey makes no types.", _decode),
    "imports": (2, 3.0, "What an import costs when a program starts. Shorter is better.", _imports),
    "growth": (1, 3.8, "Cost of one ID or call. A level line means that the number does not matter.", _growth),
    "soak": (1, 2.8, "100,000 IDs through faults of every kind. A level line means that memory does not grow.", _soak),
}
"""The number of panels, the height in inches, what to see, and what fills the panels, by part."""
