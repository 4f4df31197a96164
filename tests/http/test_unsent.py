"""A request that never left: it is known not to have happened, so it is repeated, a create too, and spends nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import aiohttp
import attrs
import pytest
import trustme
from aioresponses import aioresponses
from support.calls import CALLS, ONCE, Connect
from support.internals import in_flight, on_the_wire, replace_retry_sleep
from support.keys import ACCOUNT, CREATED_KEY, KEYS
from support.mocked import TOKENS
from support.obstacles import Obstruct, dropped_syns, full_executor, stalled_handshake, taken_connection
from support.payloads import rate_limit_headers, resource
from support.replies import any_answer, hang_up, reply, reset, stall
from support.servers import RawServer
from support.sessions import ReplacedSession
from support.waiting import HANG

from dd_sa_tokens import DatadogError, RequestTimeoutError, RetryPolicy, TokensClient, TransportError

pytestmark = pytest.mark.usefixtures("loop_errors")

TIMEOUT = 0.1
TRIES = 2
POLICY = RetryPolicy(max_attempts=TRIES, initial_backoff=0.001, max_backoff=0.002)


@attrs.frozen
class Way:
    """A way in which a request does not leave.

    Attributes:
        obstruct: Puts the obstacle there.
        borrowed: Whether the session is borrowed.
        tls: Whether the server speaks TLS.
        host: The host's name.
    """

    obstruct: Obstruct
    borrowed: bool
    tls: bool = False
    host: str = "127.0.0.1"


WAYS = {
    "SYNs dropped, own session": Way(dropped_syns, borrowed=False),
    "SYNs dropped, borrowed session": Way(dropped_syns, borrowed=True),
    "TLS stalls, own session": Way(stalled_handshake, borrowed=False, tls=True, host="localhost"),
    "TLS stalls, borrowed session": Way(stalled_handshake, borrowed=True, tls=True, host="localhost"),
    "no free connection, borrowed session": Way(taken_connection, borrowed=True),
    "DNS behind a full executor, own session": Way(full_executor, borrowed=False, host="localhost"),
    "DNS behind a full executor, borrowed session": Way(full_executor, borrowed=True, host="localhost"),
}
MENDABLE = {name: way for name, way in WAYS.items() if not (way.tls and not way.borrowed)}
"""Those that work once the obstacle is gone: a session of one's own does not trust the test's certificate."""


@attrs.frozen
class Scene:
    """A client, its server, and what is between them."""

    client: TokensClient
    server: RawServer
    put: Callable[[], Awaitable[None]]
    remove: Callable[[], Awaitable[None]]


@pytest.fixture
async def build(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[Way], Awaitable[Scene]]]:
    """Build a scene; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def build(way: Way) -> Scene:
            authority = trustme.CA()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(way.host).configure_cert(context)
            trusting = ssl.create_default_context()
            authority.configure_trust(trusting)
            server = RawServer()
            await server.start(context if way.tls else None, way.host)
            stack.push_async_callback(server.stop)
            session = None
            if way.borrowed:
                connector = aiohttp.TCPConnector(limit=1, ssl=trusting, use_dns_cache=False)
                session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            obstruct = partial(stalled_handshake, context=context) if way.tls else way.obstruct
            obstacle = await stack.enter_async_context(obstruct(server, session))
            url = f"{'https' if way.tls else 'http'}://{way.host}:{server.port}"
            client = TokensClient(base_url=url, session=session, timeout=TIMEOUT, retry=POLICY, **KEYS)
            await stack.enter_async_context(client)
            server.script(otherwise=any_answer())
            return Scene(client, server, obstacle.put, obstacle.remove)  # type: ignore[arg-type] # both are async

        yield build


EACH_CALL = ("SYNs dropped, own session", "no free connection, borrowed session")
"""The ways in which each operation is tried; in the others one that is repeated anyway, and one that is not."""


@pytest.mark.parametrize(
    ("way", "call"),
    [(name, call) for name in WAYS for call in CALLS if name in EACH_CALL or call in {"get", "create"}],
)
async def test_what_never_left_is_repeated_and_known_not_to_have_happened(
    build: Callable[[Way], Awaitable[Scene]], way: str, call: str
) -> None:
    """Each operation is tried as often as the policy says, and its error does not say that it may have been done."""
    scene = await build(WAYS[way])
    await scene.put()
    with pytest.raises(RequestTimeoutError) as caught:
        await CALLS[call](scene.client, ACCOUNT, "t1")
    assert caught.value.attempts == TRIES
    assert caught.value.outcome_unknown is False
    assert scene.server.requests == []
    assert (in_flight(scene.client), on_the_wire(scene.client)) == (0, 0)


