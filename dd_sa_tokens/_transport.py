"""The session, one attempt, and the map from aiohttp's exceptions to ours."""

from __future__ import annotations

import asyncio
import platform
import time
import weakref
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any, final

import aiohttp
import attrs
from yarl import URL  # aiohttp's own URL type: it takes no other way to send a path exactly as it was encoded

from ._version import __version__
from ._wire import Failure, Fate, Reply, Request
from .config import Credentials
from .errors import ClientClosedError, ConfigurationError, DatadogError, RequestTimeoutError, TransportError

LARGEST_BODY = 10 * 1024 * 1024
"""Bytes that an answer's body may have, once decompressed."""

_CREDENTIALS = ("Authorization", "DD-API-KEY", "DD-APPLICATION-KEY")
_ABOUT_THE_MESSAGE = ("Content-Encoding", "Content-Length", "Content-Type", "Transfer-Encoding")
_USER_AGENT = f"dd-sa-tokens/{__version__} (Python/{platform.python_version()}; aiohttp/{aiohttp.__version__})"
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)  # attempts have a timer of their own, which they share


class _TooLargeError(Exception):
    """The body is larger than any real answer."""


# The most specific first. What an exception of aiohttp says is not repeated: it may quote what the server sent.
_FAILURES: tuple[tuple[type[BaseException], str, Fate], ...] = (
    (_TooLargeError, f"the body is larger than {LARGEST_BODY // 1024 // 1024} MiB", Fate.FINAL),
    (aiohttp.InvalidURL, "the URL is refused by the HTTP library", Fate.REFUSED),
    (aiohttp.ClientConnectorCertificateError, "the server's TLS certificate is not valid for it", Fate.REFUSED),
    (aiohttp.ClientConnectorSSLError, "no TLS connection could be made", Fate.NOT_SENT),
    (aiohttp.ServerFingerprintMismatch, "the server's TLS certificate is not the expected one", Fate.REFUSED),
    (aiohttp.ClientConnectorDNSError, "the host name could not be resolved", Fate.NOT_SENT),
    (aiohttp.ClientProxyConnectionError, "the proxy could not be reached", Fate.NOT_SENT),
    (aiohttp.ClientHttpProxyError, "the proxy refused the connection", Fate.NOT_SENT),
    (aiohttp.ClientConnectorError, "no connection could be made", Fate.NOT_SENT),
    (aiohttp.ServerDisconnectedError, "the server closed the connection without an answer", Fate.UNKNOWN),
    (aiohttp.ClientPayloadError, "the answer's body was cut short or garbled", Fate.UNKNOWN),
    (aiohttp.ClientResponseError, "the answer is not HTTP", Fate.UNKNOWN),
    (TimeoutError, "the session's own timeout ran out", Fate.UNKNOWN),
    (aiohttp.ClientError, "the connection failed", Fate.UNKNOWN),
    (OSError, "the connection failed", Fate.UNKNOWN),
    (RuntimeError, "the session failed; was it made under another event loop?", Fate.FINAL),
    (Exception, "the session failed", Fate.FINAL),  # a middleware of a borrowed session, say
)


@final
class _Headers(dict[str, str]):
    """Headers with the keys in the clear, for aiohttp; masked wherever they would be shown."""

    def __repr__(self) -> str:
        return f"<headers: {', '.join(self)}>"


@attrs.define(eq=False)
class _Attempt:
    """A request that is under way, and the way to cut it short.

    Attributes:
        task: Who waits for it.
        deadline: On the loop's clock.
        cancelling: How often the task had been asked to stop by others before.
        cut: Why it was cut short, if it was.
        sent: Whether it went out already.
        landed: Done when the attempt has ended, for who waits for that.
    """

    task: asyncio.Task[Any]
    deadline: float
    cancelling: int
    cut: DatadogError | None = None
    sent: bool = False
    landed: asyncio.Future[None] | None = None

    def stop(self, why: DatadogError) -> None:
        """End the attempt with an error."""
        if self.cut is None:
            self.cut = why
            self.task.cancel()

    def cancelled(self) -> bool:
        """Tell whether somebody else asked the task to stop."""
        asked = self.task.cancelling() if self.cut is None else self.task.uncancel()
        return asked > self.cancelling

    def leave(self) -> None:
        """Take note that the request goes out. It must not go out again, as aiohttp sends it over a lost connection.

        That would be a request that neither the quota's ledger nor the retry budget knows of; and of a token that the
        first one revoked, the second one would be told that there is none.

        Raises:
            ServerDisconnectedError: It went out before.
        """
        if self.sent:
            raise aiohttp.ServerDisconnectedError
        self.sent = True


