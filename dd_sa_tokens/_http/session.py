"""A session of our own, and what makes a borrowed one send exactly what ours would."""

from __future__ import annotations

import platform
from collections.abc import Awaitable
from contextvars import ContextVar
from http.cookies import SimpleCookie
from typing import Any, final

import aiohttp
from multidict import istr
from yarl import URL

from dd_sa_tokens._credentials import Credentials
from dd_sa_tokens._version import __version__
from dd_sa_tokens.errors import ConfigurationError

from .exchange import Exchange
from .private import middlewares_of
from .proxy import address_of
from .settings import SessionSettings

_CREDENTIALS = ("Authorization", "DD-API-KEY", "DD-APPLICATION-KEY")
_BODY_HEADERS = ("Content-Encoding", "Content-Length", "Content-Type", "Transfer-Encoding")
_USER_AGENT = f"dd-sa-tokens/{__version__} (Python/{platform.python_version()}; aiohttp/{aiohttp.__version__})"
# What aiohttp can always decode. It would announce more where further libraries are installed, even those that it
# cannot use (brotli before 1.2).
COMMON_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": _USER_AGENT}
"""The headers that each request carries, besides the credentials."""

current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)
"""The exchange of the request that the running code sends, over a session of our own."""


@final
class _Headers(dict[str, str]):
    """Headers with the keys in clear text, for aiohttp; masked in every repr."""

    def __repr__(self) -> str:
        return f"<headers: {', '.join(self)}>"


def _signature_of(credentials: Credentials) -> _Headers:
    """Return the headers that sign a request, prepared once; they change in place when a function gives other keys."""
    signature = _Headers()

    def fill() -> None:
        signature.clear()
        signature.update({istr(name): value for name, value in credentials.headers().items()})

    credentials.follow(fill)
    return signature


def check(session: object) -> None:
    """Refuse a session that cannot be borrowed.

    Raises:
        ConfigurationError: It is no aiohttp session, is closed, or leaves bodies compressed.
    """
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


def make(credentials: Credentials, concurrency: int, settings: SessionSettings) -> aiohttp.ClientSession:
    """Make a session of our own, for the running loop."""
    return aiohttp.ClientSession(
        connector=_Connector(limit=concurrency, ssl=settings.ssl_context or True),
        cookie_jar=_NoCookies(),
        headers=COMMON_HEADERS,
        proxy=None if settings.proxy is None else settings.proxy.reveal(),
        request_class=_request_class(credentials),
        trust_env=False,  # it would read a `.netrc` file, too
    )


@final
class _NoCookies(aiohttp.DummyCookieJar):
    """Keeps no cookies. aiohttp's own makes a new empty collection for each request, which costs 3%."""

    def __init__(self) -> None:
        super().__init__()
        self._none = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> SimpleCookie:  # noqa: ARG002 - the same for all
        """Return none."""
        return self._none


class _Connector(aiohttp.TCPConnector):
    """Sees requests on their way to a connection."""

    def connect(self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        """Record that this exchange is tracked from here on."""
        exchange = current_exchange.get()
        if exchange is not None:
            exchange.refuse_repetition()
            exchange.tracked, exchange.proxy = True, address_of(req.proxy)
        return super().connect(req, traces, timeout)


def _request_class(credentials: Credentials) -> type[aiohttp.ClientRequest]:
    """Return a request class that adds the credentials when it sends, and records the sending.

    A middleware could do the same, but costs a busy client 4% of its speed, a `TraceConfig` 14%. In the session's
    default headers the keys would be merged anew into each request, and end up in recordings of a session.
    """
    signature = _signature_of(credentials)

    class SignedRequest(aiohttp.ClientRequest):
        def send(self, conn: Any) -> Any:
            exchange = current_exchange.get()
            if exchange is not None:
                exchange.mark_sent()
            self.headers.extend(signature)  # it has none of these yet
            return super().send(conn)

    return SignedRequest


class BorrowedSession:
    """What each request over a borrowed session needs besides its own options.

    Args:
        session: The session.
        credentials: What signs the requests.
    """

    def __init__(self, session: aiohttp.ClientSession, credentials: Credentials) -> None:
        self._session_middlewares = tuple(middlewares_of(session))
        self._signature = _signature_of(credentials)

    def middlewares(self, exchange: Exchange) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """Return the middlewares of one request: the session's own ones stay."""

        # This runs after everything the session does to a request, so the request carries our credentials only: none of
        # its default headers, `auth`, a `.netrc` file or its middlewares, which may be meant for other hosts. Its
        # middlewares do not see ours, either.
        def sign_and_watch(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> Awaitable[aiohttp.ClientResponse]:
            for name in _CREDENTIALS:
                request.headers.popall(name, None)
            request.headers.update(self._signature)
            exchange.tracked, exchange.proxy = True, address_of(request.proxy)
            _watch(request, exchange)
            return handler(request)

        def begin(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> Awaitable[aiohttp.ClientResponse]:
            exchange.refuse_repetition()
            _restore_body_headers(request)
            return handler(request)

        return (begin, *self._session_middlewares, sign_and_watch)


def _watch(request: aiohttp.ClientRequest, exchange: Exchange) -> None:
    """See the request leave: that is when aiohttp, holding a connection, calls its `send`."""
    send = request.send

    def watched(conn: Any) -> Any:
        exchange.mark_sent()
        return send(conn)

    request.send = watched  # type: ignore[method-assign] # of this one request only


def _restore_body_headers(request: aiohttp.ClientRequest) -> None:
    """Replace what a borrowed session's default headers say about the host and the body: both are ours."""
    headers, body = request.headers, request.body
    for name in _BODY_HEADERS:
        headers.popall(name, None)
    headers["Host"] = request.url.host_port_subcomponent or ""
    if body:
        headers.update({"Content-Type": "application/json", "Content-Length": str(body.size)})
    elif request.method != "GET":
        headers["Content-Length"] = "0"
