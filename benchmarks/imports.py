"""What it costs to import the package, beside aiohttp alone and other clients: time and memory, in fresh processes."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

from . import machine
from .machine import Skipped
from .report import Column, Options, Report, Row, Table, say

OURS, AIOHTTP = "dd_sa_tokens", "aiohttp"
BEYOND = "dd_sa_tokens, aiohttp imported before"
_TOP = Path(__file__).parent.parent
_STATEMENTS = {
    AIOHTTP: "import aiohttp",
    OURS: "import dd_sa_tokens",
    BEYOND: "import dd_sa_tokens",
    "official client, what a call needs": (
        "from datadog_api_client import ApiClient, Configuration; "
        "from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi"
    ),
    "official client, async": (
        "import aiosonic; from datadog_api_client import AsyncApiClient, Configuration; "
        "from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi"
    ),
    "httpx": "import httpx",
}
_BEFORE = {BEYOND: "import aiohttp"}
_NEEDS = {"httpx": ("httpx",), "official client, what a call needs": ("datadog_api_client",)}
_NEEDS["official client, async"] = ("datadog_api_client", "aiosonic")
_PROGRAM = """\
import json, resource, time
from pathlib import Path
def resident():
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return None
{before}
memory, begun = resident(), time.perf_counter()
{statement}
seconds = time.perf_counter() - begun
print(json.dumps([seconds, None if memory is None else resident() - memory]))
"""


def _once(name: str) -> tuple[float, int | None]:
    program = _PROGRAM.format(before=_BEFORE.get(name, "pass"), statement=_STATEMENTS[name])
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=_TOP)
    seconds, memory = json.loads(said.stdout)
    return seconds, memory


def _present() -> list[str]:
    found: list[str] = []
    for name in _STATEMENTS:
        try:
            machine.require(*_NEEDS.get(name, ()))
        except Skipped as reason:
            say(f"without {name}: {reason}")
        else:
            found.append(name)
    return found


def run(options: Options, seed: int = 8) -> Report:
    """Import each in many processes, one after the other, in random order."""
    rounds, order = 2 if options.quick else 25, random.Random(seed)
    names = _present()
    samples: dict[str, list[tuple[float, int | None]]] = {name: [] for name in names}
    for name in names:  # once for the bytecode and the disk
        _once(name)
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            samples[name].append(_once(name))
    rows: list[Row] = []
    for name, found in samples.items():
        memory = [grown for _, grown in found if grown is not None]
        rows.append(
            {
                "what": name,
                "ms": statistics.median(seconds for seconds, _ in found) * 1e3,
                "fastest_ms": min(seconds for seconds, _ in found) * 1e3,
                "mib": statistics.median(memory) / 1024 / 1024 if memory else None,
            }
        )
    columns = [
        Column("what", "import of"),
        Column("ms", "ms", ".0f"),
        Column("fastest_ms", "fastest, ms", ".0f"),
        Column("mib", "resident memory, MiB", ".1f"),
    ]
    conditions = [
        f"Median of {rounds} fresh processes each, in random order (seed {seed}); bytecode compiled before.",
        "Time and memory of the statement itself: starting Python is not counted.",
    ]
    return Report("import", conditions, [Table("Import", columns, rows)])
