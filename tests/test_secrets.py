"""The keys are looked for in everything that a failure leaves behind: not a piece of one may be there."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import attrs
import pytest
from support.internals import confirm_window, parts
from support.keys import ACCESS_TOKEN, ACCOUNT, API_KEY, APP_KEY, CREATED_KEY, KEYS, leaks, remains
from support.payloads import rate_limit_headers, resource
from support.replies import ReceivedRequest, Responder, drip, endless, hang_up, head, raw, reply, reset, stall
from support.servers import RawServer, StartServer

from dd_sa_tokens import ConfigurationError, CreatedToken, DatadogError, RetryPolicy, TokensClient, converter

QUICK = RetryPolicy(max_attempts=2, initial_backoff=0.001, max_backoff=0.001, max_rate_limit_wait=0.2)
CREDENTIALS = pytest.mark.parametrize(
    "credentials", [KEYS, {"access_token": ACCESS_TOKEN}, {"app_key": ACCESS_TOKEN}], ids=["pair", "bearer", "app key"]
)


def echo(status: int, padding: int = 0, reset: int = 1) -> Responder:
    """Answer with the request's own headers, in the body and in the headers that errors show."""

    async def act(request: ReceivedRequest) -> None:
        keys = [value for name, value in request.headers.items() if name in {"dd-api-key", "dd-application-key"}]
        keys.append(request.headers.get("authorization", ""))
        said = ["x" * padding + " ".join(keys), *keys, request.head.decode()]
        headers = rate_limit_headers(10, 5, reset, 3600, **{"X-RateLimit-Name": "n" * (padding % 90) + "".join(keys)})
        headers |= {"X-Request-Id": "r" * (padding % 90) + "".join(keys), "Location": f"https://x.example/{keys[0]}"}
        await reply(status, {"errors": said, "data": {"id": keys[0], "attributes": {"created_at": keys[0]}}}, headers)(
            request
        )

    return act


def check(error: BaseException, caplog: pytest.LogCaptureFixture, client: TokensClient) -> None:
    """Look for the keys in all that is left."""
    for where, text in remains(error):
        assert leaks(text) == [], where
    for record in caplog.records:
        assert leaks(record.getMessage() + repr(record.args) + repr(record.exc_info)) == []
    assert leaks(repr(client) + repr(vars(client))) == []
    assert leaks("".join(repr(vars(part)) for part in parts(client))) == []


def test_the_search_finds_what_is_there() -> None:
    """The search itself works: it finds a key, and a piece of one, in a text, in an attribute and behind a cause."""
    inner = ValueError("harmless")
    inner.add_note(APP_KEY[5:25])
    outer = DatadogError("harmless", token_id=API_KEY)
    outer.__cause__ = inner
    found = [where for where, text in remains(outer) if leaks(text)]
    assert "notes of ValueError" in found
    assert "attributes of DatadogError" in found
    assert "pickle of DatadogError" in found
    assert "str of DatadogError" in found
    assert not leaks("canary0apik")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every logger's DEBUG, asyncio's and aiohttp's too."""
    caplog.set_level(logging.DEBUG)
    return caplog


FAULTS: dict[str, Responder] = {
    **{f"echo {status}": echo(status) for status in (200, 302, 400, 401, 403, 404, 409, 418, 429, 500, 503)},
    "hang up": hang_up(),
    "reset": reset(),
    "cut short": raw(head(200, {"Content-Length": "99"}) + b"{"),
    "bad JSON": reply(200, b'{"data": ' + API_KEY.encode() + b" " + APP_KEY.encode()),
    "bad dates": reply(200, {"data": {"id": "t1", "attributes": {"created_at": API_KEY, "scopes": [APP_KEY, 1]}}}),
    "another token": reply(200, {"data": {"id": API_KEY, "attributes": {"name": APP_KEY}}}),
    "no HTTP": raw(f"HTTP/1.1 {API_KEY} {ACCESS_TOKEN}\r\n\r\n".encode()),
    "bad header": raw(f"HTTP/1.1 200 OK\r\n{APP_KEY} {ACCESS_TOKEN}\r\n\r\n".encode()),
    "bad length": raw(head(200, {"Content-Length": API_KEY, "X-Echo": APP_KEY})),
    "endless": endless(head(200, {"Connection": "close"}), (API_KEY + APP_KEY + ACCESS_TOKEN).encode() * 1000),
    "timeout": stall(),
    "timeout in the body": stall(head(200, {"Content-Length": "999"}) + API_KEY.encode()),
    "drip": drip(head(200, {"X-Echo": APP_KEY}), 0.01),
    "429 with a wait": echo(429, reset=3000),
}


