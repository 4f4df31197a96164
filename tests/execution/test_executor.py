"""One call's way over real sockets: what is tried again, when, how often, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from typing import Any

import aiohttp
import pytest
from support.calls import FAST, ONCE, Connect
from support.internals import connections_in_use, in_flight, replace_retry_sleep, send, stop_budget_refill, waiting
from support.keys import ACCOUNT
from support.payloads import rate_limit_headers
from support.replies import ReceivedRequest, Responder, hang_up, head, raw, reply, reset, stall
from support.servers import RawServer, StartServer
from support.waiting import until

from dd_sa_tokens import (
    AccessToken,
    APIError,
    DatadogError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    TokensClient,
    TransportError,
)
from dd_sa_tokens._protocol.operations import Operation, Request

CUT_SHORT = raw(head(200, {"Content-Length": "99"}) + b"{")
NEW_YEAR = "Fri, 01 Jan 2027 00:00:00 GMT"
NEW_YEAR_UNIX = 1798761600


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between tries instead of waiting; the jitter gives the longest wait there can be."""
    slept: list[float] = []

    async def nap(seconds: float) -> None:
        slept.append(seconds)

    replace_retry_sleep(monkeypatch, nap)
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)
    return slept


async def failed(client: TokensClient, kind: type[DatadogError] = DatadogError) -> Any:
    """Return the error of a call that has to fail."""
    with pytest.raises(kind) as caught:
        await client.get_token(ACCOUNT, "t1")
    return caught.value


def limited(reset: object = None, **headers: str) -> Responder:
    """A 429 with nothing but a reset, or without even that."""
    return reply(429, headers=headers if reset is None else {"X-RateLimit-Reset": str(reset)} | headers)


# What is tried again


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 507, 512, 520, 599])
async def test_a_failure_of_the_server_is_tried_again(
    server: RawServer, connect: Connect, naps: list[float], status: int
) -> None:
    """A 408 or a 5xx is tried again with doubling waits up to max_backoff, and then it is the call's error."""
    client = connect(retry=RetryPolicy(max_attempts=6, initial_backoff=0.5, max_backoff=3.0))
    server.script(*[reply(status)] * 2)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert naps == [0.5, 1.0]
    naps.clear()
    server.script(otherwise=reply(status))
    error = await failed(client, APIError)
    assert (error.status, error.attempts) == (status, 6)
    assert naps == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert len(server.requests) == 3 + 6


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 425, 451, 501, 505])
async def test_what_would_fail_again_is_not_tried_again(server: RawServer, connect: Connect, status: int) -> None:
    """Any other 4xx, 501 and 505 are final, even with a Retry-After."""
    server.script(reply(status, Retry_After="1"))
    error = await failed(connect(), APIError)
    assert (error.status, error.attempts, error.retry_after) == (status, 1, 1.0)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (reply(200, b"<html>"), InvalidResponseError),
        (reply(200, {"data": {"id": "t1", "attributes": {"scopes": "all"}}}), InvalidResponseError),
        (reply(204), InvalidResponseError),
        (reply(302, b"", Location="/elsewhere"), TransportError),
        (reply(308, b"", Location="https://example.com/"), TransportError),
    ],
    ids=["no JSON", "wrong JSON", "no content", "302", "308"],
)
async def test_a_useless_answer_is_not_asked_for_again(
    server: RawServer, connect: Connect, act: Responder, kind: type[DatadogError]
) -> None:
    """A 2xx that cannot be decoded and a redirect are final."""
    server.script(act)
    error = await failed(connect(), kind)
    assert error.attempts == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("act", "kind"),
    [(CUT_SHORT, TransportError), (stall(), RequestTimeoutError), (stall(head(200, {})), RequestTimeoutError)],
    ids=["cut short", "no answer in time", "no body in time"],
)
async def test_a_lost_answer_is_asked_for_again(
    server: RawServer, connect: Connect, naps: list[float], act: Responder, kind: type[DatadogError]
) -> None:
    """A GET whose answer is cut short or does not come in time is sent again, max_attempts times in all."""
    client = connect(retry=RetryPolicy(max_attempts=3), timeout=0.08)
    server.script(act)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    server.script(act, act, act)
    error = await failed(client, kind)
    assert error.attempts == 3
    assert naps == [0.5, 0.5, 1.0]
    assert len(server.requests) == 2 + 3


