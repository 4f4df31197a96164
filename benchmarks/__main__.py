"""Run all benchmarks, or those that are named; print tables, write JSON and charts."""

from __future__ import annotations

import argparse
import importlib
import logging
import tempfile
import time
from pathlib import Path

from . import charts, report, summary
from .machine import Skipped

PARTS = {
    "throughput": "throughput",
    "quota": "quota",
    "sharing": "sharing",
    "memory": "memory",
    "decode": "decode",
    "import": "imports",
    "growth": "growth",
    "soak": "soak",
}
"""The modules of the parts. Imported only when they run, so that one does not weigh on another's memory."""


def main() -> None:
    """Parse the command line and run."""
    options = _options()
    if options.draw:
        documents = report.load(options.out)
        for document in documents:
            charts.draw(document, options.out)
        print(summary.markdown(documents))
        return
    logging.getLogger("dd_sa_tokens").addHandler(logging.NullHandler())  # retries are what some of them provoke
    wanted = report.Options(options.quick, options.largest)
    for name in options.names or PARTS:
        begun = time.monotonic()
        try:
            found = importlib.import_module(f".{PARTS[name]}", __package__).run(wanted)
        except Skipped as reason:
            report.say(f"{name}: skipped, {reason}")
            continue
        found.print()
        document = found.document(quick=options.quick)
        report.save(document, options.out)
        charts.draw(document, options.out)
        report.say(f"{name}: {time.monotonic() - begun:.0f} s, written to {options.out}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, only to show that they run")
    parser.add_argument(
        "--out", type=Path, help="folder for JSON and charts; benchmarks/results by default, a temporary one if --quick"
    )
    parser.add_argument("--largest", type=int, default=1_000_000, help="most IDs in memory and growth; %(default)s")
    parser.add_argument(
        "--draw",
        action="store_true",
        help="only draw the charts again, from the JSON in the folder, and print the README's tables",
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
