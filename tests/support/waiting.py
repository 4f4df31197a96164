"""Waiting for the event loop or for a condition, and the tasks that run meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

HANG = 5.0  # seconds, after which something that should end is taken for hung


async def turns(count: int = 5) -> None:
    """Let the loop turn: each task that can run does so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(HANG):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.001)


def others() -> set[asyncio.Task[Any]]:
    """Return the other tasks."""
    return asyncio.all_tasks() - {asyncio.current_task()}
