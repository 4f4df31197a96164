"""Lent sessions whose owner has code of their own in them: it may use the client, send elsewhere, and fail."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest
from support.calls import CALLS, FAST, ONCE, Connect
from support.cancelling import check_nothing_left
from support.keys import ACCOUNT, API_KEY, CREATED_KEY, leaks, remains
from support.replies import any_answer, stall
from support.servers import RawServer
from support.sessions import OtherTaskSession, ReplacedSession
from support.waiting import HANG

from dd_sa_tokens import RequestTimeoutError, TokensClient, TransportError

pytestmark = pytest.mark.usefixtures("loop_errors")


class Nested:
    """A middleware and a trace callback that call the client again, from within a request of it."""

    def __init__(self) -> None:
        self.client: TokensClient | None = None
        self.ids: list[str] = []
        self._inside = False

    async def call(self) -> None:
        """Call the client, unless this is its own request."""
        if self._inside or self.client is None:
            return
        self._inside = True
        self.ids.append((await self.client.get_token(ACCOUNT, "inner")).id)
        self._inside = False

    async def middleware(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await self.call()
        response = await handler(request)
        await self.call()
        return response

    def trace(self, moment: str) -> aiohttp.TraceConfig:
        async def callback(_session: Any, _context: Any, _params: Any) -> None:
            await self.call()

        config = aiohttp.TraceConfig()
        getattr(config, moment).append(callback)
        return config


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "place", ["middleware", "on_request_start", "on_request_headers_sent", "on_request_end", "on_connection_create_end"]
)
async def test_code_of_a_borrowed_session_may_call_the_client(
    server: RawServer, connect: Connect, place: str, call: str
) -> None:
    """Wherever it calls the client from, both calls have their answers."""
    server.script(otherwise=any_answer())
    nested = Nested()
    options: dict[str, Any] = {"middlewares": [nested.middleware]}
    if place != "middleware":
        options = {"trace_configs": [nested.trace(place)]}
    async with aiohttp.ClientSession(**options) as session:
        client = connect(session=session)
        expected = await CALLS[call](client, ACCOUNT, "t1")
        nested.client = client
        async with asyncio.timeout(HANG):
            value = await CALLS[call](client, ACCOUNT, "t1")
        assert type(value) is type(expected)
        if place != "on_connection_create_end":  # the connection is kept
            assert set(nested.ids) == {"inner"}
        check_nothing_left(client)


async def test_a_nested_call_that_hangs_ends_with_the_outer_one(server: RawServer, connect: Connect) -> None:
    """If the call inside of a middleware hangs, the timeout ends both, and a create in it was not sent."""
    nested = Nested()
    server.script(otherwise=stall())
    async with aiohttp.ClientSession(middlewares=[nested.middleware]) as session:
        client = nested.client = connect(session=session, timeout=0.1, retry=ONCE)
        async with asyncio.timeout(HANG):
            with pytest.raises(RequestTimeoutError):
                await client.get_token(ACCOUNT, "t1")
        check_nothing_left(client)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr] # a test has a task


async def test_a_nested_call_of_a_client_with_one_place_ends(server: RawServer, connect: Connect) -> None:
    """With `concurrency=1` the inner call would wait for the outer one: the outer one's timeout ends it."""
    nested = Nested()
    server.script(otherwise=any_answer())
    async with aiohttp.ClientSession(middlewares=[nested.middleware]) as session:
        client = nested.client = connect(session=session, timeout=0.1, retry=ONCE, concurrency=1)
        async with asyncio.timeout(HANG):
            with pytest.raises(RequestTimeoutError):
                await client.get_token(ACCOUNT, "t1")
        check_nothing_left(client)


@pytest.mark.parametrize("call", CALLS)
async def test_a_session_that_sends_from_another_task(server: RawServer, connect: Connect, call: str) -> None:
    """A subclass that makes a task for each request works for each call, many at a time."""
    server.script(otherwise=any_answer())
    async with OtherTaskSession() as session:
        client = connect(session=session)
        values = await asyncio.gather(*(CALLS[call](client, ACCOUNT, "t1") for _ in range(20)))
        assert len(values) == 20
        check_nothing_left(client)


@pytest.mark.parametrize("borrowed", ["plain", "other task"])
async def test_a_timeout_of_a_session_that_sends_from_another_task(
    server: RawServer, connect: Connect, borrowed: str
) -> None:
    """The timeout ends a call whose request another task sends; it was seen leaving."""
    server.script(otherwise=stall())
    async with OtherTaskSession() if borrowed == "other task" else aiohttp.ClientSession() as session:
        client = connect(session=session, timeout=0.1, retry=FAST)
        with pytest.raises(RequestTimeoutError) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is True
    assert len(server.requests) == 1


# What it raises


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def _helper(error: Exception) -> None:
    secret_value = CREATED_KEY
    assert secret_value
    raise error


ERRORS: dict[str, tuple[Exception, str]] = {
    "a TypeError": (TypeError("'NoneType' object is not callable"), "'NoneType' object is not callable"),
    "one that quotes a key": (ValueError(f"bad header {API_KEY}"), r"bad header \*{10}"),
    "one that quotes a key late": (ValueError("x" * 190 + API_KEY), r"x{190}"),
    "one that is long": (ValueError("y" * 5000), "y{100}"),
    "one of several lines": (KeyError("a\nb"), r"a\\nb|a b"),
    "one without words": (ZeroDivisionError(), "ZeroDivisionError"),
    "one that has no str": (SilentError(), "SilentError"),
    "an ExceptionGroup": (ExceptionGroup("both failed", [ValueError("x")]), "both failed"),
}


@pytest.mark.parametrize("place", ["middleware", "trace", "connector", "mock"])
@pytest.mark.parametrize(("error", "words"), ERRORS.values(), ids=list(ERRORS))
async def test_what_code_of_a_borrowed_session_raises_is_told(
    server: RawServer, connect: Connect, place: str, error: Exception, words: str
) -> None:
    """The error has the masked message, and the file and line where it was raised; values of no frame."""

    async def middleware(request: Any, handler: Any) -> Any:
        _helper(error)

    async def callback(_session: Any, _context: Any, _params: Any) -> None:
        _helper(error)

    class Connector(aiohttp.TCPConnector):
        async def connect(self, *_args: Any, **_options: Any) -> Any:
            _helper(error)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(callback)
    if place == "mock":
        session: aiohttp.ClientSession = ReplacedSession(error)
    elif place == "connector":
        session = aiohttp.ClientSession(connector=Connector())
    else:
        options: dict[str, Any] = {"middleware": {"middlewares": [middleware]}, "trace": {"trace_configs": [trace]}}
        session = aiohttp.ClientSession(**options[place])
    async with session:
        with pytest.raises(TransportError) as caught:
            await connect(session=session).get_token(ACCOUNT, "t1")
    text = str(caught.value)
    assert re.search(words, text)
    assert re.search(rf"{'sessions' if place == 'mock' else 'test_borrowed_sessions'}\.py:\d+", text)
    assert len(text) < 900
    for where, left in remains(caught.value):
        assert leaks(left) == [], where
