"""What it costs to turn an answer's body into a typed token; measured with pyperf."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import decoders, machine
from .report import Column, Options, Report, Row, Table

_TOP = Path(__file__).parent.parent


def _measure(*, quick: bool) -> Any:
    """Run pyperf, and return its suite of benchmarks."""
    import pyperf

    options = ["--debug-single-value"] if quick else ["--fast"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decode.json"
        command = [sys.executable, "-m", "benchmarks.decoders", "--quiet", "--output", str(path), *options]
        subprocess.run(command, check=True, cwd=_TOP, stdout=subprocess.DEVNULL)
        return pyperf.BenchmarkSuite.load(str(path))


def run(options: Options) -> Report:
    """Check and time all decoders."""
    machine.require("pyperf")
    found = decoders.present()
    suite = _measure(quick=options.quick)
    micros = {bench.get_name(): bench.median() * 1e6 for bench in suite.get_benchmarks()}
    spread = {
        bench.get_name(): bench.median_abs_dev() * 1e6 if bench.get_nvalue() > 1 else None
        for bench in suite.get_benchmarks()
    }
    rows: list[Row] = []
    for name in dict.fromkeys(key.partition("/")[0] for key in micros):
        one, page = micros[f"{name}/one"], micros[f"{name}/page"]
        rows.append(
            {
                "decoder": name,
                "one_us": one,
                "deviation_us": spread[f"{name}/one"],
                "page_us": page,
                "page_us_a_token": page / decoders.PAGE,
            }
        )
    assert len(rows) == len(found)
    columns = [
        Column("decoder", "decoder"),
        Column("one_us", "one token, µs", ",.2f"),
        Column("deviation_us", "± µs", ".2f"),
        Column("page_us", f"a page of {decoders.PAGE}, µs", ",.0f"),
        Column("page_us_a_token", "µs a token of it", ",.2f"),
    ]
    conditions = [
        (
            f"A body of {len(decoders.ONE)} bytes and a page of {len(decoders.MANY):,}; pyperf, medians, each "
            "benchmark in processes of its own."
        ),
        (
            "All make typed objects with dates of type datetime and were checked to agree, except for those that are "
            "JSON alone, which make dictionaries: what is left to do on top of them is the others' price."
        ),
    ]
    return Report("decode", conditions, [Table("Decode", columns, rows)])
