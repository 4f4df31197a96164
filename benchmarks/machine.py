"""What the figures were measured on: the machine, the versions and the commit."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .processes import cores

Loop = Callable[[], asyncio.AbstractEventLoop]

_PACKAGES = (
    "aiohttp", "aiosonic", "attrs", "cattrs", "datadog-api-client", "dd-sa-tokens", "httpx", "msgspec", "orjson",
    "tenacity", "urllib3", "uvloop", "yarl",
)  # fmt: skip


def installed(name: str, needs: Iterable[str]) -> bool:
    """Return whether the modules that something needs are installed; otherwise print that it is left out."""
    missing = [module for module in needs if find_spec(module) is None]
    if missing:
        print(f"without {name}: {', '.join(missing)} not installed")
    return not missing


def event_loops() -> dict[str, Loop]:
    """Return what makes each event loop that is installed."""
    found: dict[str, Loop] = {"asyncio": asyncio.new_event_loop}
    if installed("uvloop", ["uvloop"]):
        import uvloop

        found["uvloop"] = uvloop.new_event_loop
    return found


def describe() -> dict[str, Any]:
    """Describe the machine."""
    return {
        "cpu": _cpu(),
        "cores": len(cores()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "commit": _commit(),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that are measured and installed."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return None
