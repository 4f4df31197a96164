"""A session of our own, and what makes one that is borrowed send exactly what ours would."""

from __future__ import annotations

import asyncio
import platform
from http.cookies import SimpleCookie
from typing import Any, final

import aiohttp
from yarl import URL

from dd_sa_tokens._version import __version__
from dd_sa_tokens.config import Credentials
from dd_sa_tokens.errors import ConfigurationError

from .attempt import Attempts

_CREDENTIALS = ("Authorization", "DD-API-KEY", "DD-APPLICATION-KEY")
_ABOUT_THE_MESSAGE = ("Content-Encoding", "Content-Length", "Content-Type", "Transfer-Encoding")
_USER_AGENT = f"dd-sa-tokens/{__version__} (Python/{platform.python_version()}; aiohttp/{aiohttp.__version__})"
_DESCRIBING = {"Accept": "application/json", "User-Agent": _USER_AGENT}


@final
class _Headers(dict[str, str]):
    """Headers with the keys in the clear, for aiohttp; masked wherever they would be shown."""

    def __repr__(self) -> str:
        return f"<headers: {', '.join(self)}>"


def check(session: object) -> None:
    """Refuse a session that cannot be borrowed.

    Raises:
        ConfigurationError: It is no aiohttp session, closed, or leaves bodies compressed.
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


def make(credentials: Credentials, attempts: Attempts, connections: int) -> aiohttp.ClientSession:
    """Make a session of our own, for the running loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=_NoCookies(attempts),
        headers=_Headers(_DESCRIBING | credentials.headers()),  # else merged anew with each request
        trust_env=False,
    )


def borrow(session: aiohttp.ClientSession, credentials: Credentials, attempts: Attempts) -> dict[str, Any]:
    """Return the options that each request over a borrowed session needs."""
    # aiohttp takes a request's own middlewares instead of its session's, and has no public way to name those.
    theirs = getattr(session, "_middlewares", ())
    middlewares = (_leaving(attempts), _keep_the_message, *theirs, _signing(credentials))
    return {"headers": _DESCRIBING, "middlewares": middlewares}


@final
class _NoCookies(aiohttp.DummyCookieJar):
    """Keeps no cookies; but before each sending it is asked for some, and so sees our own session's requests leave.

    A middleware, as a borrowed session needs one, would see them as well, but costs a busy client 4% of its speed.
    """

    def __init__(self, attempts: Attempts) -> None:
        super().__init__()
        self._attempts = attempts
        self._running_loop = asyncio.get_running_loop()
        self._none = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> SimpleCookie:  # noqa: ARG002 - the same for all
        """Return none, once for each attempt."""
        _leave(self._attempts, self._running_loop)
        return self._none


def _leave(attempts: Attempts, loop: asyncio.AbstractEventLoop) -> None:
    """Take note that the request of the running task goes out."""
    task = asyncio.current_task(loop)
    assert task is not None
    attempts[task].leave()


def _leaving(attempts: Attempts) -> aiohttp.ClientMiddlewareType:
    """Return what sees the requests of a borrowed session leave."""
    loop = asyncio.get_running_loop()

    async def leave(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        _leave(attempts, loop)
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