@pytest.mark.parametrize("act", [hang_up(), reset()], ids=["hang up", "reset"])
async def test_a_lost_connection_is_made_again(server: RawServer, connect: Connect, act: Responder) -> None:
    """A connection that is lost before the answer is made again; the call has at most max_attempts of its own."""
    client = connect(retry=RetryPolicy(max_attempts=3, initial_backoff=0.001))
    server.script(*[act] * 2)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    before = client.stats.requests
    server.script(otherwise=act)
    received = len(server.requests)
    error = await failed(client, TransportError)
    # aiohttp would send a GET a second time by itself, unknown to the rate limiter and the retry budget.
    assert error.attempts == client.stats.requests - before == len(server.requests) - received == 3


async def test_a_refused_connection_is_tried_again(
    start_server: StartServer, connect: Connect, naps: list[float]
) -> None:
    """When the connection is refused, the call makes max_attempts attempts."""
    gone = await start_server()
    await gone.stop()
    client = connect(base_url=gone.url, retry=RetryPolicy(max_attempts=3))
    error = await failed(client, TransportError)
    assert error.attempts == 3
    assert naps == [0.5, 1.0]
    assert (client.stats.requests, client.stats.retries) == (3, 2)


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_max_attempts_counts_all_tries(server: RawServer, connect: Connect, attempts: int) -> None:
    """max_attempts is the number of requests, over failures of different kinds; 1 means no retry."""
    client = connect(retry=RetryPolicy(max_attempts=attempts, initial_backoff=0.001))
    server.script(reply(503), CUT_SHORT, limited(), reply(500))
    error = await failed(client)
    assert error.attempts == attempts
    assert len(server.requests) == attempts
    assert (client.stats.requests, client.stats.retries) == (attempts, attempts - 1)


def _create() -> Request[AccessToken]:
    """A request that must not be sent twice."""
    operation = Operation(
        "create_token",
        "POST",
        idempotent=False,
        decode=lambda _request, _response: AccessToken(id="new"),
        permissions="none",
        not_found="nothing",
    )
    return Request(operation, f"/api/v2/service_accounts/{ACCOUNT}/access_tokens", ACCOUNT)


@pytest.mark.parametrize("act", [reply(500), reply(503, Retry_After="1"), reply(408), CUT_SHORT, stall(), hang_up()])
async def test_what_may_have_been_done_is_not_done_twice(server: RawServer, connect: Connect, act: Responder) -> None:
    """A request that is not idempotent is sent once where it may have been carried out."""
    server.script(otherwise=act)
    client = connect(timeout=0.1)
    with pytest.raises(DatadogError) as caught:
        await send(client, _create())
    assert caught.value.attempts == 1
    assert len(server.requests) == 1


async def test_what_was_not_done_may_be_done_again(
    server: RawServer, start_server: StartServer, connect: Connect
) -> None:
    """A request that is not idempotent is sent again after a 429, and after a connection that was never made."""
    server.script(limited(0.01), limited(), reply(201, {"data": {}}))
    client = connect()
    assert (await send(client, _create())).id == "new"
    assert [request.line.split()[0] for request in server.requests] == ["POST"] * 3
    gone = await start_server()
    await gone.stop()
    client = connect(base_url=gone.url, retry=RetryPolicy(max_attempts=3, initial_backoff=0))
    with pytest.raises(TransportError) as caught:
        await send(client, _create())
    assert caught.value.attempts == 3


