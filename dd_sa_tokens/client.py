"""The client: what users call. Each method checks its arguments, makes a request of them, and hands it on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Coroutine, Iterable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from . import _bulk, _pagination, _rotation
from ._clock import Clock
from ._credentials import as_secret, read_credentials
from ._endpoint import read_base_url
from ._execution import Executor
from ._http import Transport
from ._protocol import operations
from ._protocol.operations import Request
from ._ratelimit import RateLimiter
from ._validation import LARGEST_PAGE, Sort, Strategy, check_expiry, check_id, check_strategy
from .config import Options, RetryPolicy, Site
from .errors import ClientClosedError
from .models import AccessToken, ClientStats, CreatedToken, RateLimit
from .results import BulkResult, TokenResult

T = TypeVar("T")


class TokensClient:
    """A client for Datadog's service access tokens, to be used under one event loop.

    It opens its connections when they are first needed, and holds them until `close()` or the end of `async with`.

    Args:
        api_key: A Datadog API key. Default: `DD_API_KEY`, if no credential is given here.
        app_key: An application key. Default: `DD_APP_KEY`. A `ddsat_` or `ddpat_` token here needs no API key.
        access_token: A service or personal access token, sent as `Authorization: Bearer`, instead of the two keys.
            Default: `DD_ACCESS_TOKEN`, or `DD_BEARER_TOKEN`, which win over the two keys in the environment.
        site: The Datadog site, such as `datadoghq.eu`. Default: `DD_SITE`, else `datadoghq.com`.
        base_url: Where to send requests instead of a site: a proxy or a fake server. https, or http on loopback.
        session: An aiohttp session to borrow. It is used, and never closed. Its cookies and default headers are sent
            along, except those about credentials or about the message itself, which are the client's. If its connector
            allows fewer connections than `concurrency`, no more requests are in flight.
        concurrency: Most requests in flight, over all calls of this client.
        timeout: Seconds for one attempt: connect, send, and read the whole body. Waiting for the rate limit, or for
            other requests to make room, does not count.
        retry: When failed attempts are repeated.
        rate_limit_reserve: Share (0 <= r < 1) of each rate-limit window that is left to the organization's other users.

    Raises:
        ConfigurationError: A setting is invalid; the text names it.
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
        rate_limit_reserve: float = 0.0,
    ) -> None:
        # First of all: a traceback of what is raised below may be logged with its local variables.
        keys, address = (as_secret(api_key), as_secret(app_key), as_secret(access_token)), as_secret(base_url)
        del api_key, app_key, access_token, base_url
        self._options = Options(
            timeout=timeout, retry=retry, rate_limit_reserve=rate_limit_reserve, concurrency=concurrency
        )
        credentials = read_credentials(*keys)
        url, clock = read_base_url(site, address), Clock()
        transport = Transport(url, credentials, session=session, concurrency=concurrency, clock=clock)
        self._limiter = RateLimiter(transport.concurrency, reserve=rate_limit_reserve, clock=clock)
        self._executor = Executor(transport, self._limiter, credentials, clock)

    async def __aenter__(self) -> Self:
        self._require_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the client, and its session unless that is borrowed. Calls under way raise `ClientClosedError`."""
        await self._executor.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current rate-limit window of the operation used last, as the client sees it; `None` while unknown."""
        return self._limiter.rate_limit

    @property
    def stats(self) -> ClientStats:
        """The client's counters: a snapshot."""
        return self._executor.stats

    async def get_token(self, service_account_id: str, token_id: str) -> AccessToken:
        """Fetch one token.

        Args:
            service_account_id: The service account that owns it.
            token_id: Its ID.

        Returns:
            The token.

        Raises:
            InvalidArgumentError: An ID is invalid; nothing was sent.
            NotFoundError: There is no such token or service account.
            DatadogError: Any other failure; see the error tree.
        """
        return await self._send(operations.get_token(service_account_id, token_id))

    async def get_tokens(
        self,
        service_account_id: str,
        token_ids: Iterable[str] | AsyncIterable[str],
        *,
        strategy: Strategy = "auto",
    ) -> BulkResult:
        """Fetch many tokens, and return one result for each position of the input, in its order.

        An ID that fails does not disturb the others. A repeated ID is asked for once. If the keys turn out to be
        refused (a 401 twice, or ten 403s and no other answer), the rest is not asked for and gets that error.

        Args:
            service_account_id: The service account that owns them.
            token_ids: The IDs, from any iterable or async iterable.
            strategy: How to spend as few requests as possible; the answers are the same. `"get"` asks for each ID by
                itself. `"list"` first reads the service account's list, 100 tokens a request (and about 1 KiB of memory
                each), and asks only for the IDs that it did not hold. `"auto"` looks at the list's first page if
                `token_ids` is a collection of 20 different IDs or more, and goes on with whichever needs fewer
                requests. It fetches any other iterable one by one.

        Returns:
            A sequence of `TokenResult`.

        Raises:
            InvalidArgumentError: `service_account_id` or `strategy` is invalid, or `token_ids` is no iterable of IDs.
            SourceError: `token_ids` raised; the error's `partial` holds the results so far.
        """
        make_strategy = self._strategy("get_tokens", service_account_id, token_ids, strategy)
        return await _bulk.collect(token_ids, make_strategy, self._options.concurrency)

    def stream_tokens(
        self,
        service_account_id: str,
        token_ids: Iterable[str] | AsyncIterable[str],
        *,
        strategy: Strategy = "auto",
    ) -> AsyncGenerator[TokenResult, None]:
        """Fetch many tokens and yield the results as they come, in bounded memory.

        At most `concurrency` results are in flight or waiting to be consumed. Duplicates that are in flight together
        share a request. Leaving the loop early cancels the requests in flight; wrap the generator in
        `contextlib.aclosing`, so that this happens at once.

        Args:
            service_account_id: The service account that owns them.
            token_ids: The IDs, from any iterable or async iterable, of any length.
            strategy: As for `get_tokens`.

        Yields:
            A `TokenResult` for each position of the input, in the order in which the answers come.

        Raises:
            InvalidArgumentError: As for `get_tokens`; raised at once, not when the loop begins.
            UnauthorizedError: The keys are refused: raised after the results that were in flight.
            ForbiddenError: Ten 403s and no other answer: raised after the results that were in flight.
            Exception: Any exception of `token_ids`, after the results that were in flight.
        """
        make_strategy = self._strategy("stream_tokens", service_account_id, token_ids, strategy)
        return _bulk.stream(token_ids, make_strategy, self._options.concurrency)

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
        to page meanwhile, because others are made or revoked, the list is read once more, and tokens that were missed
        come last.

        Args:
            service_account_id: The service account.
            filter: Only tokens that match this text; the API decides how.
            sort: `name`, `created_at`, `expires_at` or `last_used_at`; descending with a leading `-`.
            page_size: Tokens in one request, 1 to 100.

        Yields:
            The tokens.

        Raises:
            InvalidArgumentError: An argument is invalid; raised at once, not when the loop begins.
            DatadogError: A page could not be read.
        """
        self._require_open()
        read = self._reader(service_account_id, filter, sort, page_size)
        return _pagination.list_all(read, self._options.concurrency, size=page_size)

    async def create_token(
        self, service_account_id: str, *, name: str, scopes: Collection[str], expires_at: datetime | None = None
    ) -> CreatedToken:
        """Make a token. Its secret, `key`, is given only here: it cannot be read again.

        A create is never sent twice if the first request may have been carried out: it is repeated only after a 429, or
        if no connection could be made. After any other failure it is not known whether there is a new token. The error
        then has `outcome_unknown` set, and its text says how to look. If the answer names the token, but cannot be used
        otherwise, the error has its `token_id`. (A borrowed session must not have a middleware that repeats requests.)

        Args:
            service_account_id: The service account that will own it.
            name: Its name; not empty. Names need not be unique.
            scopes: Its permissions, such as `["dashboards_read"]`; at least one.
            expires_at: When it stops working, timezone-aware and in the future (the API wants 24 hours at least);
                `None` for never. It cannot be changed later.

        Returns:
            The token and its secret.

        Raises:
            InvalidArgumentError: An argument is invalid; nothing was sent.
            ForbiddenError: The keys lack the permission. A service access token cannot make one that has broader
                scopes than itself, or outlives it.
            DatadogError: Any other failure; see `outcome_unknown`.
        """
        check_expiry(expires_at, datetime.now(UTC), operation="create_token", service_account_id=service_account_id)
        request = operations.create_token(service_account_id, name=name, scopes=scopes, expires_at=expires_at)
        return await self._send(request)

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
            InvalidArgumentError: An argument is invalid, or neither `name` nor `scopes` is given; nothing was sent.
            NotFoundError: There is no such token or service account.
            DatadogError: Any other failure; see `outcome_unknown`.
        """
        return await self._send(operations.update_token(service_account_id, token_id, name=name, scopes=scopes))

    async def revoke_token(self, service_account_id: str, token_id: str) -> None:
        """Revoke a token. Within seconds it no longer works. This cannot be undone.

        If an answer is lost, and the next attempt finds no such token, the first one has revoked it: that is a success.

        Args:
            service_account_id: The service account that owns it.
            token_id: Its ID.

        Raises:
            InvalidArgumentError: An ID is invalid; nothing was sent.
            NotFoundError: There is no such token, and this call did not revoke it.
            DatadogError: Any other failure; see `outcome_unknown`.
        """
        await self._send(operations.revoke_token(service_account_id, token_id))

    async def rotate_token(
        self,
        service_account_id: str,
        token_id: str,
        *,
        store: Callable[[CreatedToken], Awaitable[object] | None],
        expires_at: datetime | None = None,
    ) -> AccessToken:
        """Replace a token by a new one with the same name and scopes, with no moment in which neither works.

        Reads the old token, makes the new one, awaits `store(created)`, and only then revokes the old one.

        | what went wrong | what is raised | old token | new token |
        |---|---|---|---|
        | the old one could not be read, or the new one not be made | that error | works | none |
        | its name, scopes or lifetime cannot be copied | `RotationError` | works | none |
        | no answer to the create | `RotationError`, `outcome_unknown` | works | perhaps one, its secret lost |
        | `store` raised | `RotationError`, `__cause__` unless that holds the secret | works | revoked |
        | `store` raised, and revoking the new one failed | the same | works | works, or may |
        | revoking the old one failed | `RotationError` | works, or may | works, stored |
        | cancelled before the create was answered | `CancelledError` | works | none, or revoked if it can be |
        | cancelled in `store` | `CancelledError` | works | works, perhaps stored |
        | cancelled after `store` raised | `CancelledError` | works | revoked if it can be |
        | cancelled while the old one was being revoked | `CancelledError` | revoked, works, or may | works, stored |

        A `RotationError` has both IDs, and says what is left to do. A cancellation carries the same text in a note
        (which `asyncio.gather` drops), and logs it at WARNING. The call then waits for a request that is under way,
        `timeout` seconds at most, and up to 30 seconds more to revoke a token that was not stored.

        A client can rotate the token that it signs with. All later calls get a 401, so make a new client with the new
        key. A token cannot make one that outlives it: give an `expires_at` that is not later than its own end.

        Args:
            service_account_id: The service account that owns both.
            token_id: The old token's ID.
            store: Awaited with the `CreatedToken`. When it returns, the new secret must be stored, and all users of the
                old one must have switched. If that fails, it must raise. A plain function must return `None`; any other
                value that cannot be awaited counts as not stored.
            expires_at: When the new token stops working, timezone-aware and in the future. By default it lives as
                long from now as the old one did from its creation, and without end only if the old one did.

        Returns:
            The new token.

        Raises:
            InvalidArgumentError: An argument is invalid; nothing was sent.
            RotationError: The rotation stopped halfway; see above.
            DatadogError: It failed before anything was changed.
        """
        return await _rotation.rotate(
            self._executor, self._options, service_account_id, token_id, store=store, expires_at=expires_at
        )

    def _strategy(
        self, operation: str, service_account_id: str, token_ids: _bulk.Source, strategy: Strategy
    ) -> _bulk.MakeStrategy:
        """Check the arguments of a bulk fetch, and return the function that makes its strategy."""
        self._require_open()
        check_id("service_account_id", service_account_id, operation)
        check_strategy(strategy, operation=operation, service_account_id=service_account_id)
        _bulk.check_source(token_ids)
        send, get = self._send, operations.token_getter(service_account_id)
        first = operations.list_tokens(service_account_id, filter_=None, sort=None, size=LARGEST_PAGE, number=0)
        requests = _bulk.TokenRequests(
            get=lambda token_id: send(get(token_id)),
            read_page=self._reader(service_account_id),
            try_first_page=lambda: self._executor.try_once(first, self._options, instead_of="get_token"),
            concurrency=self._options.concurrency,
        )
        return partial(_bulk.make_strategy, strategy, requests)

    def _reader(
        self, service_account_id: str, filter_: str | None = None, sort: str | None = None, size: int = LARGEST_PAGE
    ) -> _pagination.ReadPage[AccessToken]:
        """Return the function that reads a page by its number."""
        request = partial(operations.list_tokens, service_account_id, filter_=filter_, sort=sort, size=size)
        request(number=0)  # an invalid argument is refused now
        return lambda number: self._send(request(number=number))

    def _send(self, request: Request[T]) -> Coroutine[Any, Any, T]:
        return self._executor.send(request, self._options)

    def _require_open(self) -> None:
        if self._executor.closed:
            msg = "the client is closed"
            raise ClientClosedError(msg)
