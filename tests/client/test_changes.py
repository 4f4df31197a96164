"""Creating, updating and revoking over real sockets: what is sent how often, and what is known of it afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from support.bulk import NoTruth, ReadOnce
from support.calls import FAST, ONCE, Connect
from support.internals import in_flight, on_the_wire, replace_retry_sleep
from support.keys import ACCOUNT, KEYS
from support.payloads import rate_limit_headers, resource
from support.replies import Responder, hang_up, head, raw, reply, reset, stall
from support.servers import RawServer, StartServer

from dd_sa_tokens import (
    APIError,
    BadRequestError,
    ClientClosedError,
    ConflictError,
    CreatedToken,
    DatadogError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    TokensClient,
    TransportError,
    UnauthorizedError,
)
from dd_sa_tokens.testing import FakeDatadog

CREATED = reply(201, {"data": resource("new", key="ddsat_made_up")})
CUT_SHORT = raw(head(200, {"Content-Length": "99"}) + b"{")
LIMITED = reply(429, headers={"X-RateLimit-Reset": "0.01"})


async def create(client: TokensClient, name: str = "deploy-bot") -> CreatedToken:
    return await client.create_token(ACCOUNT, name=name, scopes=["dashboards_read"])


async def update(client: TokensClient) -> Any:
    return await client.update_token(ACCOUNT, "t1", name="new name")


async def revoke(client: TokensClient) -> None:
    await client.revoke_token(ACCOUNT, "t1")


async def failed(call: Awaitable[object], kind: type[DatadogError] = DatadogError) -> DatadogError:
    """Return the error of a call that has to fail."""
    with pytest.raises(kind) as caught:
        await call
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def methods(server: RawServer) -> list[str]:
    return [request.line.split()[0] for request in server.requests]


# Create


@pytest.mark.parametrize("make", [ReadOnce, NoTruth, set])
async def test_all_scopes_are_sent(make: Callable[[list[str]], Any]) -> None:
    """A token is created, and updated, with the scopes of a cursor or an array, which are read once."""
    scopes = ["dashboards_read", "logs_read_data"]
    async with FakeDatadog(tokens=1) as datadog, datadog.client() as client:
        account, token_id = datadog.service_account_id, datadog.token_ids[0]
        created = await client.create_token(account, name="new", scopes=make(scopes))
        updated = await client.update_token(account, token_id, scopes=make(scopes))
    assert set(created.token.scopes) == set(updated.scopes) == set(scopes)


@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_create_arrives_once_and_whole(server: RawServer, connect: Connect, borrowed: bool) -> None:
    """One POST with one JSON body of its declared length and type; the answer is the token and its key."""
    server.script(CREATED)
    async with aiohttp.ClientSession(headers={"Content-Type": "text/plain"}) as session:
        created = await create(connect(session=session) if borrowed else connect())
    assert (created.token.id, created.key.reveal()) == ("new", "ddsat_made_up")
    (request,) = server.requests
    assert request.line == f"POST /api/v2/service_accounts/{ACCOUNT}/access_tokens HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body)["data"]["attributes"] == {"name": "deploy-bot", "scopes": ["dashboards_read"]}
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize("call", [create, update], ids=["create", "update"])
@pytest.mark.parametrize("headers", [{"X-RateLimit-Reset": "0.01"}, {}, rate_limit_headers(5, 0, 0, 10)])
async def test_a_429_did_nothing(
    server: RawServer, connect: Connect, call: Callable[[TokensClient], Awaitable[Any]], headers: dict[str, str]
) -> None:
    """After a 429 a create is sent again with the same body, and so is an update."""
    limited = reply(429, headers=headers)
    server.script(limited, limited, CREATED if call is create else reply())
    await call(connect())
    assert len({(request.line, request.body) for request in server.requests}) == 1
    assert len(server.requests) == 3


async def test_a_create_that_only_met_429s_has_a_known_outcome(server: RawServer, connect: Connect) -> None:
    """After nothing but 429s there is no token, and the error does not suggest one."""
    server.script(otherwise=reply(429))
    error = await failed(create(connect(retry=RetryPolicy(max_attempts=3, initial_backoff=0))), RateLimitError)
    assert (error.attempts, error.outcome_unknown) == (3, False)
    assert "look for" not in str(error)
    assert len(server.requests) == 3


async def test_a_refused_connection_is_made_again(
    start_server: StartServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refused connection a create is tried again, and succeeds once the server listens."""
    server = await start_server()
    await server.stop()
    client = connect(base_url=server.url)
    naps = 0

    async def nap(_seconds: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 2:
            await server.start(port=server.port)

    replace_retry_sleep(monkeypatch, nap)
    server.script(CREATED)
    assert (await create(client)).token.id == "new"
    assert (naps, client.stats.requests, methods(server)) == (2, 3, ["POST"])


@pytest.mark.parametrize("call", [create, update, revoke])
async def test_a_refused_connection_has_a_known_outcome(
    start_server: StartServer, connect: Connect, call: Callable[[TokensClient], Awaitable[Any]]
) -> None:
    """When the connection is refused, each call gives up after its attempts, and its outcome is known."""
    gone = await start_server()
    await gone.stop()
    error = await failed(
        call(connect(base_url=gone.url, retry=RetryPolicy(max_attempts=3, initial_backoff=0))), TransportError
    )
    assert (error.attempts, error.outcome_unknown) == (3, False)


DOUBTFUL: dict[str, tuple[Responder, type[DatadogError]]] = {
    "dropped": (hang_up(), TransportError),
    "reset": (reset(), TransportError),
    "cut short": (CUT_SHORT, TransportError),
    "garbled": (raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), TransportError),
    "408": (reply(408), APIError),
    "500": (reply(500), ServerError),
    "501": (reply(501), ServerError),
    "503": (reply(503, Retry_After="0.01"), ServerError),
    "504": (reply(504, b"<html>"), ServerError),
    "timeout": (stall(), RequestTimeoutError),
    "timeout in the body": (stall(head(201, {"Content-Length": "99"}) + b"{"), RequestTimeoutError),
    "redirect": (reply(307, b"", Location="/elsewhere"), TransportError),
    "no JSON": (reply(201, b"<html>"), InvalidResponseError),
    "empty": (reply(201, b""), InvalidResponseError),
    "no key": (reply(201, {"data": resource("new")}), InvalidResponseError),
    "bad date": (reply(201, {"data": resource("new", key="k", created_at="today")}), InvalidResponseError),
}