# Retry-After


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "7, 7"}, 7.0),
        ({"Retry-After": "30"}, 30.0),
        ({"Retry-After": "Fri, 01 Jan 2027 00:00:09 GMT", "Date": NEW_YEAR}, 9.0),
        ({"Retry-After": "Friday, 01-Jan-27 00:00:09 GMT", "Date": NEW_YEAR}, 9.0),
        ({"Retry-After": "0"}, 0.5),
        ({"Retry-After": "-1"}, 0.5),
        ({"Retry-After": "soon"}, 0.5),
        ({"Retry-After": ""}, 0.5),
        ({"Retry-After": "1e9"}, 0.5),
        ({"Retry-After": "inf"}, 0.5),
        ({"Retry-After": "Thu, 31 Dec 2026 23:59:00 GMT", "Date": NEW_YEAR}, 0.5),
        ({"Retry-After": "Fri, 99 Jan 2027 00:00:09 GMT", "Date": NEW_YEAR}, 0.5),
    ],
)
async def test_retry_after_is_followed(
    server: RawServer, connect: Connect, naps: list[float], headers: dict[str, str], expected: float
) -> None:
    """Retry-After, in seconds or as a date by the server's own clock, is the wait; junk and the past are no answer."""
    server.script(reply(503, headers=headers))
    assert (await connect(retry=RetryPolicy()).get_token(ACCOUNT, "t1")).id == "t1"
    assert naps == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "31"}, 31.0),
        ({"Retry-After": "300"}, 300.0),
        ({"Retry-After": "3600"}, 3600.0),
        ({"Retry-After": "9" * 20}, float("9" * 20)),
        ({"Retry-After": "Fri, 01 Jan 2027 01:00:00 GMT", "Date": NEW_YEAR}, 3600.0),
    ],
)
async def test_too_long_a_retry_after_is_not_waited_for(
    server: RawServer, connect: Connect, naps: list[float], headers: dict[str, str], expected: float
) -> None:
    """More than max_backoff: the error comes at once and says how long it would have been."""
    server.script(reply(503, headers=headers))
    error = await failed(connect(retry=RetryPolicy(max_backoff=30.0)), ServerError)
    assert error.retry_after == expected
    assert error.attempts == 1
    assert naps == []
    assert len(server.requests) == 1


# 429


async def test_a_429_waits_for_the_reset_and_does_not_count(server: RawServer, connect: Connect) -> None:
    """A 429 that says when the rate limit returns is waited for, however often, even with max_attempts=1."""
    client = connect(retry=RetryPolicy(max_attempts=1, initial_backoff=0.001))
    server.script(limited(0.05), limited(0.05), limited(0.05))
    token = await client.get_token(ACCOUNT, "t1")
    assert token.id == "t1"
    times = [request.at for request in server.requests]
    assert [later - earlier >= 0.05 for earlier, later in itertools.pairwise(times)] == [True] * 3
    assert times[-1] - times[0] < 1
    assert (client.stats.requests, client.stats.retries, client.stats.rate_limited) == (4, 3, 3)
    assert client.stats.rate_limit_wait_seconds >= 0.15