@final
class _NoCookies(aiohttp.DummyCookieJar):
    """Keeps no cookies; but before each sending it is asked for some, and so sees our own session's requests leave.

    A middleware, as a borrowed session needs one, would see them as well, but costs a busy client a twentieth.
    """

    def __init__(self, attempts: Mapping[asyncio.Task[Any], _Attempt], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._attempts = attempts
        self._loop = loop
        self._none = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> SimpleCookie:  # noqa: ARG002 - the same for all
        """Return none, once for each attempt."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._attempts[task].leave()
        return self._none


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
        _check_session(session)
        self._base_url = base_url
        self._headers = {"Accept": "application/json", "User-Agent": _USER_AGENT}
        self._credentials = credentials
        self._session = session
        self._owns_session = session is None
        self._timeout = timeout
        self._connections = connections
        self._loop: asyncio.AbstractEventLoop | None = None
        self._options: dict[str, Any] = {}  # of each request
        self._attempts: dict[asyncio.Task[Any], _Attempt] = {}  # in the order in which they began: by deadline
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
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=_NoCookies(self._attempts, loop),
                headers=_Headers(self._headers | self._credentials.headers()),  # else merged anew with each request
                trust_env=False,
            )
        else:
            # aiohttp takes a request's own middlewares instead of its session's, and has no public way to name those.
            theirs = getattr(self._session, "_middlewares", ())
            middlewares = (_leaving(self._attempts), _keep_the_message, *theirs, _signing(self._credentials))
            self._options |= {"headers": self._headers, "middlewares": middlewares}

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
        attempt = self._begin()
        try:
            return await self._exchange(request)
        except asyncio.CancelledError as error:
            if attempt.cancelled():
                # Without the frames of aiohttp, which hold the headers: cancellation, too, ends up in tracebacks.
                raise error.with_traceback(None)  # noqa: B904 - it is the same one
            return self._give_up(attempt)
        except Exception as error:  # noqa: BLE001 - a borrowed session may raise anything, its frames full of headers
            return self._explain(error, attempt)
        finally:
            del self._attempts[attempt.task]
            if attempt.landed is not None:
                attempt.landed.set_result(None)

    async def landing(self, task: asyncio.Task[Any]) -> None:
        """Wait until a task has no attempt under way: the one that it makes, and those that follow without a pause."""
        while (attempt := self._attempts.get(task)) is not None:
            if attempt.landed is None:
                attempt.landed = asyncio.get_running_loop().create_future()
            await asyncio.wait([attempt.landed])

    def _begin(self) -> _Attempt:
        assert self._loop is not None
        task = asyncio.current_task(self._loop)
        assert task is not None
        deadline = self._loop.time() + self._timeout
        attempt = _Attempt(task, deadline, task.cancelling())
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

    async def _exchange(self, request: Request[Any]) -> Reply:
        assert self._session is not None
        options = self._options
        if request.body is not None:
            more: dict[str, Any] = {"data": request.body}
            more["headers"] = {**options.get("headers", {}), "Content-Type": "application/json"}
            options = options | more
        url = URL(self._base_url + request.path, encoded=True)
        async with self._session.request(request.operation.method, url, **options) as response:
            return Reply(response.status, response.headers, await _read(response), time.time())

    def _give_up(self, attempt: _Attempt) -> Failure:
        if attempt.cut is None:  # aiohttp cancels its own work, for example when a session is closed
            return self._explain(aiohttp.ClientConnectionError(), attempt)
        return Failure(attempt.cut, Fate.FINAL if isinstance(attempt.cut, ClientClosedError) else Fate.UNKNOWN)

    def _explain(self, error: Exception, attempt: _Attempt) -> Failure:
        if self._session is not None and self._session.closed:
            return Failure(ClientClosedError("the session was closed"), Fate.FINAL if attempt.sent else Fate.REFUSED)
        kind, text, fate = next(row for row in _FAILURES if isinstance(error, row[0]))
        text += _fault_of_certificate(error)
        cls = RequestTimeoutError if kind is TimeoutError else TransportError
        return Failure(cls(f"{text} ({type(error).__name__})"), fate)


def _expire(reference: weakref.ref[Transport]) -> None:
    """Ring for a transport. The timer does not keep it: one that was dropped open is to be complained of at once."""
    transport = reference()
    if transport is not None:
        transport.expire()


def _check_session(session: object) -> None:
    if session is None:
        return
    if not isinstance(session, aiohttp.ClientSession):
        msg = f"session must be an aiohttp.ClientSession, not {type(session).__name__}"
    elif session.closed:
        msg = "session must be an open aiohttp.ClientSession, not a closed one"
    elif not session.auto_decompress:
        msg = "session must decompress what it receives (auto_decompress=True)"
    else:
        return
    raise ConfigurationError(msg)


def _fault_of_certificate(error: Exception) -> str:
    """Say what is wrong with a certificate, in the TLS library's words, which quote nothing that the server sent."""
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else None
    reason = getattr(cause, "verify_message", "")
    return f": {reason}" if reason else ""


def _leaving(attempts: Mapping[asyncio.Task[Any], _Attempt]) -> aiohttp.ClientMiddlewareType:
    """Return what sees the requests of a borrowed session leave."""

    async def leave(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        task = asyncio.current_task()
        assert task is not None
        attempts[task].leave()
        return await handler(request)

    return leave


async def _keep_the_message(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Drop what a borrowed session's default headers say about the message itself: the message is ours."""
    headers, body = request.headers, request.body
    for name in _ABOUT_THE_MESSAGE:
        headers.popall(name, None)
    headers["Host"] = request.url.host_port_subcomponent or ""
    if body:
        headers.update({"Content-Type": "application/json", "Content-Length": str(body.size)})
    elif request.method != "GET":
        headers["Content-Length"] = "0"
    return await handler(request)


def _signing(credentials: Credentials) -> aiohttp.ClientMiddlewareType:
    """Return what signs the requests of a borrowed session, after all that it does to them itself.

    So they carry exactly our credentials, and not those that are meant for other hosts: of its default headers, `auth`,
    a `.netrc` file or its middlewares. Nor do its middlewares see ours.
    """
    ours = _Headers(credentials.headers())

    async def sign(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        for name in _CREDENTIALS:
            request.headers.popall(name, None)
        request.headers.update(ours)
        return await handler(request)

    return sign


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, as far as it may go: compressed, a few bytes can become gigabytes."""
    chunks: list[bytes] = []
    size = 0
    while not response.content.at_eof():
        chunk = await response.content.readany()
        size += len(chunk)
        if size > LARGEST_BODY:
            raise _TooLargeError
        chunks.append(chunk)
    return b"".join(chunks)
