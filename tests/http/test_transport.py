"""One attempt over real sockets: what arrives there, and what becomes of everything that can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import ssl
import time
import tracemalloc
from typing import Any

import aiohttp
import pytest
import trustme
from support.calls import FAST, ONCE, Connect
from support.internals import expire_attempts, in_flight
from support.keys import ACCOUNT, API_KEY, APP_KEY, KEYS
from support.payloads import resource
from support.replies import Responder, bomb, drip, endless, hang_up, head, later, raw, reply, reset, stall
from support.servers import RawServer, StartServer
from support.waiting import HANG

from dd_sa_tokens import (
    APIError,
    ClientClosedError,
    ConfigurationError,
    DatadogError,
    InvalidResponseError,
    RequestTimeoutError,
    TokensClient,
    TransportError,
)

MEBIBYTE = 1024 * 1024
BODY = json.dumps({"data": resource("t1")}).encode()
WHOLE = head(200, {"Content-Length": str(len(BODY))}) + BODY


async def failure(client: TokensClient, kind: type[DatadogError] = TransportError) -> DatadogError:
    """Return the error of a call that has to fail, once it is sure that nothing of aiohttp travels along."""
    with pytest.raises(kind) as caught:
        await client.get_token(ACCOUNT, "t1")
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not hasattr(error, "__notes__")
    files = [str(entry.path) for entry in caught.traceback]
    assert not [path for path in files if "/aiohttp/" in path or "/_transport/" in path]
    assert (error.operation, error.service_account_id, error.token_id) == ("get_token", ACCOUNT, "t1")
    return error


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
async def test_a_redirect_is_not_followed(
    server: RawServer, start_server: StartServer, connect: Connect, status: int
) -> None:
    """A redirect is an error, sent once; the other host hears nothing, and so gets no keys."""
    elsewhere = await start_server()
    server.script(reply(status, b"", Location=f"{elsewhere.url}/api/v2/x"))
    error = await failure(connect())
    assert "redirect" in str(error)
    assert len(server.requests) == 1
    assert elsewhere.connections == 0


@pytest.mark.parametrize("borrowed", [False, True])
async def test_the_keys_go_to_the_server_and_nowhere_else(server: RawServer, connect: Connect, borrowed: bool) -> None:
    """The raw request holds the keys, the path, and no cookie that an earlier answer set in a session of our own."""
    server.script(reply(Set_Cookie="a=b; Path=/"))
    async with aiohttp.ClientSession() as session:
        client = connect(session=session) if borrowed else connect()
        await client.get_token(ACCOUNT, "t1")
        await client.get_token(ACCOUNT, "t1")
    for request in server.requests:
        assert request.line == f"GET /api/v2/service_accounts/{ACCOUNT}/access_tokens/t1 HTTP/1.1"
        assert request.headers["dd-api-key"] == API_KEY
        assert request.headers["dd-application-key"] == APP_KEY
        assert "authorization" not in request.headers
        assert "cookie" not in request.headers


@pytest.mark.parametrize("as_error", [False, True])
@pytest.mark.parametrize("kind", ["gzip bomb", "endless", "endless chunks", "declared"])
async def test_a_body_that_is_too_large_is_refused_while_it_is_read(
    server: RawServer, connect: Connect, kind: str, as_error: bool
) -> None:
    """A body of more than 10 MiB after decompression is refused while it is read, at any status; memory stays low."""
    status = 400 if as_error else 200
    chunk = bytes(64 * 1024)
    acts: dict[str, Responder] = {
        "gzip bomb": raw(head(status, {"Content-Encoding": "gzip", "Content-Length": str(len(bomb()))}) + bomb()),
        "endless": endless(head(status, {"Connection": "close"}), chunk),
        "endless chunks": endless(head(status, {"Transfer-Encoding": "chunked"}), b"10000\r\n" + chunk + b"\r\n"),
        "declared": endless(head(status, {"Content-Length": str(2**40)}), chunk),
    }
    server.script(otherwise=acts[kind])
    client = connect()
    gc.collect()
    tracemalloc.start()
    try:
        error = await failure(client)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "10 MiB" in str(error)
    assert peak < 24 * MEBIBYTE
    assert len(server.requests) == 1
    await server.emptied()


async def test_a_large_body_within_the_cap_is_read(server: RawServer, connect: Connect) -> None:
    """Nine compressed megabytes are no reason to refuse an answer."""
    document = {"data": resource("t1", name="x" * 9 * MEBIBYTE)}
    body = gzip.compress(json.dumps(document).encode(), compresslevel=1)
    server.script(reply(200, body, Content_Encoding="gzip"))
    token = await connect().get_token(ACCOUNT, "t1")
    assert len(token.name or "") == 9 * MEBIBYTE


async def test_a_session_that_does_not_decompress_is_an_error(server: RawServer, connect: Connect) -> None:
    """A borrowed session that does not decompress is refused at once: no answer would be readable."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        with pytest.raises(ConfigurationError, match="decompress"):
            connect(session=session)
    assert server.requests == []


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (hang_up(), "without an answer"),
        (reset(), ""),
        (raw(WHOLE[:9]), ""),
        (raw(WHOLE[:25]), ""),
        (reset(WHOLE[:25]), ""),
        (raw(WHOLE[:-1]), "cut short"),
        (raw(WHOLE[: -len(BODY)]), "cut short"),
        (reset(WHOLE[:-9]), ""),
        (raw(head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\n{"), "cut short"),
        (raw(head(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\n{"), ""),
        (raw(head(200, {"Content-Encoding": "gzip", "Content-Length": "9"}) + b"not gzip!"), "garbled"),
        (raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "not valid HTTP"),
        (raw(b"HTTP/1.1 two hundred OK\r\n\r\n"), "not valid HTTP"),
        (raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ""),
        (raw(b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n"), "not valid HTTP"),
        (raw(head(200, {"Content-Length": "-5"})), "not valid HTTP"),
        (endless(b"HTTP/1.1 200 OK\r\nX-Endless: ", bytes(b"a" * 4096)), "not valid HTTP"),
        (endless(b"HTTP/1.1 200 ", bytes(b"a" * 4096)), "not valid HTTP"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X-Another: " + b"a" * 4000 + b"\r\n"), ""),
    ],
    ids=[
        "hang up",
        "reset",
        "cut in the status line",
        "cut in the headers",
        "reset in the headers",
        "cut in the body",
        "cut before the body",
        "reset in the body",
        "cut in a chunk",
        "bad chunk",
        "bad gzip",
        "another protocol",
        "bad status",
        "binary",
        "bad header",
        "bad length",
        "endless header line",
        "endless status line",
        "endless headers",
    ],
)
async def test_no_usable_answer(server: RawServer, connect: Connect, act: Responder, says: str) -> None:
    """Each kind of broken answer is a `TransportError`, and the client still works."""
    client = connect(retry=ONCE, timeout=3)
    server.script(otherwise=act)  # not once: aiohttp itself asks again where a connection was lost
    error = await failure(client)
    assert not isinstance(error, RequestTimeoutError)
    assert says in str(error)
    assert error.attempts == 1
    await server.emptied()
    server.script(otherwise=reply())
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"


async def test_a_refused_connection(connect: Connect, start_server: StartServer) -> None:
    """When the connection is refused, the error says that there was no connection."""
    gone = await start_server()
    await gone.stop()
    error = await failure(connect(base_url=gone.url, retry=ONCE))
    assert "no connection" in str(error)


@pytest.mark.parametrize(
    "act",
    [
        stall(),
        stall(WHOLE[:25]),
        stall(WHOLE[:-9]),
        drip(WHOLE, 0.01),
        drip(head(200, {"Content-Length": "500"}) + b" " * 500, 0.01),
    ],
    ids=["no answer", "half the headers", "half the body", "everything slowly", "body slowly"],
)
async def test_the_timeout_covers_the_whole_answer(server: RawServer, connect: Connect, act: Responder) -> None:
    """An answer that is not there in time, to its last byte, is a `RequestTimeoutError`, a `TimeoutError` as well."""
    server.script(act)
    client = connect(retry=ONCE, timeout=0.1)
    begun = time.monotonic()
    error = await failure(client, RequestTimeoutError)
    assert 0.09 < time.monotonic() - begun < 2
    assert isinstance(error, TimeoutError)
    assert isinstance(error, TransportError)
    assert "0.1 s" in str(error)
    assert asyncio.current_task().cancelling() == 0
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"


async def test_the_timeout_covers_connecting(server: RawServer, connect: Connect) -> None:
    """A TLS handshake that is never answered ends in time, too."""
    server.silent = True
    client = connect(base_url=server.url.replace("http:", "https:"), retry=ONCE, timeout=0.1)
    begun = time.monotonic()
    await failure(client, RequestTimeoutError)
    assert time.monotonic() - begun < 2


async def test_a_timeout_of_one_attempt_is_not_one_of_the_next(server: RawServer, connect: Connect) -> None:
    """Each attempt has the whole time, so a slow first one leaves the second its share."""
    server.script(stall(), drip(WHOLE[:10], 0.005))
    client = connect(timeout=0.15, retry=FAST)
    server.script(reply())
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert client.stats.requests == 3


async def test_many_attempts_share_one_timer(
    server: RawServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred requests set a timer for each `timeout` that passes, and those that stall all time out by it.

    The loop's clock stands still while those that stall arrive, so they end together on any machine.
    """
    loop = asyncio.get_running_loop()
    timeout = 0.3
    client = connect(timeout=timeout, retry=ONCE)
    await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(60)], strategy="get")
    timers: list[Any] = []
    call_at = loop.call_at

    def counting(when: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        if "dd_sa_tokens" in getattr(callback, "__module__", ""):
            timers.append(callback)
        return call_at(when, callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", counting)
    begun = loop.time()
    await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(200)], strategy="get")
    assert len(timers) <= 2 + (loop.time() - begun) / timeout
    server.script(otherwise=stall())
    moment, before = loop.time(), len(timers)
    monkeypatch.setattr(loop, "time", lambda: moment)
    fetch = asyncio.create_task(client.get_tokens(ACCOUNT, [f"t{number}" for number in range(40)], strategy="get"))
    await server.arrival(len(server.requests) + 40)
    while not fetch.done():
        moment += 0.01
        await asyncio.sleep(0)
    result = fetch.result()
    assert len(timers) - before <= 3  # one for the deadline, and for the moment that is given in addition
    assert {type(error) for error in result.errors.values()} == {RequestTimeoutError}
    assert len(result.errors) == 40
    assert len({id(error) for error in result.errors.values()}) == 40


async def test_the_timeout_is_each_attempt_s_own(server: RawServer, connect: Connect) -> None:
    """With one timer for all, a request that began later still has its own deadline."""
    server.script(reply(), otherwise=stall())
    client = connect(timeout=0.2, retry=ONCE)
    await client.get_token(ACCOUNT, "t1")  # opens the rate limiter

    async def seconds(delay: float) -> float:
        await asyncio.sleep(delay)
        begun = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            await client.get_token(ACCOUNT, "t1")
        return time.monotonic() - begun

    for took in await asyncio.gather(seconds(0), seconds(0.05), seconds(0.1)):
        assert 0.19 < took < 2


async def test_the_user_s_cancellation_wins_over_a_timeout(server: RawServer, connect: Connect) -> None:
    """A call that is cancelled at the very moment when its time is up ends cancelled."""
    server.script(otherwise=stall())
    client = connect(timeout=30)
    for first in ("cancel", "expire"):
        task = asyncio.create_task(client.get_token(ACCOUNT, "t1"))
        await server.arrival(len(server.requests) + 1)
        if first == "cancel":
            task.cancel()
        expire_attempts(client)
        if first == "expire":
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
    assert in_flight(client) == 0


async def test_asyncio_timeout_around_a_call_works(server: RawServer, connect: Connect) -> None:
    """The user's own `asyncio.timeout` ends a call as it ends anything, and the client goes on."""
    server.script(stall())
    client = connect()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await client.get_token(ACCOUNT, "t1")
    assert not isinstance(caught.value, DatadogError)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    await server.arrival(2)
    assert in_flight(client) == 0


@pytest.mark.parametrize("moment", ["pool", "handshake", "answer", "body"])
async def test_a_cancelled_call_leaves_no_connection_behind(server: RawServer, connect: Connect, moment: str) -> None:
    """A call that is cancelled gives up its connection, wherever it was, and the client is as good as new."""
    options: dict[str, Any] = {}
    if moment == "handshake":
        server.silent = True
        options["base_url"] = server.url.replace("http:", "https:")
    server.script(otherwise=stall(WHOLE[:-9]) if moment == "body" else stall())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        client = connect(session=session, **options)
        tasks = [asyncio.create_task(client.get_token(ACCOUNT, "t1")) for _ in range(2 if moment == "pool" else 1)]
        while not server.open:  # noqa: ASYNC110 - a set has no event
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        for task in reversed(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert in_flight(client) == 0
        if moment != "handshake":
            await server.emptied()
            server.script(otherwise=reply())
            assert (await client.get_token(ACCOUNT, "t1")).id == "t1"


def _authority() -> tuple[trustme.CA, ssl.SSLContext]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return authority, context


async def test_an_untrusted_certificate_is_refused(start_server: StartServer, connect: Connect) -> None:
    """An untrusted certificate is an error that says so, and no request is sent."""
    _, context = _authority()
    server = await start_server(context, "localhost")
    error = await failure(connect(base_url=server.url, retry=ONCE))
    assert "certificate" in str(error)
    assert server.requests == []


async def test_a_certificate_of_another_host_is_refused(start_server: StartServer, connect: Connect) -> None:
    """A trusted certificate that is not the host's own is refused as well."""
    authority, context = _authority()
    server = await start_server(context, "127.0.0.1")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
        error = await failure(connect(base_url=server.url, retry=ONCE, session=session))
        assert "certificate" in str(error)
        assert server.requests == []
        await asyncio.sleep(0.01)


async def test_a_trusted_certificate_is_accepted(start_server: StartServer, connect: Connect) -> None:
    """Over a borrowed session that trusts the authority, TLS works."""
    authority, context = _authority()
    server = await start_server(context, "localhost")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
        client = connect(base_url=server.url, retry=ONCE, session=session)
        assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    await server.emptied()


async def test_https_spoken_to_a_plain_server(server: RawServer, connect: Connect) -> None:
    """A server that does not speak TLS is an error about TLS."""

    server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    error = await failure(connect(base_url=server.url.replace("http:", "https:"), retry=ONCE))
    assert "TLS" in str(error)
    assert server.requests == []


@pytest.mark.parametrize(
    ("token_id", "segment"),
    [
        ("../x", "..%2Fx"),
        ("../../../v1/validate", "..%2F..%2F..%2Fv1%2Fvalidate"),
        ("a/b", "a%2Fb"),
        ("a\\b", "a%5Cb"),
        ("?", "%3F"),
        ("a?page[size]=1", "a%3Fpage%5Bsize%5D%3D1"),
        ("#", "%23"),
        ("%2F", "%252F"),
        ("%2e%2e", "%252e%252e"),
        ("...", "..."),
        (".x", ".x"),
        (" a b ", "%20a%20b%20"),
        ("a+b", "a%2Bb"),
        ("a;b", "a%3Bb"),
        ("a@b:80", "a%40b%3A80"),
        ("ключ", "%D0%BA%D0%BB%D1%8E%D1%87"),
        ("e\u0301", "e%CC%81"),
        ("😀", "%F0%9F%98%80"),
        ("~-_.", "~-_."),
        ("\u2028", "%E2%80%A8"),
        ("x" * 256, "x" * 256),
    ],
)
async def test_an_id_is_one_segment_of_the_path(
    server: RawServer, connect: Connect, token_id: str, segment: str
) -> None:
    """Any character of either ID reaches the server inside its own segment of the raw request line."""
    client = connect()
    assert (await client.get_token(ACCOUNT, token_id)).id == token_id
    await client.get_token(token_id, "t1")
    prefix = "/api/v2/service_accounts"
    assert [request.line for request in server.requests] == [
        f"GET {prefix}/{ACCOUNT}/access_tokens/{segment} HTTP/1.1",
        f"GET {prefix}/{segment}/access_tokens/t1 HTTP/1.1",
    ]


async def test_a_base_url_s_path_comes_first(server: RawServer, connect: Connect) -> None:
    """A proxy's path is kept in front of the API's, whether there is a query or not."""
    client = connect(base_url=f"{server.url}/datadog/eu/")
    tokens = f"/datadog/eu/api/v2/service_accounts/{ACCOUNT}/access_tokens"
    await client.get_token(ACCOUNT, "a/b")
    server.script(reply(body={"data": []}))
    assert [token async for token in client.list_tokens(ACCOUNT, filter="a b/?&#%é", sort="-name", page_size=7)] == []
    assert [request.target for request in server.requests] == [
        f"{tokens}/a%2Fb",
        f"{tokens}?page%5Bsize%5D=7&page%5Bnumber%5D=0&sort=-name&filter=a%20b%2F%3F%26%23%25%C3%A9",
    ]


async def test_connections_are_reused(server: RawServer, connect: Connect) -> None:
    """Requests one after the other share a connection; errors do not cost one, since their bodies are read."""
    client = connect(retry=ONCE)
    for status in (200, 404, 403, 500, 200):
        server.script(reply(status))
        expected = contextlib.nullcontext() if status == 200 else pytest.raises(APIError)
        with expected:
            await client.get_token(ACCOUNT, "t1")
    assert len(server.requests) == 5
    assert server.connections == 1


async def test_no_more_connections_than_concurrency(server: RawServer, connect: Connect) -> None:
    """A bulk fetch opens at most `concurrency` connections and uses them all again."""
    client = connect(concurrency=4)
    result = await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(40)], strategy="get")
    assert len(result.tokens) == 40
    assert server.connections <= 4


async def test_more_concurrency_than_aiohttp_has_by_default(server: RawServer, connect: Connect) -> None:
    """`concurrency` above aiohttp's hundred connections is really had."""
    everybody = asyncio.Event()
    server.script(reply(), otherwise=later(everybody, reply()))
    client = connect(concurrency=120)
    await client.get_token(ACCOUNT, "first")
    calls = asyncio.gather(*(client.get_token(ACCOUNT, f"t{number}") for number in range(120)))
    await server.arrival(121)
    everybody.set()
    assert len(await calls) == 120


async def test_closing_the_client_closes_its_connections(server: RawServer) -> None:
    """After `close` the server sees no open connection of a session that was the client's own."""
    async with TokensClient(base_url=server.url, **KEYS) as client:
        await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(10)])
        assert server.open
    await server.emptied()


async def test_a_borrowed_session_s_settings(server: RawServer, connect: Connect) -> None:
    """A session's raise_for_status, timeout and headers do not disturb: ours win, its own headers go along."""
    headers = {"DD-API-KEY": "theirs", "Accept": "text/html", "User-Agent": "theirs", "X-Tenant": "blue"}
    timeout = aiohttp.ClientTimeout(total=0.01)
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True, timeout=timeout) as session:
        client = connect(session=session, retry=ONCE)
        server.script(drip(WHOLE, 0.005, 64), reply(404))
        assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
        with pytest.raises(DatadogError) as caught:
            await client.get_token(ACCOUNT, "t1")
        assert getattr(caught.value, "status", None) == 404
        await client.close()
        assert not session.closed
    received = server.requests[0].headers
    assert received["dd-api-key"] == API_KEY
    assert received["accept"] == "application/json"
    assert received["user-agent"].startswith("dd-sa-tokens/")
    assert received["x-tenant"] == "blue"


async def test_a_borrowed_session_s_middlewares_and_traces_run(server: RawServer, connect: Connect) -> None:
    """What the caller hung on the session sees each request, so telemetry keeps working."""
    seen: list[str] = []

    async def middleware(request: aiohttp.ClientRequest, handler: Any) -> Any:
        seen.append(f"middleware {request.method}")
        return await handler(request)

    async def on_end(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        seen.append(f"trace {params.response.status}")

    traces = aiohttp.TraceConfig()
    traces.on_request_end.append(on_end)
    async with aiohttp.ClientSession(trace_configs=[traces], middlewares=[middleware]) as session:
        await connect(session=session).get_token(ACCOUNT, "t1")
    assert seen == ["middleware GET", "trace 200"]
    assert len(server.requests) == 1


async def test_an_answer_that_has_no_end_gives_its_connection_up(server: RawServer, connect: Connect) -> None:
    """An answer that switches protocols frees its connection, even while a reference to the answer is kept."""
    kept: list[aiohttp.ClientResponse] = []

    async def keep(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        kept.append(await handler(request))
        return kept[-1]

    server.script(stall(head(101, {"Connection": "upgrade", "Upgrade": "websocket"})))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), middlewares=[keep]) as session:
        client = connect(session=session)
        assert "the server answered 101" in str(await failure(client))
        async with asyncio.timeout(HANG):
            assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert [response.status for response in kept] == [101, 200]


@pytest.mark.parametrize("error", [ZeroDivisionError("their own"), RuntimeError("canary"), KeyError("x")])
async def test_a_middleware_that_fails(server: RawServer, connect: Connect, error: Exception) -> None:
    """A failure of the caller's own middleware is a `TransportError` that names it, and is not repeated."""

    async def middleware(_request: Any, _handler: Any) -> Any:
        raise error

    async with aiohttp.ClientSession(middlewares=[middleware]) as session:
        client = connect(session=session)
        raised = await failure(client)
        assert type(error).__name__ in str(raised)
        assert raised.attempts == 1
    assert server.requests == []


@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_session_that_its_owner_closed(server: RawServer, connect: Connect, in_flight: bool) -> None:
    """When the borrowed session is closed, before or during a call, the call ends with `ClientClosedError`."""
    server.script(otherwise=stall())
    session = aiohttp.ClientSession()
    client = connect(session=session)
    task = asyncio.create_task(failure(client, ClientClosedError))
    if in_flight:
        await server.arrival()
    await session.close()
    error = await asyncio.wait_for(task, 2)
    assert "session" in str(error)
    assert len(server.requests) == in_flight


@pytest.mark.parametrize("moment", ["answer", "body", "handshake", "queue"])
async def test_closing_the_client_ends_its_calls(server: RawServer, moment: str) -> None:
    """`close` ends calls under way with `ClientClosedError`, wherever they are, and leaves no connection."""
    server.script(otherwise=stall(WHOLE[:-9]) if moment == "body" else stall())
    server.silent = moment == "handshake"
    url = server.url.replace("http:", "https:") if server.silent else server.url
    client = TokensClient(base_url=url, concurrency=1, **KEYS)
    tasks = [asyncio.create_task(failure(client, ClientClosedError)) for _ in range(3 if moment == "queue" else 1)]
    while not server.open:  # noqa: ASYNC110 - a set has no event
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    await client.close()
    errors = await asyncio.wait_for(asyncio.gather(*tasks), 2)
    assert all("closed" in str(error) for error in errors)
    assert all(task.cancelling() == 0 for task in tasks)
    assert len({id(error) for error in errors}) == len(errors)
    if not server.silent:
        await server.emptied()


async def test_closing_the_client_ends_its_bulk_calls(server: RawServer) -> None:
    """A bulk fetch that is under way when the client closes has a result for each position nevertheless."""
    server.script(reply(), reply(), otherwise=stall())
    client = TokensClient(base_url=server.url, concurrency=5, **KEYS)
    bulk = asyncio.create_task(client.get_tokens(ACCOUNT, [f"t{number}" for number in range(20)], strategy="get"))
    await server.arrival(5)
    await client.close()
    result = await asyncio.wait_for(bulk, 2)
    assert len(result) == 20
    assert len(result.tokens) == 2
    assert {type(error) for error in result.errors.values()} == {ClientClosedError}


async def test_closing_while_a_retry_sleeps(server: RawServer) -> None:
    """A call that is waiting for its second try ends at once when the client is closed."""
    server.script(reply(503, headers={"Retry-After": "20"}))
    client = TokensClient(base_url=server.url, **KEYS)
    task = asyncio.create_task(failure(client, ClientClosedError))
    await server.arrival()
    await asyncio.sleep(0.02)
    await client.close()
    await asyncio.wait_for(task, 2)
    assert len(server.requests) == 1


async def test_a_body_of_the_wrong_kind_is_no_transport_error(server: RawServer, connect: Connect) -> None:
    """A complete answer that is not JSON is the API's fault, not the network's, and not asked for again."""
    server.script(reply(200, b"<html>hello</html>"))
    await failure(connect(), InvalidResponseError)
    assert len(server.requests) == 1


async def test_an_answer_that_comes_before_the_timeout_of_a_busy_loop(server: RawServer, connect: Connect) -> None:
    """A client that is not used for longer than its timeout works as before."""
    client = connect(timeout=0.05, retry=ONCE)
    for _ in range(3):
        assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
        await asyncio.sleep(0.04)
