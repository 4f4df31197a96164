"""Running one step of a rotation to its end, although its caller is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Generic, TypeVar

import attrs

from dd_sa_tokens._cancellation import shield
from dd_sa_tokens._execution import CallState, Executor
from dd_sa_tokens._execution.context import in_context
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens.config import Options
from dd_sa_tokens.errors import DatadogError, TransportError

T = TypeVar("T")


@attrs.frozen
class Completion(Generic[T]):
    """How a request ended that was run to its end.

    Attributes:
        value: What it gave, if it succeeded.
        error: Why it failed, if it did.
        cancelled: The last cancellation that arrived meanwhile; the caller must raise it. `None` if none did.
        attempts: Requests that were sent for it.
    """

    value: T | None
    error: DatadogError | None
    cancelled: asyncio.CancelledError | None
    attempts: int


async def complete(
    executor: Executor, options: Options, request: Request[T], seconds: float | None = None
) -> Completion[T]:
    """Carry out one operation and run it to its end.

    Once the caller is cancelled, or the time is up, an attempt that is in flight is still waited for: its answer says
    what holds. A call that only waits, for the rate limit or for its next attempt, is given up.

    Args:
        executor: Sends the request.
        options: Go along with it.
        request: The operation.
        seconds: Seconds for which it may be repeated after the caller was cancelled; `None` if the caller was not:
            then the retry policy decides.
    """
    call = CallState()
    task = asyncio.ensure_future(executor.send(request, options, call))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            with nullcontext() if cancelled is None and seconds is None else shield():
                await asyncio.wait([task], timeout=None if call.last_attempt else seconds)
        except asyncio.CancelledError as error:
            cancelled = error
        call.last_attempt = True
        if not call.in_flight:
            task.cancel()
    try:
        return Completion(task.result(), None, cancelled, call.attempts)
    except DatadogError as error:
        failure = error
    except asyncio.CancelledError:
        failure = in_context(TransportError("given up before it was answered"), request, call)
    return Completion(None, failure, cancelled, call.attempts)
