"""The door: what users call. Each method turns its arguments into a request and hands it on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

import aiohttp

from . import _bulk, _listing, _rotate, _wire
from ._arguments import LARGEST_PAGE, Sort, Strategy, check_expiry, check_id, check_strategy
from ._gate import Gate
from ._pipeline import Pipeline
from ._transport import Transport
from .config import RetryPolicy, Site, check_options, masked, read_base_url, read_credentials
from .errors import ClientClosedError
from .models import AccessToken, ClientStats, CreatedToken, RateLimit
from .results import BulkResult, TokenResult


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
        session: A session to borrow: used, and never closed. Its cookies and default headers go along, except where
            they are about credentials or about the message itself: those are the client's alone. If its connector
            allows fewer connections than `concurrency`, that many requests are in flight.
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
            strategy: How to spend as few requests as possible; the answers are the same. `"get"` asks for each ID by
                itself. `"list"` first reads the account's list, 100 tokens a request (and about 1 KiB of memory
                each), and asks only for the IDs that it did not hold. `"auto"` looks at the list's first page if
                `token_ids` is a collection of 20 different IDs or more, and goes on with whichever needs fewer
                requests; any other iterable is fetched one by one.

        Raises:
            InvalidArgumentError: `service_account_id` or `strategy` cannot be right, or `token_ids` is no collection.
            SourceError: `token_ids` raised; its `partial` holds the results so far.
        """
        plan = self._plan("get_tokens", service_account_id, token_ids, strategy)
        return await _bulk.collect(token_ids, plan, self._concurrency)

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
        plan = self._plan("stream_tokens", service_account_id, token_ids, strategy)
        return _bulk.stream(token_ids, plan, self._concurrency)

    def list_tokens(
        self,
        service_account_id: str,
        *,
        filter: str | None = None,  # noqa: A002 - the API's own name for it
        sort: Sort | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[AccessToken, None]:
        """List a service account's tokens, each once, in the API's order.

        Pages are read ahead of the consumer once the first one has told how many there are. If tokens move from page
        to page meanwhile, because others were made or revoked, the list is read once more, and tokens that had been
        missed come last.

        Args:
            service_account_id: The service account.
            filter: Only tokens that match this text; how is the API's business.
            sort: `name`, `created_at`, `expires_at` or `last_used_at`; downwards with a leading `-`.
            page_size: Tokens in one request, 1 to 100.

        Raises:
            InvalidArgumentError: An argument cannot be right; raised at once, not when the loop begins.
            DatadogError: A page could not be read.
        """
        self._require_open()
        read = self._reader(service_account_id, filter, sort, page_size)
        return _listing.list_all(read, self._concurrency)

    async def create_token(
        self, service_account_id: str, *, name: str, scopes: Collection[str], expires_at: datetime | None = None
    ) -> CreatedToken:
        """Make a token. Its secret, `key`, is given only here: it cannot be read again.

        A create is never sent twice where the first could have been carried out: it is repeated only after a 429, or
        when no connection could be made. After anything else it is not known whether there is a new token: the
        error's `outcome_unknown` is set then, and its text says how to look; an answer that names the token, but cannot
        be used, gives the error its `token_id`. (A session that you lend must not have a
        middleware that sends requests again by itself.)

        Args:
            service_account_id: The service account that will own it.
            name: Its name; not empty. Names need not be unique.
            scopes: Its permissions, such as `["dashboards_read"]`; at least one.
            expires_at: When it stops working, timezone-aware and in the future (the API wants 24 hours at least);
                `None` for never. It cannot be changed later.

        Raises:
            InvalidArgumentError: An argument cannot be right; nothing was sent.
            ForbiddenError: The keys may not do this; a service access token cannot make one that has broader scopes
                than itself, or outlives it.
            DatadogError: Anything else that went wrong; see `outcome_unknown`.
        """
        check_expiry(expires_at, datetime.now(UTC), operation="create_token", service_account_id=service_account_id)
        request = _wire.create_token(service_account_id, name=name, scopes=scopes, expires_at=expires_at)
        return await self._pipeline.send(request)

    async def update_token(
        self,
        service_account_id: str,
        token_id: str,
        *,
        name: str | None = None,
        scopes: Collection[str] | None = None,
    ) -> AccessToken:
        """Change a token's name, its scopes, or both.

        Args:
            service_account_id: The service account that owns it.
            token_id: Its ID.
            name: The new name; `None` to keep it.
            scopes: The new scopes, in place of all old ones; `None` to keep them.

        Returns:
            The token as it is now.

        Raises:
            InvalidArgumentError: An argument cannot be right, or neither `name` nor `scopes` is given; nothing was
                sent.
            NotFoundError: There is no such token.
            DatadogError: Anything else that went wrong.
        """
        return await self._pipeline.send(_wire.update_token(service_account_id, token_id, name=name, scopes=scopes))

    async def revoke_token(self, service_account_id: str, token_id: str) -> None:
        """Revoke a token. Within seconds it no longer works, and nothing brings it back.

        If an answer is lost and the next try finds no such token, the first one had revoked it: that is a success.

        Args:
            service_account_id: The service account that owns it.
            token_id: Its ID.

        Raises:
            InvalidArgumentError: An ID cannot be one; nothing was sent.
            NotFoundError: There is no such token, and this call did not revoke it.
            DatadogError: Anything else that went wrong.
        """
        await self._pipeline.send(_wire.revoke_token(service_account_id, token_id))

    async def rotate_token(
        self,
        service_account_id: str,
        token_id: str,
        *,
        store: Callable[[CreatedToken], Awaitable[object]],
        expires_at: datetime | None = None,
    ) -> AccessToken:
        """Replace a token by a new one with the same name and scopes, with no moment in which neither works.

        Reads the old token, makes the new one, awaits `store(created)`, and only then revokes the old one.

        | what went wrong | what is raised | old token | new token |
        |---|---|---|---|
        | the old one could not be read, or the new one not be made | that error | works | none |
        | its name, scopes or lifetime cannot be copied | `RotationError` | works | none |
        | no answer to the create | `RotationError`, `outcome_unknown` | works | perhaps one, its secret unknown |
        | `store` raised | `RotationError`, `__cause__` unless that holds the secret | works | revoked |
        | `store` raised, and revoking the new one failed | the same | works | works, or may |
        | revoking the old one failed | `RotationError` | works, or may | works, stored |
        | cancelled before the create was answered | `CancelledError` | works | none, or revoked if it can be |
        | cancelled in `store` | `CancelledError` | works | works, perhaps stored |
        | cancelled after `store` raised | `CancelledError` | works | revoked if it can be |
        | cancelled while the old one was being revoked | `CancelledError` | revoked, works, or may | works, stored |

        A `RotationError` has both IDs, and says what is left to do; an old token that had expired is not said to work.
        A cancellation says it in a note (which `asyncio.gather` drops) and in a WARNING of the log. It waits for a
        request that is under way, `timeout` seconds at most, then up to 30 seconds to revoke what was not stored.

        A client can rotate the very token it signs with: revoking it is the last thing that is signed with it, and all
        later calls meet a 401, so make a new client with the new key. But a token cannot make one that outlives it: if
        it expires, give an `expires_at` that is not later than its own, or use other keys.

        Args:
            service_account_id: The service account that owns both.
            token_id: The old token's ID.
            store: Awaited with the `CreatedToken`. When it returns, the new secret is where it belongs, and all users
                of the old one have switched; if it cannot get there, it raises.
            expires_at: When the new token stops working, timezone-aware and in the future; by default it lives as
                long from now as the old one did from its creation, and without end only if the old one did.

        Returns:
            The new token.

        Raises:
            InvalidArgumentError: An argument cannot be right; nothing was sent.
            RotationError: The rotation stopped half way; see above.
            DatadogError: It failed before anything was changed.
        """
        return await _rotate.rotate(self._pipeline, service_account_id, token_id, store, expires_at)

    def _plan(self, operation: str, service_account_id: str, token_ids: _bulk.Source, strategy: Strategy) -> _bulk.Plan:
        self._require_open()
        check_id("service_account_id", service_account_id, operation)
        check_strategy(strategy, operation=operation, service_account_id=service_account_id)
        _bulk.check_source(token_ids)
        send, ask = self._pipeline.send, _wire.token_getter(service_account_id)
        read = self._reader(service_account_id)
        return partial(
            _listing.choose,
            strategy,
            token_ids,
            lambda token_id: send(ask(token_id)),
            read,
            self._concurrency,
        )

    def _reader(
        self, service_account_id: str, filter_: str | None = None, sort: str | None = None, size: int = LARGEST_PAGE
    ) -> _listing.ReadPage:
        """Return what reads a page by its number."""
        request = partial(_wire.list_tokens, service_account_id, filter_=filter_, sort=sort, size=size)
        request(number=0)  # what cannot be right is refused now
        return lambda number: self._pipeline.send(request(number=number))

    def _require_open(self) -> None:
        if self._pipeline.closed:
            msg = "the client is closed"
            raise ClientClosedError(msg)
