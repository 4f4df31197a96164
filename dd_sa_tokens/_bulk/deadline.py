"""The deadline of a bulk call: when it passes, nothing more is sent, and what has come stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from dd_sa_tokens.errors import DeadlineExceededError


class Deadline:
    """The moment at which a call's time is up. It begins with the call.

    Args:
        error: What IDs without an answer get; it has the seconds.

    Attributes:
        at: The moment, on the loop's clock.
    """

    def __init__(self, error: DeadlineExceededError) -> None:
        self.error = error
        self.at = asyncio.get_running_loop().time() + error.deadline

    @property
    def has_passed(self) -> bool:
        """Whether the time is up."""
        return asyncio.get_running_loop().time() >= self.at

    async def cut_short(self, work: Awaitable[None]) -> None:
        """Await a part of the call, and end it when the time is up."""
        scope = asyncio.timeout_at(self.at)
        try:
            async with scope:
                await work
        except TimeoutError:
            if not scope.expired():
                raise