@pytest.mark.parametrize("status", [200, 429])
async def test_a_full_set_of_headers_is_waited_for(server: RawServer, connect: Connect, status: int) -> None:
    """With all headers the next window is met at its beginning, which the wall clock tells."""
    wall_ahead = time.time() - time.monotonic()
    server.script(
        reply(status, headers=rate_limit_headers(5, 0, 1, 1)), otherwise=reply(headers=rate_limit_headers(5, 4, 1, 1))
    )
    client = connect()
    await client.get_token(ACCOUNT, "t1")
    await client.get_token(ACCOUNT, "t1")
    first, second = (wall_ahead + request.at for request in server.requests[:2])
    end = int(first) + 1
    assert end - 0.01 <= second < end + 0.3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X-RateLimit-Reset": "7"}, 7.0),
        ({"X-RateLimit-Reset": "7, 7"}, 7.0),
        ({"X-RateLimit-Reset": "7,7"}, 7.0),
        ({"X-RateLimit-Reset": "5, 7"}, 7.0),
        ({"X-RateLimit-Reset": "7.25"}, 7.25),
        ({"X-RateLimit-Reset": "86400"}, 86400.0),
        ({"X-RateLimit-Reset": str(NEW_YEAR_UNIX + 40), "Date": NEW_YEAR}, 40.0),
        ({"X-RateLimit-Reset": "junk", "Retry-After": "7"}, 7.0),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Fri, 01 Jan 2027 00:00:07 GMT", "Date": NEW_YEAR}, 7.0),
        ({"X-RateLimit-Reset": "7", "Retry-After": "2"}, 7.0),
    ],
)
async def test_how_a_429_says_when_the_window_ends(
    server: RawServer, connect: Connect, headers: dict[str, str], seconds: float
) -> None:
    """Each form of the reset is understood: a call that would not wait so long fails at once, with the seconds."""
    server.script(reply(429, headers=headers))
    client = connect(retry=RetryPolicy(max_rate_limit_wait=1))
    begun = time.monotonic()
    error = await failed(client, RateLimitError)
    assert error.retry_after == pytest.approx(seconds, abs=0.3)
    assert time.monotonic() - begun < 5
    assert (error.status, error.attempts) == (429, 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-RateLimit-Reset": "soon"},
        {"X-RateLimit-Reset": ""},
        {"X-RateLimit-Reset": "-3"},
        {"X-RateLimit-Reset": "1e3"},
        {"X-RateLimit-Reset": "inf"},
        {"X-RateLimit-Reset": "nan"},
        {"X-RateLimit-Reset": "90000"},
        {"X-RateLimit-Reset": "9" * 30},
        {"X-RateLimit-Reset": str(NEW_YEAR_UNIX - 40), "Date": NEW_YEAR},
        {"X-RateLimit-Reset": "7, soon"},
        {"X-RateLimit-Reset": "0"},
        {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "0"},
        {"X-RateLimit-Limit": "100", "X-RateLimit-Period": "10", "X-RateLimit-Remaining": "0"},
        {"Retry-After": "junk"},
        {"Retry-After": "0"},
    ],
)
async def test_a_429_without_a_usable_reset_is_counted(
    server: RawServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """Without a usable header a 429 is waited for with a growing, jittered backoff, max_attempts times in all."""
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)
    server.script(otherwise=reply(429, b"<html>slow down</html>", headers=headers))
    client = connect(retry=RetryPolicy(max_attempts=3, initial_backoff=0.02, max_backoff=0.03))
    error = await failed(client, RateLimitError)
    assert (error.status, error.attempts) == (429, 3)
    times = [request.at for request in server.requests]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.02
    assert times[2] - times[1] >= 0.03
    assert times[2] - times[0] < 1


async def test_a_reset_of_zero_with_the_other_headers_means_now(server: RawServer, connect: Connect) -> None:
    """A reset of 0 among the other headers means now: the retry comes soon and does not count."""
    server.script(reply(429, headers=rate_limit_headers(5, 0, 0, 10)))
    client = connect(retry=RetryPolicy(max_attempts=1, max_rate_limit_wait=5))
    begun = time.monotonic()
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("act", [limited(0.001), limited(), limited(0)], ids=["reset", "headerless", "zero"])
async def test_ten_429s_in_a_row_are_enough(server: RawServer, connect: Connect, act: Responder) -> None:
    """A request that is refused ten times in a row raises `RateLimitError`: no endless loop."""
    server.script(otherwise=act)
    client = connect(retry=RetryPolicy(max_attempts=50, initial_backoff=0.001, max_backoff=0.002))
    error = await failed(client, RateLimitError)
    assert error.attempts == 10
    assert len(server.requests) == 10
    assert client.stats.rate_limited == 10


async def test_429s_in_a_row_wait_longer_and_longer(server: RawServer, connect: Connect, naps: list[float]) -> None:
    """From the second 429 in a row on, a growing backoff comes on top of a reset that turned out to be wrong."""
    server.script(*[limited(0.001)] * 5)
    await connect(retry=RetryPolicy(initial_backoff=1, max_backoff=3)).get_token(ACCOUNT, "t1")
    assert naps == [0.0, 1.0, 2.0, 3.0, 3.0]