@CREDENTIALS
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_failure_shows_a_key(
    server: RawServer, log: pytest.LogCaptureFixture, fault: str, credentials: dict[str, str]
) -> None:
    """For each failure, even with echoed keys, the error, its chain, its frames and the logs show no key."""
    server.script(otherwise=FAULTS[fault])
    async with TokensClient(base_url=server.url, retry=QUICK, timeout=0.03, **credentials) as client:
        with pytest.raises(DatadogError) as caught:
            await client.get_token(ACCOUNT, "t1")
        check(caught.value, log, client)
        result = await client.get_tokens(ACCOUNT, ["t1", "t2"])
        assert leaks(repr(result) + repr(list(result)) + str(result.errors)) == []
        with pytest.raises(ExceptionGroup) as group:
            result.raise_for_errors()
        check(group.value, log, client)
    assert server.requests


@pytest.mark.parametrize("fault", ["echo 401", "echo 404", "echo 503", "timeout", "bad header"])
async def test_no_failure_shows_a_key_that_a_function_gave(
    server: RawServer, log: pytest.LogCaptureFixture, fault: str
) -> None:
    """Keys that functions give, the older one and the newer one, show no more than keys that were given."""
    server.script(reply(401), otherwise=FAULTS[fault])
    keys = iter([ACCESS_TOKEN, CREATED_KEY])
    last = partial(next, keys, CREATED_KEY)
    async with TokensClient(base_url=server.url, retry=QUICK, timeout=0.03, access_token=last) as client:
        with pytest.raises(DatadogError) as caught:
            await client.get_token(ACCOUNT, "t1")
        check(caught.value, log, client)
    assert [request.headers["authorization"] for request in server.requests[:2]] == [
        f"Bearer {ACCESS_TOKEN}",
        f"Bearer {CREATED_KEY}",
    ]


@pytest.mark.parametrize("padding", [960, 975, 60, 75])
@CREDENTIALS
async def test_no_piece_of_a_key_is_left_where_a_text_is_cut(
    server: RawServer, log: pytest.LogCaptureFixture, credentials: dict[str, str], padding: int
) -> None:
    """Long texts of the server are shortened, and a key that lies across the cut does not show by its first half."""
    server.script(otherwise=echo(401, padding))
    async with TokensClient(base_url=server.url, retry=QUICK, **credentials) as client:
        with pytest.raises(DatadogError) as caught:
            await client.get_token(ACCOUNT, "t1")
        check(caught.value, log, client)
        assert leaks(repr(client.rate_limit)) == []


@CREDENTIALS
@pytest.mark.parametrize("https", [False, True])
async def test_a_refused_connection_shows_no_key(
    start_server: StartServer, log: pytest.LogCaptureFixture, https: bool, credentials: dict[str, str]
) -> None:
    """Nor does a connection that is refused, or a TLS handshake that fails."""
    server = await start_server()
    if https:
        server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    else:
        await server.stop()
    url = server.url.replace("http:", "https:") if https else server.url
    async with TokensClient(base_url=url, retry=QUICK, **credentials) as client:
        with pytest.raises(DatadogError) as caught:
            await client.get_token(ACCOUNT, "t1")
        check(caught.value, log, client)


async def _cancel(call: Awaitable[Any], seconds: float) -> None:
    task = asyncio.ensure_future(call)
    await asyncio.sleep(seconds)
    task.cancel()
    await task