@pytest.mark.parametrize("doubt", DOUBTFUL)
@pytest.mark.parametrize("kept_alive", [False, True])
async def test_a_create_that_may_have_been_done_is_sent_once(
    server: RawServer, connect: Connect, doubt: str, kept_alive: bool
) -> None:
    """After any bad answer there was one POST, and the error says how to look for the token."""
    act, kind = DOUBTFUL[doubt]
    client = connect(timeout=0.1 if "timeout" in doubt else 5, retry=FAST)
    if kept_alive:
        await client.get_token(ACCOUNT, "t1")
    server.script(otherwise=act)
    begun = datetime.now(UTC).replace(microsecond=0)
    error = await failed(create(client), kind)
    assert methods(server) == ["GET"] * kept_alive + ["POST"]
    assert server.connections == 1
    assert (error.operation, error.attempts, error.outcome_unknown) == ("create_token", 1, True)
    assert "'deploy-bot'" in str(error)
    assert "list_tokens" in str(error)
    assert "outcome unknown" in str(error)
    (since,) = re.findall(r"created at (\S+Z) or later", str(error))
    assert begun <= datetime.fromisoformat(since) <= datetime.now(UTC)


async def test_closing_the_client_amid_a_create_leaves_it_open(server: RawServer, connect: Connect) -> None:
    """A create that is under way when the client is closed may have been done, and the error says so."""
    server.script(stall())
    client = connect()
    task = asyncio.create_task(create(client))
    await server.arrival()
    await client.close()
    error = await failed(task, ClientClosedError)
    assert (error.attempts, error.outcome_unknown) == (1, True)
    assert "'deploy-bot'" in str(error)


async def test_closing_the_client_before_a_create_s_second_try_leaves_nothing_open(
    server: RawServer, connect: Connect
) -> None:
    """A create that waits for the rate limit when the client is closed was not done."""
    server.script(reply(429, headers={"X-RateLimit-Reset": "60"}))
    client = connect()
    task = asyncio.create_task(create(client))
    await server.arrival()
    await asyncio.sleep(0.02)
    await client.close()
    error = await failed(task, ClientClosedError)
    assert error.outcome_unknown is False
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, APIError),
    ],
)
@pytest.mark.parametrize("call", [create, update])
async def test_a_refusal_has_a_known_outcome(
    server: RawServer,
    connect: Connect,
    call: Callable[[TokensClient], Awaitable[Any]],
    status: int,
    kind: type[DatadogError],
) -> None:
    """A 4xx says that nothing was done: it is not tried again and leaves nothing to look for."""
    server.script(LIMITED, reply(status))
    error = await failed(call(connect()), kind)
    assert (error.attempts, error.outcome_unknown) == (2, False)
    assert "look for" not in str(error)
    assert "get_token shows" not in str(error)


