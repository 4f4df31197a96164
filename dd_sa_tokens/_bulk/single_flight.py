"""Single flight: duplicates of an ID that are in flight together share one request."""

from __future__ import annotations

import asyncio

from dd_sa_tokens._cancellation import Cancellation
from dd_sa_tokens.results import TokenResult


def copy_for_duplicate(item: TokenResult, token_id: str) -> TokenResult:
    """Return the same result for another position, with its ID as it was given there.

    The error is a copy: an exception serves one position only.
    """
    if item.error is not None:
        return TokenResult(token_id, error=item.error.with_context(token_id=token_id))
    return item if item.token_id == token_id else TokenResult(token_id, item.token)


class SingleFlight(dict[str, Cancellation]):
    """The workers that fetch the IDs in flight, by the IDs in their canonical form, and the duplicates that wait."""

    def __init__(self) -> None:
        super().__init__()
        self._duplicates: dict[str, list[asyncio.Future[TokenResult]]] = {}
        self._waiting = 0

    @property
    def is_busy(self) -> bool:
        """Whether an answer is to come."""
        return bool(self) or self._waiting > 0

    def begin(self, token_id: str, worker: Cancellation) -> None:
        """Note that a worker fetches an ID from now on."""
        self[token_id] = worker

    def end(self, token_id: str, result: TokenResult | None) -> None:
        """Note that an ID is no longer in flight, and pass its answer on. Without one, the duplicates are cancelled."""
        del self[token_id]
        for answer in self._duplicates.pop(token_id, ()):
            if result is None:
                answer.cancel()
            elif not answer.done():
                answer.set_result(result)

    async def wait(self, token_id: str) -> TokenResult:
        """Wait for the answer to an ID that is in flight; the caller copies it."""
        answer: asyncio.Future[TokenResult] = asyncio.get_running_loop().create_future()
        self._duplicates.setdefault(token_id, []).append(answer)
        self._waiting += 1
        try:
            return await answer
        finally:
            self._waiting -= 1
