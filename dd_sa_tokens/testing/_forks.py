"""What a forked child process does about the servers that run in its parent."""

from __future__ import annotations

import os
from collections.abc import Callable

_callbacks: dict[int, Callable[[], None]] = {}


def call_in_child(owner: object, callback: Callable[[], None]) -> None:
    """Call back in each child process that is forked from now on.

    Args:
        owner: What the callback belongs to. It has one callback at a time.
        callback: Takes no arguments.
    """
    _callbacks[id(owner)] = callback


def forget(owner: object) -> None:
    """Do not call back in children that are forked later."""
    _callbacks.pop(id(owner), None)


def _in_child() -> None:
    for callback in _callbacks.values():
        callback()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_child)