async def _timeout(call: Awaitable[Any], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await call


async def _wait_for(call: Awaitable[Any], seconds: float) -> None:
    await asyncio.wait_for(call, seconds)


async def _group(call: Awaitable[Any], seconds: float) -> None:
    async def fail() -> None:
        await asyncio.sleep(seconds)
        raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        group.create_task(_timeout(call, seconds / 2))
        group.create_task(fail())


CUT_OFF_AT: dict[str, Responder] = {
    "answer": stall(),
    "headers": stall(b"HTTP/1.1 200 OK\r\nX-Echo: "),
    "body": stall(head(200, {"Content-Length": "999"}) + API_KEY.encode()),
    "body, headers known": stall(head(200, {"Content-Length": "999", "X-Echo": API_KEY}) + b"{"),
    "retry": reply(503, Retry_After="0.01, 9"),
    "rate limit": reply(429, headers=rate_limit_headers(5, 0, 3000, 3600)),
    "echo, then answer": echo(500),
    "handshake": stall(),
    "pool": stall(),
}


@CREDENTIALS
@pytest.mark.parametrize("moment", CUT_OFF_AT)
@pytest.mark.parametrize("way", [_cancel, _timeout, _wait_for, _group])
async def test_a_call_that_is_cut_off_shows_no_key(
    server: RawServer,
    log: pytest.LogCaptureFixture,
    way: Callable[[Awaitable[Any], float], Awaitable[None]],
    moment: str,
    credentials: dict[str, str],
) -> None:
    """A call that its caller cancels, wherever it is, takes no frame along that shows the keys."""
    server.silent = moment == "handshake"
    server.script(CUT_OFF_AT[moment], otherwise=stall())
    url = server.url.replace("http:", "https:") if server.silent else server.url
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        retry = RetryPolicy(initial_backoff=0.001, max_backoff=10)
        client = TokensClient(base_url=url, retry=retry, session=session, **credentials)
        blocker = asyncio.create_task(client.get_token(ACCOUNT, "t0")) if moment == "pool" else None
        if blocker is not None:
            await server.arrival()
            confirm_window(client, "get_token")
        with pytest.raises((asyncio.CancelledError, TimeoutError, ExceptionGroup)) as caught:
            await way(client.get_token(ACCOUNT, "t1"), 0.03)
        check(caught.value, log, client)
        assert not isinstance(caught.value, DatadogError)
        await client.close()
        if blocker is not None:
            await asyncio.wait([blocker])
            check(blocker.exception() or ValueError(), log, client)


@CREDENTIALS
async def test_a_bulk_fetch_that_is_cut_off_shows_no_key(
    server: RawServer, log: pytest.LogCaptureFixture, credentials: dict[str, str]
) -> None:
    """Nor do the tasks of a bulk fetch, or of a stream that is left early."""
    server.script(reply(), otherwise=stall())
    async with TokensClient(base_url=server.url, **credentials) as client:
        ids = [f"t{number}" for number in range(9)]
        with pytest.raises(TimeoutError) as caught:
            await _timeout(client.get_tokens(ACCOUNT, ids), 0.03)
        check(caught.value, log, client)
        stream = client.stream_tokens(ACCOUNT, ids)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.03):
                [item async for item in stream]
        check(caught.value, log, client)
        await stream.aclose()


@CREDENTIALS
@pytest.mark.parametrize("during", [False, True])
async def test_a_closed_client_shows_no_key(
    server: RawServer, log: pytest.LogCaptureFixture, during: bool, credentials: dict[str, str]
) -> None:
    """Nor does a client that is closed before or during a call."""
    server.script(otherwise=stall())
    server.script(reply())
    client = TokensClient(base_url=server.url, **credentials)
    await client.get_token(ACCOUNT, "t1")
    task = asyncio.create_task(client.get_token(ACCOUNT, "t1"))
    if during:
        await server.arrival(2)
    await client.close()
    with pytest.raises(DatadogError) as caught:
        await task
    check(caught.value, log, client)


@CREDENTIALS
async def test_a_call_that_succeeds_shows_no_key(
    server: RawServer, log: pytest.LogCaptureFixture, credentials: dict[str, str]
) -> None:
    """Nor do the logs and the objects of calls where nothing went wrong."""
    async with TokensClient(base_url=server.url, **credentials) as client:
        token = await client.get_token(ACCOUNT, "t1")
        result = await client.get_tokens(ACCOUNT, ["t1", "t2"])
        check(ValueError(repr(token) + repr(list(result)) + repr(client.stats)), log, client)
        assert [record for record in log.records if record.name == "dd_sa_tokens"]