async def test_another_answer_ends_the_row_of_429s(server: RawServer, connect: Connect) -> None:
    """Nine 429s, a 503 and nine more 429s are no ten in a row."""
    nine = [limited(0.001)] * 9
    server.script(*nine, reply(503), *nine)
    client = connect(retry=RetryPolicy(max_attempts=2, initial_backoff=0.001, max_backoff=0.002))
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert client.stats.rate_limited == 18


@pytest.mark.parametrize("known", [False, True])
async def test_a_429_pauses_all_calls(
    server: RawServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """After a 429 to one call, no other call is sent until the pause is over, with or without headers."""
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)
    client = connect(retry=RetryPolicy(initial_backoff=0.15), concurrency=5)
    await client.get_tokens(ACCOUNT, ["a", "b"])
    server.script(limited(0.15) if known else limited())
    first = asyncio.create_task(client.get_token(ACCOUNT, "c"))
    while not client.stats.rate_limited:  # noqa: ASYNC110 - a counter has no event
        await asyncio.sleep(0.001)
    others = asyncio.create_task(client.get_tokens(ACCOUNT, [f"t{number}" for number in range(9)]))
    await asyncio.sleep(0.05)
    assert len(server.requests) == 3
    await first
    assert len((await others).tokens) == 9
    assert server.requests[3].at - server.requests[2].at >= 0.15
    assert client.stats.rate_limited == 1


async def test_who_would_have_to_wait_too_long_is_told_at_once(server: RawServer, connect: Connect) -> None:
    """With the rate limit known to be spent, max_rate_limit_wait raises without sending and without sleeping."""
    server.script(reply(headers=rate_limit_headers(5, 0, 3000, 3600, **{"X-RateLimit-Name": "tokens"})))
    client = connect(retry=RetryPolicy(max_rate_limit_wait=2.5))
    await client.get_token(ACCOUNT, "t1")
    begun = time.monotonic()
    error = await failed(client, RateLimitError)
    assert time.monotonic() - begun < 1
    assert 2990 < error.retry_after <= 3001
    assert error.attempts == 0
    assert error.rate_limit is not None
    assert (error.rate_limit.limit, error.rate_limit.remaining, error.rate_limit.name) == (5, 0, "tokens")
    result = await client.get_tokens(ACCOUNT, ["a", "b"])
    assert {type(error) for error in result.errors.values()} == {RateLimitError}
    assert len(server.requests) == 1
    assert client.stats.rate_limit_wait_seconds == 0


async def test_the_pause_between_429s_is_a_wait_for_the_rate_limit_too(
    server: RawServer, connect: Connect, naps: list[float]
) -> None:
    """A second 429 in a row whose backoff is longer than max_rate_limit_wait raises at once instead of sleeping."""
    server.script(otherwise=reply(429, headers=rate_limit_headers(5, 0, 0, 1)))
    client = connect(retry=RetryPolicy(initial_backoff=10, max_backoff=10, max_rate_limit_wait=1.5))
    error = await failed(client, RateLimitError)
    assert error.retry_after is not None
    assert [nap for nap in naps if nap > 1.5] == []


async def test_all_waits_of_a_call_count_together(server: RawServer, connect: Connect) -> None:
    """Several short waits for the rate limit in one call add up to max_rate_limit_wait."""
    server.script(otherwise=limited(0.1))
    client = connect(retry=RetryPolicy(max_rate_limit_wait=0.25, initial_backoff=0))
    error = await failed(client, RateLimitError)
    assert error.attempts in {2, 3}  # each wait alone would be allowed; a slow machine makes them longer
    assert error.retry_after is not None


# What it costs