async def test_a_create_that_failed_after_a_429_is_looked_for_from_its_first_try_on(
    server: RawServer, connect: Connect
) -> None:
    """A doubtful second try is a doubt like any other; a name is quoted as it is, and cut if it is long."""
    server.script(LIMITED, hang_up(), reply(503))
    error = await failed(create(connect(), "{since} of 'x'"))
    assert (error.attempts, error.outcome_unknown) == (2, True)
    assert """ named "{since} of 'x'" """ in str(error)
    error = await failed(create(connect(), "x" * 5000))
    assert len(str(error)) < 600
    assert "(5002 characters)" in str(error)


async def test_a_lost_answer_to_a_create_makes_one_token() -> None:
    """The token that was made although its answer was lost is found the way that the error tells."""
    async with FakeDatadog(tokens=3) as datadog, connected(datadog) as client:
        datadog.fail_next(drop=True)
        with pytest.raises(TransportError) as caught:
            await client.create_token(datadog.service_account_id, name="lost", scopes=["a"])
        assert caught.value.outcome_unknown
        (since,) = re.findall(r"created at (\S+Z) or later", str(caught.value))
        newest = await anext(client.list_tokens(datadog.service_account_id, sort="-created_at"))
        assert newest.name == "lost"
        assert newest.created_at is not None
        assert newest.created_at >= datetime.fromisoformat(since)
        assert len(datadog.tokens) == 4


# Update


@pytest.mark.parametrize("act", [reply(503), reply(500), hang_up(), CUT_SHORT, stall(), reply(408)])
async def test_an_update_is_sent_again(server: RawServer, connect: Connect, act: Responder) -> None:
    """Done twice an update is done once, so it is tried again, with the same body."""
    server.script(act)
    assert (await update(connect(timeout=0.1))).id == "t1"
    assert methods(server) == ["PATCH", "PATCH"]
    assert server.requests[0].body == server.requests[1].body
    assert json.loads(server.requests[1].body)["data"]["attributes"] == {"name": "new name"}


@pytest.mark.parametrize(
    "acts",
    [
        [reply(503), reply(503), reply(503)],
        [hang_up()],
        [stall()],
        [reply(200, b"<html>")],
        [reply(200, {"data": resource("another")})],
        [reply(503), reply(403)],
        [hang_up(), reply(404)],
        [stall(), LIMITED, reply(400)],
    ],
    ids=["503s", "dropped", "timeout", "no JSON", "another", "503, 403", "dropped, 404", "timeout, 429, 400"],
)
async def test_an_update_that_may_have_been_done_says_so(
    server: RawServer, connect: Connect, acts: list[Responder]
) -> None:
    """If any attempt may have been applied, the error says so and how to find out, however the last one failed."""
    server.script(*acts, otherwise=acts[-1])
    begun = datetime.now(UTC).replace(microsecond=0)
    error = await failed(update(connect(timeout=0.05, retry=RetryPolicy(max_attempts=3, initial_backoff=0.001))))
    assert (error.operation, error.token_id, error.outcome_unknown) == ("update_token", "t1", True)
    (since,) = re.findall(r"get_token shows whether it was done: by a modified_at of (\S+Z) or later", str(error))
    assert begun <= datetime.fromisoformat(since) <= datetime.now(UTC)


async def test_a_get_has_a_known_outcome(server: RawServer, connect: Connect) -> None:
    """The outcome of a call that changes nothing is never unknown."""
    server.script(otherwise=hang_up())
    client = connect()
    assert (await failed(client.get_token(ACCOUNT, "t1"))).outcome_unknown is False
    assert (await failed(anext(client.list_tokens(ACCOUNT)))).outcome_unknown is False


# Revoke