@pytest.mark.parametrize("middleware_fails", [False, True])
async def test_a_borrowed_session_s_failure_shows_no_key(
    server: RawServer, log: pytest.LogCaptureFixture, middleware_fails: bool
) -> None:
    """A session that raises for status itself, or whose middleware raises with the request in its words, shows none."""

    async def middleware(request: aiohttp.ClientRequest, handler: Any) -> Any:
        if middleware_fails:
            raise RuntimeError(dict(request.headers))
        return await handler(request)

    server.script(otherwise=reply(401))
    async with aiohttp.ClientSession(raise_for_status=True, middlewares=[middleware]) as session:
        client = TokensClient(base_url=server.url, session=session, retry=QUICK, **KEYS)
        with pytest.raises(DatadogError) as caught:
            await client.get_token(ACCOUNT, "t1")
        check(caught.value, log, client)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": f"{API_KEY}\n"},
        {"app_key": f" {APP_KEY}"},
        {"app_key": f"{APP_KEY}\u200b"},
        {"access_token": ACCESS_TOKEN},
        {"api_key": API_KEY.encode()},
        {"base_url": f"https://{API_KEY}:{APP_KEY}@proxy.example.com"},
        {"base_url": f"https://proxy.example.com/?key={API_KEY}"},
        {"base_url": f"http://proxy.example.com/{API_KEY}"},
        {"base_url": f"https://proxy.example.com/#{API_KEY}"},
    ],
)
def test_a_bad_setting_is_not_quoted(options: dict[str, Any]) -> None:
    """A key or a URL that is refused is not shown in the refusal."""
    with pytest.raises(ConfigurationError) as caught:
        TokensClient(**(KEYS | options))
    error = caught.value
    frames = [
        frame for frame, _ in traceback.walk_tb(error.__traceback__) if "dd_sa_tokens" in frame.f_globals["__name__"]
    ]
    assert frames
    for frame in frames:
        assert leaks(repr(frame.f_locals)) == [], frame.f_code.co_name
    for where, text in remains(error.with_traceback(None)):
        assert leaks(text) == [], where


