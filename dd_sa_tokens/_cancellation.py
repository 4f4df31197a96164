"""Who cancelled a task: this package, to cut a request short, or someone else.

A timeout, `close()` and refused keys end a request by cancelling the task that waits for it. Running each request in a
child task would make the question easy, since only the child would be cancelled. But a task for each request costs
15 us, a tenth of a bulk fetch, and `asyncio.timeout` costs 4%. So the worker itself is cancelled, and this module
decides, in one place, whether a cancellation must reach the caller.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs

from .errors import DatadogError


@attrs.define(eq=False)
class Cancellation:
    """The ways in which a task may be cancelled while a part of its work is done.

    Attributes:
        task: The task.
        asked_before: How often the task had been asked to stop before, by its `cancelling()`.
        reason: Why this package cancelled it; `None` if it did not.
    """

    task: asyncio.Task[Any]
    asked_before: int
    reason: DatadogError | None = None
    _to_take_back: bool = attrs.field(default=False, init=False)

    @classmethod
    def of_current_task(cls) -> Cancellation:
        """Return one for the running task."""
        task = asyncio.current_task()
        assert task is not None
        return cls(task, task.cancelling())

    def cancel(self, reason: DatadogError) -> None:
        """Cancel the task on behalf of this package, once."""
        if self.reason is None:
            self.reason = reason
            self._to_take_back = True
            self.task.cancel()

    def is_external(self) -> bool:
        """Return whether someone else asked the task to stop; a request of this package is taken back."""
        if self._to_take_back:
            self._to_take_back = False
            self.task.uncancel()
        return self.task.cancelling() > self.asked_before


async def error_of(work: Awaitable[object]) -> BaseException | None:
    """Await work on an iterable of the user's, and return what that raised. It may raise even a `CancelledError`.

    Raises:
        CancelledError: Someone else cancelled the running task.
    """
    caller = Cancellation.of_current_task()
    try:
        await work
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and caller.is_external():
            raise
        return error
    return None


def shield() -> AbstractContextManager[object]:
    """Keep a cancelled task from being cancelled again while it waits for what it must not leave.

    asyncio cancels once. anyio's cancel scopes cancel again in each pass of the event loop, which would make a wait
    spin, unless the wait stands in a shielded scope of anyio's own. anyio is no dependency: if anyio cancelled the
    task, it is already imported.
    """
    anyio = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
