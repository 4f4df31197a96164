"""What is beside FILE: `FILE.partial`, which the last stopped run left, and the lock of a run that writes."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]  # checked before each use


_LONGEST_NAME = 255  # bytes, on all usual file systems
_HASH_LENGTH = 8


def resolve(path: Path) -> Path:
    """Return a file's own path if it is a link to it, so that the link stays a link.

    Raises:
        OSError: It cannot exist: its name is too long, or its links form a loop.
    """
    with suppress(FileNotFoundError):  # a new file, or a link to one
        path.stat()
    return path.resolve()


def shortened(name: str, room: int) -> str:
    """Return the name of a file, with a hash in place of its end if `room` bytes more would make it too long."""
    data = os.fsencode(name)
    if len(data) + room <= _LONGEST_NAME:
        return name
    cut = data[: _LONGEST_NAME - room - _HASH_LENGTH - 1].decode(errors="ignore")
    return f"{cut}~{hashlib.sha256(data).hexdigest()[:_HASH_LENGTH]}"


def partial_of(path: Path) -> Path:
    """Return the path of a file's .partial."""
    return path.with_name(f"{shortened(path.name, len('.partial'))}.partial")


def is_current(partial: Path, path: Path) -> bool:
    """Return whether a run can continue .partial. An older one is of no use: a later run has written the file itself.

    Args:
        partial: The .partial, which may not exist.
        path: The file, which exists. An empty one has no results.
    """
    try:
        written = partial.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    file = path.stat()
    return file.st_size == 0 or written >= file.st_mtime_ns


def remove(partial: Path) -> None:
    """Remove a .partial that is out of date. If that fails, it is older than the file, so no run continues it."""
    with suppress(OSError):
        partial.unlink(missing_ok=True)


def has_locks() -> bool:
    """Return whether the platform has locks. Windows has none like these."""
    return fcntl is not None  # pyright: ignore[reportUnnecessaryComparison] - it is None on Windows


def lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed.

    Returns:
        Whether no other run has locked it. Some file systems have no locks; there, users must keep two runs apart.
    """
    if fcntl is None:  # pyright: ignore[reportUnnecessaryComparison] - as above
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def is_locked(path: Path) -> bool:
    """Return whether a run that writes to a file, or to its .partial, has locked the file."""
    try:
        with path.open("rb") as file:
            return not lock(file)
    except OSError:  # it does not exist yet
        return False
