"""One answer for each ID: shared by twins that are in flight together, and judged for what it says about all others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .errors import (
    ClientClosedError,
    ConfigurationError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    UnauthorizedError,
    shown,
)
from .models import AccessToken
from .results import TokenResult

MANY_FORBIDDEN = 10
"""403s, with nothing else come back, from which it follows that no other ID can succeed."""

Fetch = Callable[[Any], Awaitable[AccessToken]]


def not_an_id(value: object) -> TokenResult | None:
    """Return the result for a position that holds no `str`, which may not even be hashable."""
    if isinstance(value, str):
        return None
    error = InvalidArgumentError(f"token_id must be a str, not {type(value).__name__}", operation="get_token")
    return TokenResult(f"<{type(value).__name__} {shown(value)}>", error=error)  # no ID looks like that


def twin(item: TokenResult) -> TokenResult:
    """Return the same result for another position: an exception serves one only."""
    return item if item.error is None else TokenResult(item.token_id, error=item.error.with_context())


class Inquiry:
    """Asks for IDs, and finds out when there is no point in asking for more: the keys are the same for all of them.

    Args:
        fetch: Fetches one.
        on_change: Called when `suspicious` or `stopped` is another.

    Attributes:
        stopped: Why no other ID can succeed; `None` while one may.
    """

    def __init__(self, fetch: Fetch, on_change: Callable[[], object]) -> None:
        self._fetch = fetch
        self._on_change = on_change
        self._flights: dict[str, asyncio.Task[Any]] = {}  # the IDs that are being asked for, and who does so
        self._twins: dict[str, list[asyncio.Future[TokenResult]]] = {}  # those who wait for the answer of another
        self._waiting = 0
        self._confirming = asyncio.Lock()
        self._forbidden = 0
        self._refusal: ForbiddenError | None = None
        self._promising = False  # something else than a 403 has come back
        self.stopped: DatadogError | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._flights) or self._waiting > 0

    @property
    def suspicious(self) -> bool:
        """Whether all seems to be forbidden, which those that are under way have to show before more is asked for."""
        return self._forbidden >= MANY_FORBIDDEN and not self._promising and self.stopped is None

    async def answer(self, task: asyncio.Task[Any], token_id: Any) -> TokenResult:
        """Ask for an ID, in the task that this is called in; nothing is sent once `stopped` is set."""
        refused = not_an_id(token_id)
        if refused is not None:
            return refused
        if self.stopped is not None:
            return self._not_sent(token_id, self.stopped)
        if token_id in self._flights:
            return await self._wait(token_id)
        self._flights[token_id] = task
        result: TokenResult | None = None
        try:
            asked = await self._ask(token_id)
            result = await self._confirm(asked) if isinstance(asked.error, UnauthorizedError) else asked
            self._note(result)
        except asyncio.CancelledError:
            if self.stopped is None or task.uncancel():  # by somebody else, too
                raise
            result = self._not_sent(token_id, self.stopped)
        finally:
            del self._flights[token_id]
            if token_id in self._twins:
                self._tell_twins(token_id, result)
        assert result is not None
        # Those that are still under way may yet show that not everything is forbidden.
        if not self._flights and self.suspicious and self._refusal is not None:
            self._stop(self._refusal)
        return result

    def _not_sent(self, token_id: str, why: DatadogError) -> TokenResult:
        return TokenResult(token_id, error=why.with_context(token_id=token_id, attempts=0))

    async def _wait(self, token_id: str) -> TokenResult:
        """Wait for the answer to an ID that is being asked for already."""
        answer: asyncio.Future[TokenResult] = asyncio.get_running_loop().create_future()
        self._twins.setdefault(token_id, []).append(answer)
        self._waiting += 1
        try:
            return await answer
        finally:
            self._waiting -= 1

    def _tell_twins(self, token_id: str, result: TokenResult | None) -> None:
        """Pass an answer on; without one, nobody needs it any more."""
        for answer in self._twins.pop(token_id):
            if result is None:
                answer.cancel()
            elif not answer.done():
                answer.set_result(twin(result))

    async def _ask(self, token_id: str) -> TokenResult:
        try:
            return TokenResult(token_id, await self._fetch(token_id))
        except ConfigurationError:
            raise  # it is the client that is wrong, not this ID
        except DatadogError as error:
            # Without its frames: a million failures must not keep a million of them alive.
            return TokenResult(token_id, error=error.with_traceback(None))

    async def _confirm(self, refused: TokenResult) -> TokenResult:
        """Try once more after a 401: keys are the same for all IDs, so one at a time makes sure for all of them."""
        async with self._confirming:
            if self.stopped is not None:
                return refused
            result = await self._ask(refused.token_id)
            if isinstance(result.error, UnauthorizedError):
                self._stop(result.error)
            return result

    def _note(self, result: TokenResult) -> None:
        """See what an answer says about all the other IDs."""
        if isinstance(result.error, ClientClosedError):
            self._stop(result.error)
        elif isinstance(result.error, ForbiddenError):
            self._forbidden, self._refusal = self._forbidden + 1, result.error
        elif not self._promising and not isinstance(result.error, InvalidArgumentError):
            was_suspicious, self._promising = self.suspicious, True
            if was_suspicious:
                self._on_change()

    def _stop(self, error: DatadogError) -> None:
        """Send nothing more: no other ID can succeed."""
        if self.stopped is not None:
            return
        self.stopped = error.with_context(token_id=None)
        self._on_change()
        for task in self._flights.values():
            if task is not asyncio.current_task():
                task.cancel()
