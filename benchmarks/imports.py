"""What importing the package costs, beside aiohttp and other clients: time and memory, in fresh processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

import attrs

from .machine import installed
from .processes import MIB
from .report import Column, Report, Row, Table
from .timing import interleave

_TOP = Path(__file__).parent.parent
_PROGRAM = """\
import json, resource, time
from pathlib import Path
statm = Path("/proc/self/statm")
def resident():
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else None
{before}
memory, begin = resident(), time.perf_counter()
{statement}
seconds = time.perf_counter() - begin
print(json.dumps([seconds, None if memory is None else resident() - memory]))
"""


@attrs.frozen
class Import:
    """A statement to time, after another one, and the modules that must be installed."""

    name: str
    statement: str
    needs: tuple[str, ...] = ()
    before: str = "pass"


_API = "from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi"
_OFFICIAL = f"from datadog_api_client import ApiClient, Configuration; {_API}"
_OFFICIAL_ASYNC = f"import aiosonic; from datadog_api_client import AsyncApiClient, Configuration; {_API}"
IMPORTS = [
    Import("aiohttp", "import aiohttp"),
    Import("dd_sa_tokens", "import dd_sa_tokens"),
    Import("dd_sa_tokens, after aiohttp", "import dd_sa_tokens", before="import aiohttp"),
    Import("official client, what a call needs", _OFFICIAL, ("datadog_api_client",)),
    Import("official client, async", _OFFICIAL_ASYNC, ("datadog_api_client", "aiosonic")),
    Import("httpx", "import httpx", ("httpx",)),
]


def _once(one: Import) -> tuple[float, int | None]:
    """Return the seconds and bytes of an import in a fresh process."""
    program = _PROGRAM.format(before=one.before, statement=one.statement)
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=_TOP).stdout
    seconds, memory = json.loads(output)
    return seconds, memory


def run(*, quick: bool) -> Report:
    """Import each in many processes, in random order."""
    rounds = 1 if quick else 25
    chosen = [one for one in IMPORTS if installed(one.name, one.needs)]
    for one in chosen:  # once for the bytecode and the disk
        _once(one)
    rows: list[Row] = []
    for name, found in interleave({one.name: partial(_once, one) for one in chosen}, rounds).items():
        seconds, memory = zip(*found, strict=True)
        mib = None if None in memory else statistics.median(memory) / MIB
        rows.append({"import": name, "ms": statistics.median(seconds) * 1e3, "mib": mib})
    columns = [
        Column("import", "import"),
        Column("ms", "time", ",.0f", " ms"),
        Column("mib", "resident memory", ".1f", " MiB"),
    ]
    conditions = [f"Medians of {rounds} fresh processes each. Starting Python does not count."]
    return Report("imports", conditions, [Table(columns, rows)])
