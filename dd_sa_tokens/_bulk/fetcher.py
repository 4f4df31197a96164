"""One answer for each ID: single flight and credential breaker around the fetch of a token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dd_sa_tokens._cancellation import Cancellation
from dd_sa_tokens._validation import canonical_id
from dd_sa_tokens.errors import (
    ConfigurationError,
    DatadogError,
    UnauthorizedError,
)
from dd_sa_tokens.models import AccessToken
from dd_sa_tokens.results import TokenResult

from .credential_breaker import CredentialBreaker
from .ids import as_text
from .single_flight import SingleFlight, copy_for_duplicate

FetchToken = Callable[[Any], Awaitable[AccessToken]]
"""Fetches the token of one ID, or raises a `DatadogError`."""


class Fetcher:
    """Fetches IDs, each in the task of the worker that calls `fetch`.

    Args:
        fetch: Fetches one token.
        known: The tokens that need no request, by their IDs in the canonical form.
        on_change: Called when the breaker changes.
        confirm: Fetches a token once more after a 401, where functions give the keys; otherwise `fetch` does.

    Attributes:
        breaker: Opens when no other ID can succeed.
    """

    def __init__(
        self,
        fetch: FetchToken,
        known: Mapping[str, AccessToken],
        on_change: Callable[[], object],
        *,
        confirm: FetchToken | None = None,
    ) -> None:
        self._fetch = fetch
        self._known = known
        self._fetch_again = confirm
        self._on_change = on_change
        self._in_flight = SingleFlight()
        self._confirming = asyncio.Lock()
        self.breaker = CredentialBreaker(self._on_breaker_change)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is to come."""
        return self._in_flight.is_busy

    async def fetch(self, worker: Cancellation, value: Any) -> TokenResult:
        """Fetch an ID. Nothing is sent once the breaker is open."""
        token_id = as_text(value)
        if isinstance(token_id, TokenResult):
            return token_id
        if self.breaker.open_reason is not None:
            return without_request(token_id, self._known, self.breaker.open_reason)
        key = canonical_id(token_id)
        if key in self._in_flight:
            return copy_for_duplicate(await self._in_flight.wait(key), token_id)
        self._in_flight.begin(key, worker)
        result: TokenResult | None = None
        try:
            first = await self._request(token_id, self._fetch)
            result = await self._confirm(first) if isinstance(first.error, UnauthorizedError) else first
            self.breaker.record(result)
        except asyncio.CancelledError:
            if worker.is_external() or self.breaker.open_reason is None:
                raise
            result = _not_sent(token_id, self.breaker.open_reason)
        finally:
            self._in_flight.end(key, result)
        assert result is not None
        if not self._in_flight:
            self.breaker.open_if_all_forbidden()
        return result

    async def _request(self, token_id: str, fetch: FetchToken) -> TokenResult:
        try:
            return TokenResult(token_id, await fetch(token_id))
        except ConfigurationError:
            raise  # the client is set up wrong, not this ID
        except DatadogError as error:
            # Without its frames: a million failures must not keep a million of them alive.
            return TokenResult(token_id, error=error.with_traceback(None))

    async def _confirm(self, refused: TokenResult) -> TokenResult:
        """Try once more after a 401. Keys are the same for all IDs, so one ID at a time is enough."""
        async with self._confirming:
            if self.breaker.open_reason is not None:
                return refused
            was_signed_anew = self._fetch_again is not None and refused.error is not None and refused.error.attempts > 1
            result = refused  # a request that was sent again with another key is a second try already
            if not was_signed_anew:
                result = await self._request(refused.token_id, self._fetch_again or self._fetch)
            if isinstance(result.error, UnauthorizedError):
                self.breaker.open(result.error)
            return result

    def _on_breaker_change(self) -> None:
        self._on_change()
        if self.breaker.open_reason is not None:
            current = asyncio.current_task()
            for worker in self._in_flight.values():
                if worker.task is not current:
                    worker.cancel(self.breaker.open_reason)


def without_request(token_id: str, known: Mapping[str, AccessToken], reason: DatadogError) -> TokenResult:
    """Return what an ID gets for which no request is sent any more: its token if that is there, else the reason."""
    token = known.get(canonical_id(token_id))
    return _not_sent(token_id, reason) if token is None else TokenResult(token_id, token)


def _not_sent(token_id: str, reason: DatadogError) -> TokenResult:
    return TokenResult(token_id, error=reason.with_context(token_id=token_id, attempts=0))