@pytest.mark.parametrize(
    "acts",
    [
        [reply(404)],
        [LIMITED, reply(404)],
        [reply(429), LIMITED, reply(404)],
    ],
    ids=["at once", "after a 429", "after two"],
)
async def test_a_token_that_is_not_there_cannot_be_revoked(
    server: RawServer, connect: Connect, acts: list[Responder]
) -> None:
    """A 404 when no earlier attempt can have been applied is a `NotFoundError` with a known outcome."""
    server.script(*acts)
    error = await failed(revoke(connect()), NotFoundError)
    assert (error.attempts, error.outcome_unknown) == (len(acts), False)


@pytest.mark.parametrize(
    "acts",
    [
        [hang_up()],
        [reset()],
        [stall()],
        [reply(500)],
        [reply(503), LIMITED],
        [reply(408)],
        [raw(b"HTTP/1.1 2")],
        [hang_up(), reply(503), stall()],
    ],
    ids=["dropped", "reset", "timeout", "500", "503, 429", "408", "cut short", "all of them"],
)
async def test_a_token_that_an_earlier_try_revoked_is_revoked(
    server: RawServer, connect: Connect, acts: list[Responder]
) -> None:
    """A 404 after a try that may have arrived means that this one did it: a success."""
    server.script(*acts, reply(404))
    client = connect(timeout=0.4)
    await revoke(client)
    assert methods(server) == ["DELETE"] * (len(acts) + 1)
    assert client.stats.requests == len(acts) + 1


