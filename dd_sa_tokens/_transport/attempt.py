"""An attempt that is under way, and who may end it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import attrs

from dd_sa_tokens.errors import DatadogError


@attrs.define(eq=False)
class Attempt:
    """A request that is under way, and the way to cut it short.

    Attributes:
        task: Who waits for it.
        deadline: On the loop's clock.
        cancelling: How often the task had been asked to stop by others before.
        cut: Why it was cut short, if it was.
        sent: Whether it went out already.
        landed: Done when the attempt has ended, for who waits for that.
    """

    task: asyncio.Task[Any]
    deadline: float
    cancelling: int
    cut: DatadogError | None = None
    sent: bool = False
    landed: asyncio.Future[None] | None = None

    def stop(self, why: DatadogError) -> None:
        """End the attempt with an error."""
        if self.cut is None:
            self.cut = why
            self.task.cancel()

    def cancelled(self) -> bool:
        """Tell whether somebody else asked the task to stop."""
        asked = self.task.cancelling() if self.cut is None else self.task.uncancel()
        return asked > self.cancelling

    def leave(self) -> None:
        """Take note that the request goes out. It must not go out again, as aiohttp sends it over a lost connection.

        That would be a request that neither the quota's ledger nor the retry budget knows of; and of a token that the
        first one revoked, the second one would be told that there is none.

        Raises:
            ServerDisconnectedError: It went out before.
        """
        if self.sent:
            raise aiohttp.ServerDisconnectedError
        self.sent = True


Attempts = dict[asyncio.Task[Any], Attempt]
"""By the tasks that make them, in the order in which they began: by deadline."""
