"""Where and with what the figures were made: the machine, the versions, and who runs on which core."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGES = (
    "aiohttp", "aiosonic", "attrs", "cattrs", "datadog-api-client", "dd-sa-tokens", "httpx", "msgspec", "orjson",
    "pyperf", "tenacity", "urllib3", "uvloop", "yarl",
)  # fmt: skip


class Skipped(Exception):  # noqa: N818 - it is no error
    """A part, or a peer, cannot be measured here; the text says why."""


def require(*modules: str) -> None:
    """Skip what needs modules that are not installed.

    Raises:
        Skipped: Some are missing.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise Skipped(f"{', '.join(missing)} not installed")


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


def versions() -> dict[str, str]:
    """Name the versions of all that is measured, where it is installed."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


@contextmanager
def one_core_apart() -> Iterator[int | None]:
    """Keep this process off the last core, where there are two, and yield that one: it is the server's."""
    ours = cores()
    if len(ours) < 2:
        yield None
        return
    os.sched_setaffinity(0, set(ours[:-1]))
    try:
        yield ours[-1]
    finally:
        os.sched_setaffinity(0, set(ours))


def stay_on(core: int | None) -> None:
    """Keep this process on a core, if one is named."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used; `None` where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Name the commit, if this is a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    where = Path(__file__).parent
    said = subprocess.run(
        [git, "-C", where, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or None
