"""Run all benchmarks, or those that are named; print tables, write JSON and charts."""

from __future__ import annotations

import argparse
import importlib
import logging
import tempfile
import time
from pathlib import Path

import attrs

from . import charts, report

PARTS = (
    "throughput", "lists", "neighbours", "rate_limit", "sharing", "memory", "decode", "imports", "growth", "soak",
)  # fmt: skip
"""The parts, by module. Each is imported when it runs, so that it does not add to the memory of another."""


def main() -> None:
    """Parse the command line and run."""
    options = _options()
    if options.draw:
        reports = report.load(report.RESULTS)
        for one in reports:
            charts.draw(one, report.RESULTS)
        text = report.README.read_text(encoding="utf-8")
        report.README.write_text(report.with_figures(text, reports), encoding="utf-8")
        return
    logging.getLogger("dd_sa_tokens").addHandler(logging.NullHandler())  # some parts provoke retries, which are logged
    for name in options.names or PARTS:
        begin = time.monotonic()
        measured = importlib.import_module(f".{name}", __package__).run(quick=options.quick)
        measured = attrs.evolve(measured, quick=options.quick)
        measured.save(options.out)
        charts.draw(measured, options.out)
        print(f"\n{measured.markdown()}\n\n{name}: {time.monotonic() - begin:.0f} s, written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, only to show that they run")
    parser.add_argument(
        "--out", type=Path, help="folder for JSON and charts; benchmarks/results by default, a temporary one if --quick"
    )
    parser.add_argument(
        "--draw",
        action="store_true",
        help="measure nothing; draw the charts and write the tables of benchmarks/README.md from benchmarks/results",
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(PARTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.out is None:
        options.out = Path(tempfile.mkdtemp(prefix="benchmarks-")) if options.quick else report.RESULTS
    return options


if __name__ == "__main__":
    main()
