"""One attempt after the other, over a session of our own or a borrowed one."""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import Any

import aiohttp
from yarl import URL  # aiohttp's own URL type: it takes no other way to send a path exactly as it was encoded

from dd_sa_tokens._wire import Failure, Fate, Reply, Request
from dd_sa_tokens.config import Credentials
from dd_sa_tokens.errors import ClientClosedError, ConfigurationError, RequestTimeoutError

from . import sessions
from .attempt import Attempt, Attempts
from .body import read
from .failures import explain

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)  # attempts have a timer of their own, which they share


class Transport:
    """Sends requests over a session that it opens when it is first needed, or that it borrows.

    Args:
        base_url: Where to, without a trailing slash.
        credentials: Sent with each request.
        session: Used instead of one of its own, and never closed.
        timeout: Seconds for one attempt, from connecting to the last byte of the body.
        connections: Most connections of a session of its own.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        session: aiohttp.ClientSession | None,
        timeout: float,
        connections: int,
    ) -> None:
        sessions.check(session)
        self._base_url = URL(base_url, encoded=True)
        self._base_path = self._base_url.raw_path.rstrip("/")
        self._credentials = credentials
        self._session = session
        self._owns_session = session is None
        self._timeout = timeout
        self._connections = connections
        self._loop: asyncio.AbstractEventLoop | None = None
        self._options: dict[str, Any] = {}  # of each request
        self._attempts: Attempts = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reference: weakref.ref[Transport] = weakref.ref(self)

    @property
    def connections(self) -> int:
        """Requests that can be under way at a time, so that none waits for a connection while its timer runs."""
        limits = [self._connections]
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
            self._session = sessions.make(self._credentials, self._attempts, self._connections)
        else:
            self._options |= sessions.borrow(self._session, self._credentials, self._attempts)

    async def close(self) -> None:
        """End what is under way and close the session, if it is not borrowed."""
        for attempt in self._attempts.values():
            attempt.stop(ClientClosedError("the client was closed during the request"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def send(self, request: Request[Any]) -> Reply | Failure:
        """Make one attempt, once open."""
        assert self._session is not None
        options = self._options if request.body is None else self._with_body(request.body)
        attempt = self._begin()
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._session.request(request.operation.method, self._url(request.path), **options)
            return Reply(response.status, response.headers, await read(response), time.time())
        except asyncio.CancelledError as error:
            if attempt.cancelled():
                # Without the frames of aiohttp, which hold the headers: cancellation, too, ends up in tracebacks.
                raise error.with_traceback(None)  # noqa: B904 - it is the same one
            return self._give_up(attempt)
        except Exception as error:  # noqa: BLE001 - a borrowed session may raise anything, its frames full of headers
            return self._explain(error, attempt)
        finally:
            response = None  # a traceback would show the server's headers
            del self._attempts[attempt.task]
            if attempt.landed is not None:
                attempt.landed.set_result(None)

    async def landing(self, task: asyncio.Task[Any]) -> None:
        """Wait until a task has no attempt under way: the one that it makes, and those that follow without a pause."""
        while (attempt := self._attempts.get(task)) is not None:
            if attempt.landed is None:
                attempt.landed = asyncio.get_running_loop().create_future()
            await asyncio.wait([attempt.landed])

    def _begin(self) -> Attempt:
        assert self._loop is not None
        task = asyncio.current_task(self._loop)
        assert task is not None
        deadline = self._loop.time() + self._timeout
        attempt = Attempt(task, deadline, task.cancelling())
        self._attempts[task] = attempt
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, _expire, self._reference)
        return attempt

    def expire(self) -> None:
        """Cut short what has taken too long. One timer serves all: attempts end in the order in which they began."""
        assert self._loop is not None
        self._timer = None
        now = self._loop.time()
        for attempt in self._attempts.values():
            if attempt.deadline > now:
                self._timer = self._loop.call_at(attempt.deadline, _expire, self._reference)
                break
            attempt.stop(RequestTimeoutError(f"no complete answer within {self._timeout:g} s"))

    def _with_body(self, body: bytes) -> dict[str, Any]:
        """Return the options of a request that has one."""
        headers = {**self._options.get("headers", {}), "Content-Type": "application/json"}
        return {**self._options, "data": body, "headers": headers}

    def _url(self, path: str) -> URL:
        """Return the URL of a path with or without a query, sent exactly as it is."""
        path, _, query = path.partition("?")
        # Made from the base, it need not be parsed, which would take 6% of a request's time.
        url = self._base_url.with_path(self._base_path + path, encoded=True)
        return URL(f"{url}?{query}", encoded=True) if query else url

    def _give_up(self, attempt: Attempt) -> Failure:
        if attempt.cut is None:  # aiohttp cancels its own work, for example when a session is closed
            return self._explain(aiohttp.ClientConnectionError(), attempt)
        return Failure(attempt.cut, Fate.FINAL if isinstance(attempt.cut, ClientClosedError) else Fate.UNKNOWN)

    def _explain(self, error: Exception, attempt: Attempt) -> Failure:
        if self._session is not None and self._session.closed:
            return Failure(ClientClosedError("the session was closed"), Fate.FINAL if attempt.sent else Fate.REFUSED)
        return explain(error)


def _expire(reference: weakref.ref[Transport]) -> None:
    """Ring for a transport. The timer does not keep it: one that was dropped open is to be complained of at once."""
    transport = reference()
    if transport is not None:
        transport.expire()
