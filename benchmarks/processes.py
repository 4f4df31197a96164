"""Processes: how they are started, on which core they run, and what CPU time and memory they use."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

MIB = 1024 * 1024
_SPAWN = multiprocessing.get_context("spawn")


@attrs.frozen
class Child:
    """A child process: the pipe to it, the first value that it sent, and its process ID."""

    pipe: Connection
    first: Any
    pid: int


def start(target: Any, *args: Any, core: int | None = None) -> Child:
    """Start a process that runs `target(pipe, *args)`, on a core if one is given; wait for the first value it sends.

    Raises:
        EOFError: It ended without a value.
    """
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    return Child(ours, ours.recv(), process.pid)


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


@contextmanager
def reserved_core() -> Iterator[int | None]:
    """Keep this process off the last core and yield that core, for a server; `None` where there is only one."""
    available = cores()
    if len(available) < 2:
        yield None
        return
    os.sched_setaffinity(0, set(available[:-1]))
    try:
        yield available[-1]
    finally:
        os.sched_setaffinity(0, set(available))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used; 0 where the system has no /proc."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def reset_peak() -> None:
    """Let the peak of `memory` begin anew, where the system can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory(*, peak: bool = False) -> int:
    """Return the bytes of resident memory of this process; its peak on request, and where the system has no /proc."""
    field = "VmHWM:" if peak else "VmRSS:"
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