async def test_an_outage_does_not_multiply_the_load(server: RawServer, connect: Connect) -> None:
    """Three hundred failing IDs cost as many requests, a look at the list, and a hundred retries: not 1,500."""
    server.script(otherwise=reply(503))
    client = connect(retry=RetryPolicy(initial_backoff=0.0005, max_backoff=0.001))
    begun = time.monotonic()
    result = await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(300)])
    seconds = time.monotonic() - begun
    assert len(result.errors) == 300
    assert {type(error) for error in result.errors.values()} == {ServerError}
    assert 401 <= len(server.requests) <= 402 + seconds
    assert client.stats.retries == len(server.requests) - 301


async def test_429s_cost_no_retry_budget(server: RawServer, connect: Connect) -> None:
    """Waiting for the rate limit spends nothing of the retry budget, so that real failures still have all of it."""
    client = connect(retry=RetryPolicy(max_attempts=200, initial_backoff=0.0001, max_backoff=0.0001))
    for _ in range(13):
        server.script(*[limited()] * 9)
        await client.get_token(ACCOUNT, "t1")
    assert client.stats.rate_limited == 117
    server.script(*[reply(503)] * 95)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"


async def test_a_spent_budget_is_earned_back_by_successes(server: RawServer, connect: Connect) -> None:
    """Five successes earn one retry."""
    client = connect(retry=RetryPolicy(max_attempts=500, initial_backoff=0, max_backoff=0))
    stop_budget_refill(client)
    server.script(otherwise=reply(500))
    assert (await failed(client, ServerError)).attempts == 101
    refused = await failed(client, ServerError)
    assert refused.attempts == 1
    assert "not repeated: too many requests fail, and the client's retry budget is spent" in str(refused)
    server.script(otherwise=reply())
    await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(11)])
    server.script(otherwise=reply(500))
    assert (await failed(client, ServerError)).attempts == 3
    assert (await failed(client, ServerError)).attempts == 1


@pytest.mark.parametrize("act", [reply(503), reply(503, b"x" * 100_000), limited(), CUT_SHORT])
async def test_the_connection_is_free_before_the_wait(
    server: RawServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, act: Responder
) -> None:
    """While a call waits for its next try it holds no connection: one connection is enough for five such calls."""
    held: list[int] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        client = connect(session=session, retry=RetryPolicy(initial_backoff=0.01))

        async def nap(_seconds: float) -> None:
            held.append(connections_in_use(session))
            await asyncio.sleep(0.03)

        replace_retry_sleep(monkeypatch, nap)
        await client.get_token(ACCOUNT, "t1")
        server.script(*[act] * 5)
        calls = [client.get_token(ACCOUNT, f"t{number}") for number in range(5)]
        assert len(await asyncio.wait_for(asyncio.gather(*calls), 3)) == 5
    # While one call begins to wait, another one may be on the wire, but never the one that waits.
    assert held
    assert min(held) == 0


# Cancellation


@pytest.mark.parametrize("moment", ["retry", "rate limit", "concurrency", "queue", "answer"])
async def test_a_cancelled_call_gives_its_permit_back(server: RawServer, connect: Connect, moment: str) -> None:
    """A call that is cancelled wherever it waits is over at once, and the client goes on as if it had not been."""
    first: dict[str, Responder] = {
        "retry": reply(503, Retry_After="9"),
        "rate limit": reply(headers=rate_limit_headers(5, 0, 3000, 3600)),
        "queue": limited(9),
    }
    client = connect(concurrency=2, retry=RetryPolicy())
    server.script(first.get(moment, stall()), otherwise=reply() if moment in first else stall())
    if moment == "rate limit":
        await client.get_token(ACCOUNT, "t1")
    tasks = [asyncio.create_task(client.get_token(ACCOUNT, "t1")) for _ in range(1 if moment == "answer" else 4)]
    await server.arrival()
    await asyncio.sleep(0.03)
    if moment == "retry":  # behind a call that waits for its second try the others are sent, and answered
        await until(lambda: all(task.done() for task in tasks[1:]))
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, *[moment != "retry"] * (len(tasks) - 1)]
    assert (in_flight(client), waiting(client)) == (0, 0)
    if moment in {"rate limit", "queue"}:
        return  # the rate limit is gone for a while, as it should be
    server.script(otherwise=reply())
    assert (await asyncio.wait_for(client.get_token(ACCOUNT, "t1"), 3)).id == "t1"