@pytest.mark.parametrize("way", MENDABLE.values(), ids=list(MENDABLE))
async def test_a_create_that_never_left_is_made_once_it_can_leave(
    build: Callable[[Way], Awaitable[Scene]], monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """A create whose first attempt never left is sent once the obstacle is gone: one request, and its key."""
    scene = await build(way)
    await scene.put()

    async def sleep(_seconds: float) -> None:
        await scene.remove()

    replace_retry_sleep(monkeypatch, sleep)
    async with asyncio.timeout(HANG):
        created = await scene.client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert created.key.reveal() == CREATED_KEY
    assert [request.line.split()[0] for request in scene.server.requests] == ["POST"]
    assert scene.client.stats.retries == 1


SPENDING = {name: way for name, way in MENDABLE.items() if way.borrowed or way.obstruct is dropped_syns}


@pytest.mark.parametrize("way", SPENDING.values(), ids=list(SPENDING))
async def test_what_never_left_spends_no_rate_limit(build: Callable[[Way], Awaitable[Scene]], way: Way) -> None:
    """After two attempts that never left, as many requests are left of the window as before."""
    scene = await build(way)
    body = {"data": resource("new", key=CREATED_KEY)}
    scene.server.script(reply(201, body, rate_limit_headers(9, 5, 3000, 3600), Connection="close"))
    async with asyncio.timeout(HANG):
        await scene.client.create_token(ACCOUNT, name="n", scopes=["a"])
    await scene.put()
    with pytest.raises(RequestTimeoutError):
        await scene.client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert scene.client.rate_limit is not None
    assert scene.client.rate_limit.remaining == 5


# What left, or may have left


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("act", [stall(), hang_up(), reset(), stall(b"HTTP/1.1 201 OK\r\n")])
async def test_a_create_that_left_is_not_repeated(
    server: RawServer, connect: Connect, act: Any, borrowed: bool
) -> None:
    """A create that was seen leaving is sent once, and may have been carried out."""
    server.script(otherwise=act)
    async with aiohttp.ClientSession() as session:
        client = connect(session=session if borrowed else None, timeout=TIMEOUT, retry=POLICY)
        with pytest.raises(TransportError) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is True
    assert caught.value.attempts == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_create_on_a_connection_that_was_lost_meanwhile_is_not_repeated(
    server: RawServer, connect: Connect, borrowed: bool
) -> None:
    """A create that left over a kept connection, which the server then closed without an answer, is sent once."""
    server.script(reply(), hang_up(), otherwise=any_answer())
    async with aiohttp.ClientSession() as session:
        client = connect(session=session if borrowed else None, retry=POLICY)
        await client.get_token(ACCOUNT, "t1")
        with pytest.raises(TransportError) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is True
    assert len(server.requests) == 2


@pytest.mark.parametrize("error", [None, TimeoutError(), aiohttp.ClientError("x"), OSError("x"), ValueError("x")])
async def test_a_create_that_nothing_saw_counts_as_left(connect: Connect, error: Exception | None) -> None:
    """Over a session that shows nothing, a create that fails is sent once, and may have been carried out."""
    async with ReplacedSession(error) as session:
        client = connect(session=session, timeout=TIMEOUT, retry=POLICY)
        with pytest.raises(TransportError) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is True
    assert session.calls == 1


@pytest.mark.parametrize("error", [TimeoutError(), aiohttp.ClientError("x"), aiohttp.ServerDisconnectedError()])
async def test_a_create_that_a_mock_fails_counts_as_left(mocked: aioresponses, error: Exception) -> None:
    """A mock in place of a session of one's own shows nothing either."""
    mocked.post(f"https://api.datadoghq.com{TOKENS}", exception=error, repeat=True)
    async with TokensClient(retry=POLICY, **KEYS) as client:
        with pytest.raises(TransportError) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is True
    assert caught.value.attempts == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_create_in_a_middleware_that_hangs(server: RawServer, connect: Connect, when: str) -> None:
    """A middleware of a borrowed session that hangs may have sent the request in its own way: it counts as left."""

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if when == "after":
            await handler(request)
        await asyncio.Event().wait()
        raise AssertionError

    server.script(otherwise=any_answer())
    async with aiohttp.ClientSession(middlewares=[middleware]) as session:
        client = connect(session=session, timeout=TIMEOUT, retry=POLICY)
        with pytest.raises(RequestTimeoutError) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is True
    assert len(server.requests) == (when == "after")


async def test_a_create_through_a_middleware_that_repeats_leaves_once(server: RawServer, connect: Connect) -> None:
    """A middleware that sends a request again after a 503 is refused its second sending."""
    server.script(reply(503), otherwise=any_answer())

    async def repeat(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status == 503:
            response.release()
            return await handler(request)
        return response

    async with aiohttp.ClientSession(middlewares=[repeat]) as session:
        with pytest.raises(DatadogError) as caught:
            await connect(session=session, retry=POLICY).create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is True
    assert len(server.requests) == 1


async def test_a_create_behind_a_proxy_that_does_not_open_its_tunnel(server: RawServer, connect: Connect) -> None:
    """What a proxy gets is the request for a tunnel, and not the create: it is known not to have happened."""
    server.script(otherwise=stall())
    async with aiohttp.ClientSession(proxy=server.url) as session:
        client = connect(base_url="https://localhost:1", session=session, timeout=TIMEOUT, retry=ONCE)
        with pytest.raises(RequestTimeoutError) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is False
    assert [request.line.split()[0] for request in server.requests] == ["CONNECT"]
