"""The client: what users call. Each method checks its arguments, makes a request of them, and hands it on."""

from __future__ import annotations

import copy
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp

from . import _bulk, _pagination, _rotation
from ._clock import Clock
from ._credentials import Key, as_secret, read_credentials
from ._endpoint import read_base_url
from ._execution import CallState, Executor
from ._http import Transport, read_settings
from ._protocol import operations, organization
from ._protocol.operations import ListOptions, Request
from ._protocol.organization import OtherRow
from ._ratelimit import RateLimiter, RateLimitStore, share_limits
from ._validation import (
    LARGEST_PAGE,
    MOST_OWNERS,
    Sort,
    Strategy,
    as_id,
    check_deadline,
    check_expiry,
    check_flag,
    check_id,
    check_owner_ids,
    check_strategy,
)
from .config import NOT_GIVEN, NotGiven, Options, RetryPolicy, Site
from .errors import ClientClosedError, DeadlineExceededError
from .models import AccessToken, Attempt, ClientStats, CreatedToken, RateLimit, ServiceAccount
from .results import BulkResult, TokenResult

T = TypeVar("T")

ID = str | UUID
"""An ID, as text or as a UUID."""


class TokensClient:
    """A client for Datadog's service access tokens, to be used under one event loop.

    It opens its connections when they are first needed, and holds them until `close()` or the end of `async with`.
    One client serves a whole program: `with_options` gives its parts other timeouts, retries and shares of the limits.
    Each call raises `ClientClosedError` once the client is closed. It raises `ConfigurationError` if the client is used
    under another event loop than before, or if its `rate_limit_store` is not open.

    Args:
        api_key: A Datadog API key. Default: `DD_API_KEY`, if no credential is given here.
        app_key: An application key. Default: `DD_APP_KEY`. A `ddsat_` or `ddpat_` token here needs no API key.
        access_token: A service or personal access token, sent as `Authorization: Bearer`, instead of the two keys.
            Default: `DD_ACCESS_TOKEN`, or `DD_BEARER_TOKEN`, which win over the two keys in the environment.
            Each of these three may also be a function without arguments, sync or async, that returns the key as `str`
            or `Secret`, for keys that change while the client lives. It is called before the first request, and once
            more, for all calls together, when the API answers 401 to the key in use; if it then returns another key,
            the refused requests are sent again. It may take as long as `timeout`, and a call that needs its key raises
            `CredentialsError` if it fails. A sync function runs in the event loop, so it must not block.
        site: The Datadog site, such as `datadoghq.eu`. Default: `DD_SITE`, else `datadoghq.com`.
        base_url: Where to send requests instead of a site: a proxy or a fake server. https, or http on loopback.
        session: An aiohttp session to borrow; `None`, the default, for one of the client's own. It is used, and never
            closed. Its cookies and default headers are sent along, except those about credentials or about the message
            itself, which are the client's. If its connector allows fewer connections than `concurrency`, no more
            requests are in flight.
        proxy: The http or https URL of a proxy, with a percent-encoded user and password if it wants them; `None`, the
            default, for no proxy. It gets a `CONNECT`, and sees neither keys nor paths. Like the next two, it is for
            the client's own session, and refused beside a borrowed one.
        ssl_context: For a certificate authority of your own: `ssl.create_default_context(cafile=...)`; `None`, the
            default, for the system's authorities. One that does not verify certificates and host names is refused. An
            https proxy is verified with it, too.
        trust_env: Whether to take the proxy from `HTTPS_PROXY` and `NO_PROXY`, by the rules of the standard library,
            unless `proxy` is given. They are read once, when the client is made. A loopback `base_url` is never reached
            through it. Default: False.
        concurrency: Most requests in flight, over all calls of this client. Default: 50.
        timeout: Seconds for one attempt: connect, send, and read the whole body. Waiting for the rate limit, or for
            other requests to make room, does not count. Default: 30.
        retry: When failed attempts are repeated. Default: `RetryPolicy()`, with at most 5 attempts.
        rate_limit_reserve: Share (0 <= r < 1) of each rate-limit window that is left to the organization's other users.
            Default: 0.0.
        rate_limit_store: A window that many processes share, such as `dd_sa_tokens.fleet.RedisStore`. By default the
            client sees others only in the headers of its own answers.
        on_attempt: Called with an `Attempt` after each attempt of each call, cancelled ones too, for metrics, traces
            and logs; `None` by default. It runs in the event loop, so it must not block, and cannot be an `async def`.
            An exception out of it is logged once, and never fails a call.

    Raises:
        ConfigurationError: A setting is invalid; the text names it.
    """

    def __init__(
        self,
        *,
        api_key: Key | None = None,
        app_key: Key | None = None,
        access_token: Key | None = None,
        site: Site | str | None = None,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        trust_env: bool = False,
        concurrency: int = 50,
        timeout: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),
        rate_limit_reserve: float = 0.0,
        rate_limit_store: RateLimitStore | None = None,
        on_attempt: Callable[[Attempt], object] | None = None,
    ) -> None:
        # First of all: a traceback of what is raised below may be logged with its local variables.
        keys, address = (as_secret(api_key), as_secret(app_key), as_secret(access_token)), as_secret(base_url)
        via = as_secret(proxy)
        del api_key, app_key, access_token, base_url, proxy
        self._options = Options(
            timeout=timeout, retry=retry, rate_limit_reserve=rate_limit_reserve, concurrency=concurrency
        )
        credentials = read_credentials(*keys)
        url, clock = read_base_url(site, address), Clock()
        settings = read_settings(
            url, is_borrowed=session is not None, proxy=via, ssl_context=ssl_context, trust_env=trust_env
        )
        transport = Transport(
            url, credentials, session=session, concurrency=concurrency, clock=clock, settings=settings
        )
        shared = share_limits(rate_limit_store, url)
        self._limiter = RateLimiter(transport.concurrency, clock=clock, shared=shared)
        self._executor = Executor(transport, self._limiter, credentials, clock, on_attempt)
        self._changes: dict[str, object] | None = None  # the options of a view that are other ones; `None` for a client
        self._about = f"{urlsplit(url).netloc}, {credentials.kind}"

    def with_options(
        self,
        *,
        timeout: float | NotGiven = NOT_GIVEN,
        retry: RetryPolicy | NotGiven = NOT_GIVEN,
        rate_limit_reserve: float | NotGiven = NOT_GIVEN,
        concurrency: int | NotGiven = NOT_GIVEN,
    ) -> Self:
        """Return a view of this client: the same client with other options for the calls that are made with the view.

        A view shares the session, the connections, the rate-limit windows, the retry budget and the counters. It is
        open and closed with the client that it comes from: its own `close()` and `async with` close nothing. A view
        costs next to nothing, and a view of a view works, too. Options that are not given stay as they are.

        A nightly job and web handlers live on one client, if the job's view has a `rate_limit_reserve`: when the job
        has spent its share of a window, the handlers' calls find room, and are not queued behind the job's.

        Args:
            timeout: Seconds for one attempt, as for the client.
            retry: When failed attempts are repeated; its `max_rate_limit_wait` holds for the view's calls.
            rate_limit_reserve: Share (0 <= r < 1) of each rate-limit window that the view's requests leave to all
                others, those of the client and its other views among them.
            concurrency: Most requests of this view in flight. All requests together stay within the `concurrency` of
                the client, so a larger number has the effect of that.

        Returns:
            The view.

        Raises:
            ConfigurationError: An option is out of range; the text names it.
        """
        options = {
            "timeout": timeout,
            "retry": retry,
            "rate_limit_reserve": rate_limit_reserve,
            "concurrency": concurrency,
        }
        changes = {name: value for name, value in options.items() if value is not NOT_GIVEN}
        view = copy.copy(self)
        replaced = self._options.replace(changes, most=self._limiter.concurrency)
        changed = (self._changes or {}) | {name: getattr(replaced, name) for name in changes}
        vars(view).update(_options=replaced, _changes=changed)
        return view

    def __repr__(self) -> str:
        if "_about" not in vars(self):  # its options were refused
            return f"<{type(self).__name__}>"
        view = "" if self._changes is None else ", view"
        changes = "".join(f", {name}={value!r}" for name, value in (self._changes or {}).items())
        return f"<{type(self).__name__} {self._about}, {'closed' if self.closed else 'open'}{view}{changes}>"

    async def __aenter__(self) -> Self:
        """Return the client.

        Raises:
            ClientClosedError: The client is closed.
        """
        self._require_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the client, and its session unless that is borrowed. Calls in flight raise `ClientClosedError`.

        That ends the calls of its views, too. On a view this does nothing.
        """
        if self._changes is None:
            await self._executor.close()

    @property
    def closed(self) -> bool:
        """Whether the client was closed. A view is closed when the client is that it comes from."""
        return self._executor.closed

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current rate-limit window of the operation used last, as the client sees it; `None` while unknown."""
        return self._limiter.rate_limit

    @property
    def stats(self) -> ClientStats:
        """The client's counters, those of its views included: a snapshot."""
        return self._executor.stats

    async def get_token(self, service_account_id: ID, token_id: ID, *, include_leak: bool = False) -> AccessToken:
        """Fetch one token.

        Args:
            service_account_id: The service account that owns it.
            token_id: Its ID.
            include_leak: Whether to ask where and when a leaked key was found, too; see `AccessToken.leak`.

        Returns:
            The token.

        Raises:
            InvalidArgumentError: An ID is invalid; nothing was sent.
            ConfigurationError: The client is used under another event loop, or its `rate_limit_store` is not open.
            ClientClosedError: The client is closed.
            NotFoundError: There is no such token or service account.
            DatadogError: Any other failure; see the error tree.
        """
        account, token = _text(service_account_id), _text(token_id)
        return await self._send(operations.get_token(account, token, include_leak=include_leak))

    async def get_tokens(
        self,
        service_account_id: ID,
        token_ids: Iterable[ID] | AsyncIterable[ID],
        *,
        strategy: Strategy = "auto",
        deadline: float | None = None,
        include_leak: bool = False,
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
                requests. It fetches any other iterable one by one. The default is `"auto"`.
            deadline: Seconds for the whole call; `None` for as long as it takes. When they have passed, the requests in
                flight are cancelled, what was fetched stays, and each other ID gets `DeadlineExceededError`. The rest
                of a sync iterable is still read for that: one that blocks the event loop holds the call up. An async
                iterable is not asked again; one that is a generator is closed.
            include_leak: As for `get_token`.

        Returns:
            A sequence of `TokenResult`.

        Raises:
            InvalidArgumentError: An argument is invalid, or `token_ids` is no iterable of IDs.
            ConfigurationError: As for `get_token`.
            ClientClosedError: The client was closed before the call. If it is closed meanwhile, IDs get this error.
            SourceError: `token_ids` raised, or it is an async iterable and the deadline passed; the error's `partial`
                holds the results so far.
        """
        make_strategy = self._strategy("get_tokens", service_account_id, token_ids, strategy, include_leak=include_leak)
        deadline_error = _deadline_error("get_tokens", service_account_id, deadline)
        return await _bulk.collect(token_ids, make_strategy, self._options.concurrency, deadline_error)

    def stream_tokens(
        self,
        service_account_id: ID,
        token_ids: Iterable[ID] | AsyncIterable[ID],
        *,
        strategy: Strategy = "auto",
        deadline: float | None = None,
        include_leak: bool = False,
    ) -> AsyncGenerator[TokenResult, None]:
        """Fetch many tokens and yield the results as they come, in bounded memory.

        At most `concurrency` results are in flight or waiting to be consumed. Duplicates that are in flight together
        share a request. Leaving the loop early cancels the requests in flight; wrap the generator in
        `contextlib.aclosing`, so that this happens at once.

        Args:
            service_account_id: The service account that owns them.
            token_ids: The IDs, from any iterable or async iterable, of any length.
            strategy: As for `get_tokens`.
            deadline: Seconds for the whole stream, from when its first item is asked for, the consumer's own time
                included; `None` for as long as it takes. When they have passed, the requests in flight are cancelled,
                and `token_ids` is not asked again; an async generator is closed. Only a sequence, a set or a view of a
                mapping is read to its end, for the tokens that the list held: they are still yielded.
            include_leak: As for `get_token`.

        Yields:
            A `TokenResult` for each position of the input, in the order in which the answers come.

        Raises:
            InvalidArgumentError: As for `get_tokens`; raised at once, not when the loop begins.
            ConfigurationError: As for `get_token`.
            ClientClosedError: The client is closed, or was closed meanwhile.
            UnauthorizedError: The keys are refused: raised after the results that were in flight.
            CredentialsError: A function gave no key: raised after the results that were in flight.
            ForbiddenError: Ten 403s and no other answer: raised after the results that were in flight.
            DeadlineExceededError: The deadline passed: raised after the results of all IDs that were taken. Those
                without an answer get this error, too.
            Exception: Any exception of `token_ids`, after the results that were in flight.
        """
        make_strategy = self._strategy(
            "stream_tokens", service_account_id, token_ids, strategy, include_leak=include_leak
        )
        deadline_error = _deadline_error("stream_tokens", service_account_id, deadline)
        return _bulk.stream(token_ids, make_strategy, self._options.concurrency, deadline_error)

    async def find_tokens(
        self, token_ids: Iterable[ID] | AsyncIterable[ID], *, include_leak: bool = False
    ) -> BulkResult:
        """Find tokens by their IDs alone, in the organization's list of tokens.

        The list is read, 100 tokens a request, until all are found or it ends. The keys need the permission
        `org_app_keys_read`.

        Args:
            token_ids: The IDs, from any iterable or async iterable.
            include_leak: Whether to ask where and when leaked keys were found, too; see `AccessToken.leak`.

        Returns:
            One result for each position of the input, in its order. An ID that is not in the list gets a
            `NotFoundError`: there is no such token, these keys may not see it, or it is a personal access token. If the
            list cannot be read to its end, an ID that was not found gets the error of the list.

        Raises:
            InvalidArgumentError: `token_ids` is no iterable of IDs, or `include_leak` is no `bool`.
            ClientClosedError: The client was closed before the call. If it is closed meanwhile, IDs get this error.
            SourceError: `token_ids` raised; the error's `partial` holds the results so far.
        """
        self._require_open("find_tokens")
        _bulk.check_source(token_ids, operation="find_tokens")
        check_flag("include_leak", include_leak, operation="find_tokens")
        options = ListOptions(include_leak=include_leak)
        return await _bulk.find(token_ids, lambda: self._organization_rows((), options))

    def list_tokens(
        self,
        service_account_id: ID,
        *,
        filter: str | None = None,  # noqa: A002 - the API's own name for it
        sort: Sort | None = None,
        leaked_only: bool = False,
        include_leak: bool = False,
        page_size: int = 100,
    ) -> AsyncGenerator[AccessToken, None]:
        """List a service account's tokens, each once, in the API's order.

        Pages are read ahead of the consumer once the first one has told how many there are. If tokens move from page
        to page meanwhile, because others are made or revoked, the list is read once more, and tokens that were missed
        come last.

        Args:
            service_account_id: The service account.
            filter: Only tokens that match this text; the API decides how.
            sort: `name`, `created_at`, `expires_at`, `last_used_at` or `leaked`; descending with a leading `-`. `None`,
                the default, leaves the order to the API.
            leaked_only: Whether to list only tokens whose keys are known to be leaked; False by default.
            include_leak: As for `get_token`; False by default.
            page_size: Tokens in one request, 1 to 100; 100 by default.

        Yields:
            The tokens.

        Raises:
            InvalidArgumentError: An argument is invalid; raised at once, not when the loop begins.
            ConfigurationError: As for `get_token`.
            ClientClosedError: The client is closed; raised at once. Or it was closed meanwhile.
            DatadogError: A page could not be read.
        """
        self._require_open("list_tokens", service_account_id)
        options = ListOptions(
            filter=filter, sort=sort, leaked_only=leaked_only, include_leak=include_leak, size=page_size
        )
        read = self._reader(_text(service_account_id), options)
        return _pagination.list_all(read, self._options.concurrency, size=page_size)

    def list_organization_tokens(
        self,
        *,
        service_account_ids: Collection[ID] = (),
        filter: str | None = None,  # noqa: A002 - the API's own name for it
        sort: Sort | None = None,
        leaked_only: bool = False,
        include_leak: bool = False,
        page_size: int = 100,
    ) -> AsyncGenerator[AccessToken, None]:
        """List the tokens of all service accounts of the organization, each once, in the API's order.

        The API's list has personal access tokens, too; they are skipped. Pages are read as by `list_tokens`. The keys
        need the permission `org_app_keys_read`.

        Args:
            service_account_ids: Only tokens of these service accounts, 50 of them in a request; all by default. Of
                more than 50, the tokens of the first 50 come first.
            filter: As for `list_tokens`.
            sort: As for `list_tokens`.
            leaked_only: As for `list_tokens`.
            include_leak: As for `get_token`; False by default.
            page_size: Tokens in one request, personal ones included, 1 to 100; 100 by default.

        Yields:
            The tokens; `AccessToken.service_account_id` says whose they are.

        Raises:
            InvalidArgumentError: An argument is invalid; raised at once, not when the loop begins.
            ConfigurationError: As for `get_token`.
            ClientClosedError: The client is closed; raised at once. Or it was closed meanwhile.
            DatadogError: A page could not be read.
        """
        self._require_open("list_organization_tokens")
        options = ListOptions(
            filter=filter, sort=sort, leaked_only=leaked_only, include_leak=include_leak, size=page_size
        )
        owners = check_owner_ids(service_account_ids, "list_organization_tokens")
        return _only(AccessToken, self._organization_rows(owners, options))

    def list_service_accounts(
        self,
        *,
        service_account_ids: Collection[ID] = (),
        filter: str | None = None,  # noqa: A002 - the API's own name for it
    ) -> AsyncGenerator[ServiceAccount, None]:
        """List the organization's service accounts, each once.

        The API has no list of them, so they are picked from the list of all users, 100 users a request. The keys need
        the permission `user_access_read`.

        Args:
            service_account_ids: Only these service accounts; all by default. The first page of users says how many
                there are. The accounts that it does not hold are read with whichever needs fewer requests: one for
                each account, or one for each 100 users. An ID that no service account has is skipped.
            filter: Only users that match this text; the API decides how. With it, the list of users is always read.

        Yields:
            The service accounts.

        Raises:
            InvalidArgumentError: An argument is invalid; raised at once, not when the loop begins.
            ConfigurationError: As for `get_token`.
            ClientClosedError: The client is closed; raised at once. Or it was closed meanwhile.
            DatadogError: A page or a service account could not be read.
        """
        self._require_open("list_service_accounts")
        account_ids = check_owner_ids(service_account_ids, "list_service_accounts")
        request = partial(organization.list_users, filter)
        request(0)  # an invalid argument is refused now
        read, concurrency = partial(_read, self._send, request), self._options.concurrency
        if not account_ids:
            return _only(ServiceAccount, _pagination.list_all(read, concurrency, size=LARGEST_PAGE))
        get = None if filter is not None else self._get_user
        return _bulk.find_accounts(account_ids, _bulk.UserRequests(read, get, concurrency))

    async def get_service_account(self, service_account_id: ID) -> ServiceAccount:
        """Fetch one service account. The keys need the permission `user_access_read`.

        Args:
            service_account_id: Its ID.

        Returns:
            The service account.

        Raises:
            InvalidArgumentError: The ID is invalid; nothing was sent.
            NotFoundError: There is no such user, or the user is a person.
            DatadogError: Any other failure.
        """
        return await self._send(organization.get_user(_text(service_account_id)))

    async def create_token(
        self, service_account_id: ID, *, name: str, scopes: Collection[str], expires_at: datetime | None = None
    ) -> CreatedToken:
        """Make a token. Its secret, `key`, is given only here: it cannot be read again.

        It is repeated only after a 429, if it was not sent, or, with a key function, once after a 401. If it may have
        been carried out (lost connection, timeout, closed client, redirect, 408, 5xx, unreadable 2xx), the error has
        `outcome_unknown` set, and its text says how to check. If the answer names the token, but cannot be used
        otherwise, the error has its `token_id`. After any other error, such as a 403, there is no new token. A borrowed
        session must not have a middleware that repeats requests.

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
        account = _text(service_account_id)
        check_expiry(expires_at, datetime.now(UTC), operation="create_token", service_account_id=account)
        request = operations.create_token(account, name=name, scopes=scopes, expires_at=expires_at)
        return await self._send(request)

    async def update_token(
        self,
        service_account_id: ID,
        token_id: ID,
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
        return await self._send(
            operations.update_token(_text(service_account_id), _text(token_id), name=name, scopes=scopes)
        )

    async def revoke_token(self, service_account_id: ID, token_id: ID) -> None:
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
        await self._send(operations.revoke_token(_text(service_account_id), _text(token_id)))

    async def rotate_token(
        self,
        service_account_id: ID,
        token_id: ID,
        *,
        store: Callable[[CreatedToken], Awaitable[object] | None],
        expires_at: datetime | None = None,
    ) -> AccessToken:
        """Replace a token by a new one with the same name and scopes, with no moment in which neither works.

        Reads the old token, makes the new one, awaits `store(created)`, and only then revokes the old one.

        What is raised if a step fails, and what holds then: see the table of `RotationError`.

        A `RotationError` says what is left to do. A cancellation carries the same text in a note (which
        `asyncio.gather` drops), and logs it at WARNING. The call then waits for a request that is in flight, and up to
        30 seconds more to revoke a token that was not stored.

        A client that rotates its own token gets a 401 to all later calls, unless its `access_token` is a function that
        returns what `store` has stored. A token cannot make one that outlives it: give an `expires_at` that is not
        later than its own end.

        Args:
            service_account_id: The service account that owns both.
            token_id: The old token's ID.
            store: Awaited with the `CreatedToken`. When it returns, the new secret must be stored, and all users of the
                old one must have switched. If that fails, it must raise. A plain function must return `None`; any other
                value that cannot be awaited counts as not stored. If awaiting gives `False`, or work that is left to do
                (an awaitable, a generator, an async generator, or a future that has not succeeded), `store` has
                forgotten an `await`: that counts as not stored, too. Any other value counts as stored.
            expires_at: When the new token stops working, timezone-aware and in the future. By default it lives as
                long as the old one did, from now on, and without end only if the old one did.

        Returns:
            The new token.

        Raises:
            InvalidArgumentError: An argument is invalid; nothing was sent.
            RotationError: The rotation stopped halfway; see above.
            DatadogError: It failed before anything was changed.
        """
        return await _rotation.rotate(
            self._executor,
            self._options,
            _text(service_account_id),
            _text(token_id),
            store=store,
            expires_at=expires_at,
        )

    def _strategy(
        self,
        operation: str,
        service_account_id: ID,
        token_ids: _bulk.Source,
        strategy: Strategy,
        *,
        include_leak: bool,
    ) -> _bulk.MakeStrategy:
        """Check the arguments of a bulk fetch, and return the function that makes its strategy."""
        self._require_open(operation, service_account_id)
        account = check_id("service_account_id", as_id(service_account_id), operation)
        check_strategy(strategy, operation=operation, service_account_id=account)
        check_flag("include_leak", include_leak, operation=operation, service_account_id=account)
        _bulk.check_source(token_ids, operation=operation, service_account_id=account)
        send, get = self._executor.send, operations.token_getter(account, include_leak=include_leak)
        options = ListOptions(include_leak=include_leak)
        first = operations.list_tokens(account, options, 0)
        asked = self._executor.asked_for_keys

        def get_one(token_id: str, *, again: bool = False) -> Coroutine[Any, Any, AccessToken]:
            # All calls of a bulk fetch begin together, so they share one asking for keys.
            call = None if asked is None else CallState(asked=asked, signed_anew=again)
            return send(get(token_id), self._options, call)

        requests = _bulk.TokenRequests(
            get=get_one,
            read_page=self._reader(account, options),
            try_first_page=lambda: self._executor.try_once(first, self._options, instead_of="get_token"),
            concurrency=self._options.concurrency,
            confirm=None if asked is None else partial(get_one, again=True),
        )
        return partial(_bulk.make_strategy, strategy, requests)

    def _reader(self, service_account_id: str, options: ListOptions) -> _pagination.ReadPage[AccessToken]:
        """Return the function that reads a page of a service account's list by its number."""
        request = partial(operations.list_tokens, service_account_id, options)
        request(0)  # an invalid argument is refused now
        return lambda number: self._send(request(number))

    def _organization_rows(
        self, owner_ids: Sequence[str], options: ListOptions
    ) -> AsyncGenerator[AccessToken | OtherRow, None]:
        """Return the rows of the organization's list, for all owners or for some."""
        parts = [owner_ids[start : start + MOST_OWNERS] for start in range(0, len(owner_ids), MOST_OWNERS)] or [[]]
        organization.list_organization_tokens(parts[0], options, 0)  # an invalid argument is refused now
        return self._rows_of_parts(parts, options)

    async def _rows_of_parts(
        self, parts: list[Sequence[str]], options: ListOptions
    ) -> AsyncGenerator[AccessToken | OtherRow, None]:
        seen: set[str] = set()
        for part in parts:
            request = partial(organization.list_organization_tokens, part, options)
            read = partial(_read, self._send, request)
            rows = _pagination.list_all(read, self._options.concurrency, size=options.size, seen=seen)
            async with aclosing(rows):
                async for row in rows:
                    yield row

    def _get_user(self, service_account_id: str) -> Coroutine[Any, Any, ServiceAccount | OtherRow]:
        return self._send(organization.get_user(service_account_id))

    def _send(self, request: Request[T]) -> Coroutine[Any, Any, T]:
        return self._executor.send(request, self._options)

    def _require_open(self, operation: str | None = None, service_account_id: object = None) -> None:
        if self._executor.closed:
            msg = "the client is closed"
            account = as_id(service_account_id)
            known = account if isinstance(account, str) else None
            raise ClientClosedError(msg, operation=operation, service_account_id=known)


def _text(value: ID) -> str:
    """Return an ID as text; an invalid value is refused when the request is built."""
    return cast("str", as_id(value))


def _deadline_error(operation: str, service_account_id: ID, seconds: float | None) -> DeadlineExceededError | None:
    """Check a deadline; return the error of what has no answer when it passes, `None` for no deadline."""
    account = _text(service_account_id)
    check_deadline(seconds, operation=operation, service_account_id=account)
    if seconds is None:
        return None
    return DeadlineExceededError(deadline=seconds, operation=operation, service_account_id=account)


async def _read(send: Callable[[Request[T]], Awaitable[T]], request: Callable[[int], Request[T]], number: int) -> T:
    return await send(request(number))


async def _only(kind: type[T], rows: AsyncGenerator[Any, None]) -> AsyncGenerator[T, None]:
    """Yield the rows of a kind; other ones are skipped."""
    async with aclosing(rows):
        async for row in rows:
            if isinstance(row, kind):
                yield row