async def test_a_cancelled_call_does_not_take_the_next_one_along(server: RawServer, connect: Connect) -> None:
    """With a concurrency of 1, the call behind a cancelled one is sent."""
    server.script(stall())
    client = connect(concurrency=1)
    first = asyncio.create_task(client.get_token(ACCOUNT, "first"))
    await server.arrival()
    waiting = [asyncio.create_task(client.get_token(ACCOUNT, name)) for name in ("second", "third")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    first.cancel()
    assert (await asyncio.wait_for(waiting[1], 3)).id == "third"
    assert [request.token_id for request in server.requests] == ["first", "third"]


async def test_waiting_for_concurrency_does_not_count_toward_the_timeout(server: RawServer, connect: Connect) -> None:
    """With a concurrency of 1 and slow answers, the last of several calls waits longer than `timeout` and succeeds."""

    async def slow(request: ReceivedRequest) -> None:
        await asyncio.sleep(0.05)
        await reply()(request)

    server.script(otherwise=slow)
    client = connect(concurrency=1, timeout=0.12, retry=ONCE)
    calls = [client.get_token(ACCOUNT, f"t{number}") for number in range(4)]
    assert len(await asyncio.gather(*calls)) == 4


async def test_waiting_for_the_limiter_does_not_count_toward_the_timeout(server: RawServer, connect: Connect) -> None:
    """A call waits for the rate limit longer than `timeout` and still succeeds."""
    server.script(limited(0.2))
    client = connect(timeout=0.1, retry=ONCE)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"


# What is logged


async def test_what_is_logged_at_which_level(
    server: RawServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry is a WARNING, a wait for the rate limit INFO, a request DEBUG; all say what they are about."""
    caplog.set_level(logging.DEBUG, "dd_sa_tokens")
    server.script(reply(503), limited(0.02))
    await connect(retry=FAST).get_token(ACCOUNT, "t1")
    records = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "dd_sa_tokens"]
    assert [level for level, _ in records] == ["DEBUG", "WARNING", "DEBUG", "WARNING", "INFO", "DEBUG"]
    request, retry, _, retry_429, wait, last = [text for _, text in records]
    path = f"/api/v2/service_accounts/{ACCOUNT}/access_tokens/t1"
    for text in (request, retry, retry_429, last):
        assert f"GET {path}" in text
    assert "503" in request
    assert "attempt 1" in request
    assert "503" in retry
    assert "attempt 2" in retry
    assert "429" in retry_429
    assert "rate limit" in wait
    assert "200" in last
    assert "attempt 3" in last


async def test_nothing_is_logged_when_all_is_well(
    server: RawServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Above DEBUG, successes and final errors are silent: they are the caller's to report."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    client = connect()
    await client.get_token(ACCOUNT, "t1")
    server.script(reply(404))
    await failed(client, NotFoundError)
    assert caplog.records == []


async def test_every_result_has_its_own_exception(server: RawServer, connect: Connect) -> None:
    """Errors of one bulk fetch are different objects, each about its own ID."""
    server.script(otherwise=reply(404))
    result = await connect().get_tokens(ACCOUNT, ["a", "b", "a"])
    errors = [item.error for item in result]
    assert len({id(error) for error in errors}) == 3
    assert [error.token_id for error in errors if error] == ["a", "b", "a"]


async def test_a_429_without_headers_lets_no_waiting_call_pass(
    server: RawServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a 429 no waiting call is sent before the pause is over, although concurrency is free."""
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)
    server.script(reply(200), reply(429))
    client = connect(concurrency=1, retry=RetryPolicy(initial_backoff=0.3))
    await client.get_token(ACCOUNT, "t1")
    await asyncio.gather(*(client.get_token(ACCOUNT, "t1") for _ in range(3)))
    rejected_at, *later = [request.at for request in server.requests[1:]]
    assert len(later) == 3
    assert later[0] - rejected_at > 0.25