def test_half_of_the_credentials_are_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that came from the environment."""
    monkeypatch.setenv("DD_API_KEY", API_KEY)
    with pytest.raises(ConfigurationError) as caught:
        TokensClient()
    assert leaks(str(caught.value) + repr(caught.value)) == []
    for frame, _ in traceback.walk_tb(caught.value.__traceback__):
        assert leaks(repr({name: repr(value) for name, value in frame.f_locals.items() if name != "caught"})) == []
    monkeypatch.setenv("DD_APP_KEY", f"{APP_KEY} ")
    with pytest.raises(ConfigurationError, match="DD_APP_KEY") as caught:
        TokensClient()
    assert leaks(str(caught.value) + repr(caught.value)) == []


# The secret of a token that was created


def created_body(**attributes: object) -> bytes:
    return json.dumps({"data": resource("new", **({"key": CREATED_KEY} | attributes))}).encode()


async def create(client: TokensClient) -> CreatedToken:
    return await client.create_token(ACCOUNT, name="deploy", scopes=["a"])


async def test_a_created_key_shows_only_by_reveal(server: RawServer, log: pytest.LogCaptureFixture) -> None:
    """The key of a created token is in no log, repr, str, format, dict, resource or copy of what holds it."""
    server.script(reply(201, created_body()))
    async with TokensClient(base_url=server.url, **KEYS) as client:
        created = await create(client)
        assert created.key.reveal() == CREATED_KEY
        check(ValueError(f"{client.stats} {client.rate_limit}"), log, client)
    assert [record for record in log.records if record.name == "dd_sa_tokens"]
    shown = [repr(created), str(created), f"{created} {created.key} {created.key:>80}", f"{created.key!r}"]
    shown += [repr(attrs.asdict(created)), repr(attrs.astuple(created)), repr(attrs.asdict(created.token))]
    shown += [
        json.dumps(converter.unstructure(created.token)),
        repr(converter.unstructure(created)),
        repr(created.token),
    ]
    shown += [repr(copy.copy(created)), repr(copy.deepcopy(created)), repr([created]), repr({"key": created.key})]
    shown += [json.dumps(attrs.asdict(created), default=str)]
    for text in shown:
        assert leaks(text) == []


async def test_a_created_key_is_not_pickled_and_copies_keep_it(server: RawServer) -> None:
    """A pickle of a created token is refused by each protocol; its copies are equal and still reveal the key."""
    server.script(reply(201, created_body()))
    async with TokensClient(base_url=server.url, **KEYS) as client:
        created = await create(client)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in (created, created.key, [created], attrs.asdict(created)):
            with pytest.raises(TypeError, match="pickle") as caught:
                pickle.dumps(value, protocol)
            assert leaks(str(caught.value)) == []
    assert pickle.loads(pickle.dumps(created.token)) == created.token
    for duplicate in (copy.copy(created), copy.deepcopy(created), attrs.evolve(created)):
        assert duplicate == created
        assert duplicate.key.reveal() == CREATED_KEY


UNREADABLE: dict[str, Responder] = {
    "no ID": reply(201, json.dumps({"data": {"attributes": {"key": CREATED_KEY}}}).encode()),
    "key for a date": reply(201, created_body(created_at=CREATED_KEY)),
    "key for scopes": reply(201, created_body(scopes=CREATED_KEY)),
    "key for a type": reply(201, created_body(name={"key": CREATED_KEY})),
    "key as a list": reply(201, created_body(key=[CREATED_KEY])),
    "no JSON": reply(201, created_body()[:-1]),
    "no UTF-8": reply(201, created_body()[:-1] + b"\xff}"),
    "an array": reply(201, b"[" + created_body() + b"]"),
    "redirect": reply(307, created_body(), Location=f"/{CREATED_KEY}"),
    "cut short": raw(head(201, {"Content-Length": "9999"}) + created_body()),
    "timeout in the body": stall(head(201, {"Content-Length": "9999"}) + created_body()),
}


@pytest.mark.parametrize("fault", UNREADABLE)
async def test_a_create_that_cannot_be_read_shows_no_key(
    server: RawServer, log: pytest.LogCaptureFixture, fault: str
) -> None:
    """The answer holds the new key and is no good: the error, its frames, its pickle and the logs do not show it."""
    server.script(otherwise=UNREADABLE[fault])
    async with TokensClient(base_url=server.url, retry=QUICK, timeout=0.1, **KEYS) as client:
        with pytest.raises(DatadogError) as caught:
            await create(client)
        check(caught.value, log, client)
        assert caught.value.outcome_unknown
        assert len(server.requests) == 1


@pytest.mark.parametrize("way", [_cancel, _timeout, _wait_for, _group])
async def test_a_create_that_is_cut_off_shows_no_key(
    server: RawServer, log: pytest.LogCaptureFixture, way: Callable[[Awaitable[Any], float], Awaitable[None]]
) -> None:
    """Nor does the cancellation of a create amid its answer."""
    server.script(otherwise=stall(head(201, {"Content-Length": "9999"}) + created_body()))
    async with TokensClient(base_url=server.url, **KEYS) as client:
        with pytest.raises((asyncio.CancelledError, TimeoutError, ExceptionGroup)) as caught:
            await way(create(client), 0.03)
        check(caught.value, log, client)


@pytest.mark.parametrize("fault", ["echo 400", "echo 500", "echo 302", "hang up", "cut short", "timeout"])
async def test_no_failure_of_the_other_calls_shows_a_key(
    server: RawServer, log: pytest.LogCaptureFixture, fault: str
) -> None:
    """Update, revoke and list are as quiet about the client's own keys as a get is."""
    server.script(otherwise=FAULTS[fault])
    async with TokensClient(base_url=server.url, retry=QUICK, timeout=0.03, **KEYS) as client:
        for call in (
            create(client),
            client.update_token(ACCOUNT, "t1", name="n"),
            client.revoke_token(ACCOUNT, "t1"),
            anext(client.list_tokens(ACCOUNT)),
        ):
            with pytest.raises(DatadogError) as caught:
                await call
            check(caught.value, log, client)
        result = await client.get_tokens(ACCOUNT, ["t1"], strategy="list")
        check(result[0].error or ValueError(), log, client)
