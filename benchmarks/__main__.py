"""Run all benchmarks, or those that are named."""

from __future__ import annotations

import argparse
import logging

from . import memory, quota, throughput

BENCHMARKS = {"throughput": throughput.main, "quota": quota.main, "memory": memory.main}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="only show that they run")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    logging.getLogger("dd_sa_tokens").addHandler(logging.NullHandler())  # retries are what some of them provoke
    for name in options.names or BENCHMARKS:
        BENCHMARKS[name](quick=options.quick)


if __name__ == "__main__":
    main()
