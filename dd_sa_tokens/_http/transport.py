"""Sends requests over a session of our own or a borrowed one; each call is one attempt."""

from __future__ import annotations

import asyncio
import math
import weakref
from functools import lru_cache
from typing import Any

import aiohttp
from yarl import URL  # aiohttp's own URL type: it takes no other way to send a path exactly as it was encoded

from dd_sa_tokens._clock import Clock
from dd_sa_tokens._credentials import Credentials
from dd_sa_tokens._protocol.headers import parse_rate_limit
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens._protocol.responses import Failure, Response, Retry
from dd_sa_tokens.errors import ClientClosedError, ConfigurationError, RequestTimeoutError

from . import session as sessions
from .body import read
from .errors import explain
from .exchange import Exchange
from .proxy import secrets_of, secrets_of_session
from .session import BorrowedSession, current_exchange
from .settings import SessionSettings
from .turns import Turns

_LARGE = 4_096  # bytes of a body that holds many items, so that decoding it takes a while

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)  # attempts have a timer of their own, which they share


class Transport:
    """Sends requests over a session that it opens when it is first needed, or that it borrows.

    Args:
        base_url: Where to send them, without a trailing slash.
        credentials: Sent with each request.
        session: Used instead of one of its own, and never closed.
        concurrency: Most connections of a session of its own.
        clock: Where the time comes from.
        settings: What a session of its own is made with.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        session: aiohttp.ClientSession | None,
        concurrency: int,
        clock: Clock = Clock(),
        settings: SessionSettings = SessionSettings(),
    ) -> None:
        sessions.check(session)
        if session is not None:
            credentials.mask_also(secrets_of_session(session))
        if settings.proxy is not None:
            credentials.mask_also(secrets_of(settings.proxy.reveal()))
        self._base_url = URL(base_url, encoded=True)
        self._base_path = self._base_url.raw_path.rstrip("/")
        self._credentials = credentials
        self._redact_name = lru_cache(maxsize=16)(credentials.redact)  # a limit's, the same in each answer
        self._session = session
        self._settings = settings
        self._owns_session = session is None
        self._borrowed: BorrowedSession | None = None
        self._concurrency = concurrency
        self._wall = clock.wall
        self._loop: asyncio.AbstractEventLoop | None = None
        self._options: dict[str, Any] = {}  # of each request
        self._turns = Turns()
        self._exchanges: dict[Exchange, None] = {}  # a set that keeps the order in which they began
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf
        self._reference: weakref.ref[Transport] = weakref.ref(self)

    @property
    def concurrency(self) -> int:
        """Requests that can be in flight at a time, so that none waits for a connection while its timer runs."""
        limits = [self._concurrency]
        if self._session is not None and self._session.connector is not None:
            limits += [self._session.connector.limit, self._session.connector.limit_per_host]
        return min(limit for limit in limits if limit)

    def open(self) -> None:
        """Bind to the running loop, and make the session if there is none.

        Raises:
            ConfigurationError: It is bound to another loop already.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            msg = "the client is used under another event loop than before; make one client for each loop"
            raise ConfigurationError(msg)
        self._loop = loop
        self._options = {"allow_redirects": False, "raise_for_status": False, "timeout": _NO_TIMEOUT}
        if self._session is None:
            self._session = sessions.make(self._credentials, self._concurrency, self._settings)
        else:
            self._borrowed = BorrowedSession(self._session, self._credentials)
            self._options["headers"] = sessions.COMMON_HEADERS

    async def close(self) -> None:
        """End the requests in flight and close the session, if it is not borrowed."""
        for exchange in self._exchanges:
            exchange.cancel(ClientClosedError("the client was closed during the request"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_due = None, math.inf
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def send(self, request: Request[Any], timeout: float) -> Response | Failure:  # noqa: ASYNC109 - see `_begin`
        """Make one attempt, once open. `timeout`: seconds, from connecting to the last byte of the body."""
        assert self._session is not None
        exchange = self._begin(timeout)
        current_exchange.set(exchange)
        response: aiohttp.ClientResponse | None = None
        body = b""
        try:
            plain = request.body is None and self._borrowed is None
            options = self._options if plain else self._options_of(request, exchange)
            response = await self._session.request(request.operation.method, self._url(request.path), **options)
            body = await read(response)
            received = self._wall()
            if len(body) > _LARGE:
                exchange.deadline = math.inf  # the answer is there
                await self._turns.wait()
            rate_limit = parse_rate_limit(response.headers, received, self._redact_name)
            return Response(response.status, response.headers, body, rate_limit, received)
        except asyncio.CancelledError as error:
            if exchange.is_external():
                # Without the frames of aiohttp, which hold the headers: cancellation, too, ends up in tracebacks.
                raise error.with_traceback(None)  # noqa: B904 - it is the same one
            return self._cut_short(exchange)
        except Exception as error:  # noqa: BLE001 - a borrowed session may raise anything, its frames full of headers
            return self._explain(error, exchange)
        finally:
            response, body = None, b""  # a traceback would show the server's headers, and a new token's secret
            current_exchange.set(None)  # a task's context must not keep what refers to the task
            del self._exchanges[exchange]

    def _begin(self, timeout: float) -> Exchange:
        # One timer serves all exchanges: asyncio.timeout costs a busy client 4% of its speed.
        assert self._loop is not None
        task = asyncio.current_task(self._loop)
        assert task is not None
        exchange = Exchange(task, task.cancelling(), None, timeout, self._loop.time() + timeout)
        self._exchanges[exchange] = None
        if exchange.deadline < self._timer_due:
            self._set_timer(exchange.deadline)
        return exchange

    def _set_timer(self, due: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_due = self._loop.call_at(due, _expire, self._reference), due

    def expire(self) -> None:
        """Cut short what has taken too long, and set the timer for the next deadline."""
        assert self._loop is not None
        now = self._loop.time()
        late = now - self._timer_due
        self._timer, self._timer_due = None, math.inf
        for exchange in self._exchanges:
            if exchange.deadline <= now and not exchange.extend_deadline(now, late):
                exchange.cancel(RequestTimeoutError(f"no complete answer within {exchange.timeout:g} s"))
        due = min((exchange.deadline for exchange in self._exchanges if exchange.reason is None), default=math.inf)
        if due < math.inf:
            self._set_timer(due)

    def _options_of(self, request: Request[Any], exchange: Exchange) -> dict[str, Any]:
        options = dict(self._options)
        if request.body is not None:
            options["data"] = request.body
            options["headers"] = {**options.get("headers", {}), "Content-Type": "application/json"}
        if self._borrowed is not None:
            options["middlewares"] = self._borrowed.middlewares(exchange)
        return options

    def _url(self, path: str) -> URL:
        """Return the URL of a path with or without a query, sent exactly as it is."""
        path, _, query = path.partition("?")
        # Made from the base, it need not be parsed, which would take 6% of a request's time.
        url = self._base_url.with_path(self._base_path + path, encoded=True)
        return URL(f"{url}?{query}", encoded=True) if query else url

    def _cut_short(self, exchange: Exchange) -> Failure:
        if exchange.reason is None:  # aiohttp cancels its own work, for example when a session is closed
            return self._explain(aiohttp.ClientConnectionError(), exchange)
        sent = exchange.sent is not False
        retry = Retry.NEVER if isinstance(exchange.reason, ClientClosedError) else Retry.BACKOFF
        return Failure(exchange.reason, retry, sent=sent, maybe_applied=sent)

    def _explain(self, error: Exception, exchange: Exchange) -> Failure:
        if self._session is not None and self._session.closed:
            sent = exchange.sent is not False
            return Failure(ClientClosedError("the session was closed"), Retry.NEVER, sent=sent, maybe_applied=sent)
        return explain(error, self._credentials.redact, sent=exchange.sent, proxy=exchange.proxy)


def _expire(reference: weakref.ref[Transport]) -> None:
    """Expire the exchanges of a transport, if it still exists.

    The timer does not keep it: a client dropped without close() must be collected, so that aiohttp can warn about it.
    """
    transport = reference()
    if transport is not None:
        transport.expire()