async def test_a_404_after_a_refused_connection_is_one(
    start_server: StartServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try that never left did not revoke anything."""
    server = await start_server()
    await server.stop()

    async def nap(_seconds: float) -> None:
        await server.start(port=server.port)

    replace_retry_sleep(monkeypatch, nap)
    server.script(reply(404))
    error = await failed(revoke(connect(base_url=server.url)), NotFoundError)
    assert (error.attempts, error.outcome_unknown) == (2, False)


@pytest.mark.parametrize(
    ("acts", "unknown"),
    [([reply(403)], False), ([reply(503), reply(403)], True), ([hang_up()] * 5, True), ([LIMITED, reply(400)], False)],
    ids=["403", "503, 403", "dropped", "429, 400"],
)
async def test_a_revoke_that_failed_says_whether_it_may_have_been_done(
    server: RawServer, connect: Connect, acts: list[Responder], unknown: bool
) -> None:
    """If any try may have been carried out, the error says so, and that `get_token` tells."""
    server.script(*acts)
    error = await failed(revoke(connect()))
    assert (error.operation, error.attempts, error.outcome_unknown) == ("revoke_token", len(acts), unknown)
    assert ("get_token shows" in str(error)) is unknown


@pytest.mark.parametrize("fault", [{"drop": True}, {"truncate": True}, {"status": 503}, {"stall": 5.0}], ids=str)
async def test_a_lost_answer_to_a_revoke_is_no_error(fault: dict[str, Any]) -> None:
    """Whether the server acted before the answer was lost or not, in the end the token is gone, and no other."""
    async with FakeDatadog(tokens=3) as datadog, connected(datadog, timeout=0.2) as client:
        first, second, third = datadog.token_ids
        datadog.fail_next(**fault)
        await client.revoke_token(datadog.service_account_id, second)
        assert datadog.token_ids == [first, third]
        assert datadog.requests == 2
        with pytest.raises(NotFoundError):
            await client.revoke_token(datadog.service_account_id, second)


# The HTTP library's own second sending


def connected(datadog: FakeDatadog, **options: Any) -> TokensClient:
    """Make a client of the fake."""
    keys = {"base_url": datadog.url, "api_key": datadog.api_key, "app_key": datadog.app_key}
    return TokensClient(**({"retry": FAST} | keys | options))


async def fetch(client: TokensClient) -> Any:
    return await client.get_token(ACCOUNT, "t1")


async def read_list(client: TokensClient) -> Any:
    return await anext(client.list_tokens(ACCOUNT))


@pytest.mark.parametrize("call", [fetch, read_list, create, update, revoke])
@pytest.mark.parametrize("act", [hang_up(), reset()], ids=["hang up", "reset"])
@pytest.mark.parametrize("borrowed", [False, True])
async def test_on_a_dropped_connection_nothing_is_sent_unseen(
    server: RawServer, connect: Connect, call: Callable[[TokensClient], Awaitable[Any]], act: Responder, borrowed: bool
) -> None:
    """A kept-alive connection that is dropped costs one request for one attempt; aiohttp does not send it again."""
    async with aiohttp.ClientSession() as session:
        client = connect(retry=ONCE, **({"session": session} if borrowed else {}))
        await client.get_token(ACCOUNT, "t0")
        server.script(otherwise=act)
        error = await failed(call(client), TransportError)
    assert error.attempts == 1
    assert len(server.requests) == client.stats.requests == 2
    assert server.connections == 1


@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_revoke_on_a_dropped_connection_is_a_success_that_was_counted(
    server: RawServer, connect: Connect, borrowed: bool
) -> None:
    """The second sending is ours: counted, and its 404 understood."""
    async with aiohttp.ClientSession() as session:
        client = connect(**({"session": session} if borrowed else {}))
        await client.get_token(ACCOUNT, "t0")
        server.script(hang_up(), reply(404))
        await revoke(client)
        assert (client.stats.requests, client.stats.retries) == (3, 1)
    assert methods(server) == ["GET", "DELETE", "DELETE"]
    assert server.requests[0].connection == server.requests[1].connection


@pytest.mark.parametrize("call", [fetch, update, revoke])
async def test_a_borrowed_session_s_middlewares_see_each_sending(
    server: RawServer, connect: Connect, call: Callable[[TokensClient], Awaitable[Any]]
) -> None:
    """All of the session's own middlewares still run, in their order, once for each request that goes out."""
    seen: list[str] = []

    def middleware(name: str) -> aiohttp.ClientMiddlewareType:
        async def run(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            seen.append(f"{name} {request.method}")
            request.headers["X-Seen"] = name
            return await handler(request)

        return run

    server.script(hang_up(), reply(503), reply(204) if call is revoke else reply())
    async with aiohttp.ClientSession(middlewares=[middleware("first"), middleware("second")]) as session:
        await call(connect(session=session))
    method = methods(server)[0]
    assert seen == [f"first {method}", f"second {method}"] * 3
    assert [request.headers["x-seen"] for request in server.requests] == ["second"] * 3


async def test_a_session_borrowed_by_two_clients_serves_both(server: RawServer, connect: Connect) -> None:
    """What one client hangs on its requests is not in the way of another's, nor of the session's owner."""
    async with aiohttp.ClientSession() as session:
        clients = [connect(session=session, retry=ONCE) for _ in range(2)]
        await asyncio.gather(*(client.get_tokens(ACCOUNT, ["a", "b", "c"]) for client in clients))
        async with session.get(f"{server.url}/own") as answer:
            assert answer.status == 200
        server.script(hang_up())
        async with session.get(f"{server.url}/own") as answer:  # the owner's own are sent again as ever
            assert answer.status == 200
    assert len(server.requests) == 6 + 3


async def test_side_by_side_each_is_sent_once(server: RawServer, connect: Connect) -> None:
    """Many calls at a time on connections that are all dropped are one request each."""
    client = connect(retry=ONCE, concurrency=10)
    await client.get_token(ACCOUNT, "t0")
    await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(30)], strategy="get")
    before = len(server.requests)
    server.script(otherwise=hang_up())
    outcomes = await asyncio.gather(*(revoke(client) for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TransportError}
    assert len(server.requests) - before == 20
    assert on_the_wire(client) == 0


async def test_a_cancelled_create_is_cancelled(server: RawServer, connect: Connect) -> None:
    """A cancelled create raises the cancellation, and the client still works."""
    server.script(stall(), CREATED)
    client = connect()
    task = asyncio.create_task(create(client))
    await server.arrival()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert in_flight(client) == 0
    begun = time.monotonic()
    assert (await create(client)).token.id == "new"
    assert time.monotonic() - begun < 2
    assert KEYS["api_key"] == server.requests[1].headers["dd-api-key"]


@pytest.mark.parametrize("attributes", [{}, {"key": "k" * 40, "created_at": "today"}], ids=["no key", "bad date"])
async def test_a_token_whose_secret_cannot_be_read_is_named(
    server: RawServer, connect: Connect, attributes: dict[str, str]
) -> None:
    """Where an answer to a create has the new token's ID, but cannot be used, the error names it, to be revoked."""
    server.script(reply(201, {"data": resource("new", **attributes)}))
    error = await failed(create(connect()), InvalidResponseError)
    assert error.token_id == "new"
    assert "token 'new'" in str(error)
    assert "k" * 40 not in str(error)
    assert error.outcome_unknown
