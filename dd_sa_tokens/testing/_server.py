"""`FakeDatadog`: credentials, rate limits and faults around what the organization answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

from aiohttp import web

from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.models import AccessToken, Leak

from ._checks import check, is_whole
from ._faults import Fault, check_fault
from ._fixed_window import Rounding
from ._forks import call_in_child, forget
from ._http_server import HttpServer, ServerThread
from ._received import Received
from ._routes import PERMISSIONS
from ._service import Service
from ._setup import Settings, make_organization


class FakeDatadog:
    """A fake Datadog server: an organization with service accounts, in memory, served over HTTP on a loopback port.

    Use it with `async with`, in the running event loop, or with `with`, in a thread and an event loop of its own. The
    latter works in synchronous tests, in fixtures of any scope, and for clients of any event loop. All attributes and
    methods may be used from any thread. After its end it can be started again; what it holds stays.

    It answers the five operations on the tokens of a service account, the organization's list of tokens, the users'
    list and single users. Each request is recorded, waits for `latency`, needs valid credentials (else 401), meets
    the first scripted fault that is meant for it, spends a rate limit (else 429), needs a permission (else 403), and
    is carried out. The token operations, the organization's list and the users have a rate limit each; unknown paths
    spend that of the token operations. The key of a created token is as valid as `access_token` until the token is
    revoked or expires. Using a key leaves `last_used_at` as it is.

    Sample tokens are as varied as those of real accounts: some have expired, expire soon, or never expire; some were
    never used, or not for long; a few are leaked, share a name, have scopes of administrators, or have names that are
    long or not ASCII. Their dates are relative to today's midnight in UTC, and at least a day off multiples of 5 and 7
    days, which are the usual thresholds. So an audit of the same seed finds the same on any day, at any hour.

    Lists keep the order of creation. Of rows that are equal in the attribute to sort by, the older comes first, and
    rows without it come last, in both directions. `sort=leaked` puts the leaked tokens last, `sort=-leaked` first.
    Three of the `users` have a personal token, which only the organization's list shows.

    Args:
        tokens: How many sample tokens each service account has, 100 by default, or the tokens to hold. A given token
            without a `service_account_id` belongs to the default service account. One of type `personal_access_tokens`
            belongs to a user.
        accounts: How many service accounts there are; 1 by default. With given tokens, at least as many as the tokens
            name.
        users: How many users there are besides the service accounts; 5 by default.
        permissions: The permissions of all keys: `service_account_write`, `org_app_keys_read`, `org_app_keys_write`,
            `user_app_keys`, `user_access_read`. All by default. With `user_app_keys` alone, the organization's list
            shows one user's personal token.
        rate_limit: Requests allowed in a period, and the length of the period in seconds. The default, 100,000 in 10 s,
            is more than most tests need. `None` for no limit and no rate-limit headers.
        rate_limit_used: Requests that other clients have spent of the windows that are current at the start; 0 by
            default.
        latency: Seconds before each answer; 0 by default.
        seed: The same seed gives the same keys and, on the same day, the same tokens. The same creates in the same
            order are given the same IDs and keys. 0 by default.
        reset_rounding: How `X-RateLimit-Reset` becomes a whole number: `"up"` as in the real API, the default;
            `"nearest"` or `"down"`.
        clock_offset: Seconds by which the server's clock is ahead of the machine's; 0 by default. It moves the windows,
            the `Date` header, and the dates of tokens that are created or updated.
        port: The port to listen on; 0, the default, for a free one.

    Attributes:
        api_key: Valid together with `app_key`.
        app_key: Valid together with `api_key`.
        access_token: Valid as a Bearer token, or alone in `DD-APPLICATION-KEY`. It belongs to none of the `tokens`.
        service_account_id: The default service account: that of the first given token, else a sample one.

    Raises:
        InvalidArgumentError: An argument is out of range, or a service account has two tokens of the same ID.
        OSError: Raised by `with` and `async with`: the port is in use.
        RuntimeError: Raised by `with` and `async with`: it is running already.
    """

    def __init__(
        self,
        tokens: int | Iterable[AccessToken] = 100,
        *,
        accounts: int = 1,
        users: int = 5,
        permissions: Collection[str] = PERMISSIONS,
        rate_limit: tuple[int, float] | None = (100_000, 10.0),
        rate_limit_used: int = 0,
        latency: float = 0.0,
        seed: int = 0,
        reset_rounding: Rounding = "up",
        clock_offset: float = 0.0,
        port: int = 0,
    ) -> None:
        settings = Settings(
            accounts=accounts,
            users=users,
            permissions=permissions,
            rate_limit=rate_limit,
            rate_limit_used=rate_limit_used,
            latency=latency,
            seed=seed,
            reset_rounding=reset_rounding,
            clock_offset=clock_offset,
            port=port,
        )
        keys, organization = make_organization(tokens, settings)
        self.api_key: str = keys.api_key
        self.app_key: str = keys.app_key
        self.access_token: str = keys.access_token
        self.service_account_id: str = organization.accounts.account_ids[0]
        self._accounts = organization.accounts
        self._service = Service(organization, keys, settings)
        self._port = port
        self._http: HttpServer | None = None
        self._thread: ServerThread | None = None

    # ---- What it holds

    @property
    def url(self) -> str:
        """The address, without a trailing slash, such as `http://127.0.0.1:43210`.

        Raises:
            RuntimeError: The server is not running.
        """
        if self._http is None:
            msg = "FakeDatadog has a URL only while it runs: use it with `async with` or `with`"
            raise RuntimeError(msg)
        return self._http.url

    @property
    def service_account_ids(self) -> list[str]:
        """The IDs of all service accounts, the default one first."""
        with self._service.lock:
            return self._accounts.account_ids

    @property
    def tokens(self) -> tuple[AccessToken, ...]:
        """The tokens of all service accounts now, in the order of creation, as a get without `include_leak` shows them.

        A leaked token has the ID of its leak; `leaks` has the rest.
        """
        with self._service.lock:
            return self._accounts.tokens()

    @property
    def token_ids(self) -> list[str]:
        """The IDs of the tokens of `service_account_id` now, in the order of creation."""
        with self._service.lock:
            return self._accounts.token_ids()

    @property
    def leaks(self) -> dict[str, Leak]:
        """The leaks of the `tokens` now, by the IDs of the tokens."""
        with self._service.lock:
            return self._accounts.leaks()

    # ---- What it has received

    @property
    def requests(self) -> int:
        """How many requests have been received."""
        return self._service.requests

    @property
    def rejected(self) -> int:
        """How many 429s have been sent, scripted ones included."""
        return self._service.rejected

    @property
    def received(self) -> tuple[Received, ...]:
        """The requests in the order in which they came; of more than 100,000, the last 100,000."""
        with self._service.lock:
            return self._service.log.received()

    @property
    def pending_faults(self) -> int:
        """How many scripted faults are still pending: they wait for a request that they match."""
        with self._service.lock:
            return self._service.faults.pending

    # ---- What it is to do

    def fail_next(
        self,
        count: int = 1,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        drop: bool = False,
        truncate: bool = False,
        stall: float | None = None,
        operation: str | None = None,
        token_id: str | None = None,
    ) -> None:
        """Script a fault for the next requests. Exactly one of `status`, `drop`, `truncate` and `stall` is given.

        A request with valid credentials meets the first of the scripted faults that is meant for it.

        Args:
            count: How many requests meet the fault, one after another.
            status: Answer with this status (200 to 599), as a proxy in front of the API would: without rate-limit
                headers, without spending a rate limit, and without carrying the request out. With the other kinds of
                fault the request spends a rate limit and is carried out, and only its answer suffers.
            headers: Headers for `status`, such as `Retry-After`.
            body: A body for `status` instead of `{"errors": [...]}`. Its type is `text/html` unless `headers` say
                otherwise.
            drop: Close the connection without an answer.
            truncate: Send the headers with the whole length, but half of the body, and close the connection. An answer
                without a body (that of a revoke) is dropped.
            stall: Seconds to wait before the answer.
            operation: Only requests for this operation meet the fault; see `Received.operation`.
            token_id: Only requests whose path has this token meet the fault.

        Raises:
            InvalidArgumentError: Not exactly one kind is given, or a value is out of range.
        """
        check("count", is_whole(count, 1), "a whole number of at least 1", count)
        fault = Fault(status, headers or {}, body, drop, truncate, stall, operation, token_id)
        check_fault(fault)
        with self._service.lock:
            self._service.faults.add(fault, count)

    def clear_faults(self) -> None:
        """Forget the scripted faults that are still pending."""
        with self._service.lock:
            self._service.faults.clear()

    def client(self, **options: Any) -> TokensClient:
        """Return a client of this server.

        Args:
            **options: Options of `TokensClient`. `access_token` replaces the pair of keys.

        Returns:
            A client with the server's URL and keys, to be used with `async with`.

        Raises:
            RuntimeError: The server is not running.
            ConfigurationError: An option is invalid.
        """
        own: dict[str, Any] = {"base_url": self.url}
        if options.get("access_token") is None:
            own |= {"api_key": self.api_key, "app_key": self.app_key}
        return TokensClient(**(own | options))

    # ---- Start and end

    async def __aenter__(self) -> Self:
        http = self._open()
        try:
            await http.start()
        except BaseException:  # a cancellation, too
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        http = self._close()
        if http is not None:
            await http.stop()

    def __enter__(self) -> Self:
        thread = ServerThread(self._open())
        try:
            thread.start()
        except BaseException:  # Ctrl-C, too
            self._close()
            raise
        self._thread = thread
        return self

    def __exit__(self, *_exc: object) -> None:
        thread, self._thread = self._thread, None
        self._close()
        if thread is not None:
            thread.stop()

    def _open(self) -> HttpServer:
        with self._service.lock:
            if self._http is not None:
                msg = "this FakeDatadog is running already"
                raise RuntimeError(msg)
            self._http = HttpServer(self._serve, self._service.pauses, self._port)
            self._service.begin()
            call_in_child(self, self._leave_to_parent)
        return self._http

    def _close(self) -> HttpServer | None:
        with self._service.lock:
            http, self._http = self._http, None
            forget(self)
        return http

    def _leave_to_parent(self) -> None:
        """Leave the server to the parent process. The child may send requests to it, but cannot stop it."""
        self._service.renew_lock()
        self._thread = None
        if self._http is not None:
            self._http.disown()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        return await self._service.handle(request)
