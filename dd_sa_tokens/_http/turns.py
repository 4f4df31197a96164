"""Turns on the event loop, for work that takes a while and may be due for many tasks at once."""

from __future__ import annotations

import asyncio


class Turns:
    """Lets tasks go on one by one, each in a pass of the event loop of its own.

    Decoding a page of a list takes half a millisecond. Fifty pages that come at once would hold the loop for 25 ms.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def wait(self) -> None:
        """Wait for a turn: it lasts until the task waits for something else."""
        async with self._lock:
            await asyncio.sleep(0)
