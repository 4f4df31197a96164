"""The door: what users call. Each method turns its arguments into a request and hands it on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from types import TracebackType
from typing import Literal, Self

import aiohttp

from . import _bulk, _wire
from ._gate import Gate
from ._pipeline import Pipeline
from ._transport import Transport
from .config import RetryPolicy, Site, check_id, check_options, check_strategy, masked, read_base_url, read_credentials
from .errors import ClientClosedError
from .models import AccessToken, ClientStats, RateLimit
from .results import BulkResult, TokenResult

Strategy = Literal["auto", "get"]


class TokensClient:
    """A client for Datadog's service access tokens, to be used under one event loop.

    It opens its connections when they are first needed, and holds them until `close()` or the end of `async with`.

    Args:
        api_key: A Datadog API key; `DD_API_KEY` if no credential is given here.
        app_key: An application key; `DD_APP_KEY`. A `ddsat_` or `ddpat_` token here needs no API key.
        access_token: A service or personal access token, sent as `Authorization: Bearer`, instead of the two keys;
            `DD_ACCESS_TOKEN`.
        site: The Datadog site, such as `datadoghq.eu`; `DD_SITE`, else `datadoghq.com`.
        base_url: Instead of a site: a proxy or a fake server. https, or http on loopback.
        session: A session to borrow: used, and never closed. If its connector allows fewer connections than
            `concurrency`, that many requests are in flight.
        concurrency: Most requests in flight, over all calls of this client.
        timeout: Seconds for one attempt: connect, send, and read the whole body. Waiting for quota or for a place
            does not count.
        retry: How patiently calls are repeated.
        quota_reserve: Share (0 <= r < 1) of each window's quota that is left to the organization's other users.

    Raises:
        ConfigurationError: A setting cannot be right; the text names it.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        app_key: str | None = None,
        access_token: str | None = None,
        site: Site | str | None = None,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        concurrency: int = 50,
        timeout: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),
        quota_reserve: float = 0.0,
    ) -> None:
        # First of all: what is raised below must not show the keys to those who log local variables.
        keys, address = (masked(api_key), masked(app_key), masked(access_token)), masked(base_url)
        del api_key, app_key, access_token, base_url
        check_options(concurrency=concurrency, timeout=timeout, retry=retry, quota_reserve=quota_reserve)
        credentials = read_credentials(*keys)
        transport = Transport(
            read_base_url(site, address), credentials, session=session, timeout=timeout, connections=concurrency
        )
        self._gate = Gate(transport.connections, reserve=quota_reserve)
        self._pipeline = Pipeline(transport, self._gate, retry, credentials)
        self._concurrency = concurrency

    async def __aenter__(self) -> Self:
        self._require_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the client, and its session unless that is borrowed. Calls under way end with `ClientClosedError`."""
        await self._pipeline.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current quota window of the operation used last, as the client sees it; `None` while unknown."""
        return self._gate.rate_limit

    @property
    def stats(self) -> ClientStats:
        """What the client has done so far: a snapshot."""
        return self._pipeline.stats

    async def get_token(self, service_account_id: str, token_id: str) -> AccessToken:
        """Fetch one token.

        Args:
            service_account_id: The service account that owns it.
            token_id: Its ID.

        Raises:
            InvalidArgumentError: An ID cannot be one; nothing was sent.
            NotFoundError: There is no such token.
            DatadogError: Anything else that went wrong; see the error tree.
        """
        return await self._pipeline.send(_wire.get_token(service_account_id, token_id))

    async def get_tokens(
        self,
        service_account_id: str,
        token_ids: Iterable[str] | AsyncIterable[str],
        *,
        strategy: Strategy = "auto",
    ) -> BulkResult:
        """Fetch many tokens: one result for each position of the input, in its order, whatever single IDs meet.

        A repeated ID is asked for once. If the keys turn out to be refused (a 401 twice, or ten 403s and nothing
        else), the rest is not asked for and gets that error.

        Args:
            service_account_id: The service account that owns them.
            token_ids: The IDs, from any iterable or async iterable.
            strategy: `"get"` asks for each ID by itself; `"auto"` does the same for now.

        Raises:
            InvalidArgumentError: `service_account_id` or `strategy` cannot be right, or `token_ids` is no collection.
            SourceError: `token_ids` raised; its `partial` holds the results so far.
        """
        fetch = self._prepare("get_tokens", service_account_id, token_ids, strategy)
        return await _bulk.collect(token_ids, fetch, self._concurrency)

    def stream_tokens(
        self,
        service_account_id: str,
        token_ids: Iterable[str] | AsyncIterable[str],
        *,
        strategy: Strategy = "auto",
    ) -> AsyncGenerator[TokenResult, None]:
        """Fetch many tokens and yield the results as they come, in bounded memory.

        At most `concurrency` results are in flight or waiting to be consumed. Duplicates that are in flight together
        share a request. Leaving the loop early cancels what is under way; wrap the generator in
        `contextlib.aclosing` to have that happen at once.

        Args:
            service_account_id: The service account that owns them.
            token_ids: The IDs, from any iterable or async iterable, as many as you like.
            strategy: As for `get_tokens`.

        Raises:
            InvalidArgumentError: As for `get_tokens`.
            UnauthorizedError: The keys are refused: raised after the results that were under way.
            ForbiddenError: The same, after ten 403s and nothing else.
            Exception: What `token_ids` raised, after the results that were under way.
        """
        fetch = self._prepare("stream_tokens", service_account_id, token_ids, strategy)
        return _bulk.stream(token_ids, fetch, self._concurrency)

    def _prepare(self, operation: str, service_account_id: str, token_ids: object, strategy: str) -> _bulk.Fetch:
        self._require_open()
        check_id("service_account_id", service_account_id, operation)
        check_strategy(strategy)
        _bulk.check_source(token_ids)
        send = self._pipeline.send
        return lambda token_id: send(_wire.get_token(service_account_id, token_id))

    def _require_open(self) -> None:
        if self._pipeline.closed:
            msg = "the client is closed"
            raise ClientClosedError(msg)
