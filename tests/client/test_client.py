"""The client: settings, what goes out, what comes back, and who owns what. aiohttp is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses
from support.calls import FAST, ONCE, Connect
from support.internals import forget_faults, in_flight, session_of
from support.keys import ACCESS_TOKEN, ACCOUNT, API_KEY, APP_KEY, KEYS
from support.mocked import PATH, US1, sent
from support.payloads import rate_limit_headers, resource
from support.replies import ReceivedRequest, reply
from support.servers import RawServer
from yarl import URL

import dd_sa_tokens
from dd_sa_tokens import (
    APIError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimit,
    RateLimitError,
    RetryPolicy,
    ServerError,
    Site,
    TokensClient,
    TransportError,
    UnauthorizedError,
)
from dd_sa_tokens.testing import FakeDatadog

SITES = [
    "datadoghq.com",
    "us3.datadoghq.com",
    "us5.datadoghq.com",
    "datadoghq.eu",
    "ap1.datadoghq.com",
    "ap2.datadoghq.com",
    "uk1.datadoghq.com",
    "ddog-gov.com",
    "us2.ddog-gov.com",
]


def only_headers(mocked: aioresponses) -> dict[str, str]:
    [(_, _, options)] = sent(mocked)
    return dict(options["headers"])


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("as_enum", [False, True])
async def test_every_site_is_asked_at_its_own_host(mocked: aioresponses, site: str, as_enum: bool) -> None:
    """A token is asked for with one GET at the documented URL of the site, given as a string or as `Site`."""
    mocked.get(f"https://api.{site}{PATH}", payload={"data": resource()})
    async with TokensClient(**KEYS, site=Site(site) if as_enum else site) as client:
        token = await client.get_token(ACCOUNT, "t1")
    assert (token.id, token.name, token.scopes) == ("t1", "name of t1", ("dashboards_read",))
    [(method, url, options)] = sent(mocked)
    assert (method, str(url)) == ("GET", f"https://api.{site}{PATH}")
    assert options["allow_redirects"] is False


def test_all_known_sites_are_tested() -> None:
    """The list of sites above is the whole of `Site`."""
    assert sorted(SITES) == sorted(Site)


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (KEYS, {"DD-API-KEY": API_KEY, "DD-APPLICATION-KEY": APP_KEY}),
        ({"access_token": ACCESS_TOKEN}, {"Authorization": f"Bearer {ACCESS_TOKEN}"}),
        ({"app_key": ACCESS_TOKEN}, {"DD-APPLICATION-KEY": ACCESS_TOKEN}),
        ({"api_key": API_KEY, "app_key": ACCESS_TOKEN}, {"DD-API-KEY": API_KEY, "DD-APPLICATION-KEY": ACCESS_TOKEN}),
    ],
    ids=["key pair", "bearer", "token as application key", "token beside an API key"],
)
@pytest.mark.parametrize("from_environment", [False, True])
async def test_credentials_go_into_the_documented_headers(
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    credentials: dict[str, str],
    expected: dict[str, str],
    from_environment: bool,
) -> None:
    """Each form of credentials is sent in its own headers and no others, from arguments and from the environment."""
    if from_environment:
        for name, value in credentials.items():
            monkeypatch.setenv(f"DD_{name.upper()}", value)
    async with TokensClient(base_url=server.url, **({} if from_environment else credentials)) as client:
        await client.get_token(ACCOUNT, "t1")
    (request,) = server.requests
    names = {"dd-api-key", "dd-application-key", "authorization"}
    sent = {name: value for name, value in request.headers.items() if name in names}
    assert sent == {name.lower(): value for name, value in expected.items()}


async def test_each_request_says_what_it_takes_and_who_asks(mocked: aioresponses, client: TokensClient) -> None:
    """Accept asks for JSON, and User-Agent names this package with its version."""
    mocked.get(US1, payload={"data": resource()})
    await client.get_token(ACCOUNT, "t1")
    headers = only_headers(mocked)
    assert headers["Accept"] == "application/json"
    assert headers["User-Agent"].startswith(f"dd-sa-tokens/{dd_sa_tokens.__version__} ")
    assert f"aiohttp/{aiohttp.__version__}" in headers["User-Agent"]


async def test_arguments_win_over_the_environment_as_a_whole(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a credential argument, none is taken from the environment, not even to complete it or to clash with it."""
    monkeypatch.setenv("DD_ACCESS_TOKEN", "ddsat_of_somebody_else")
    monkeypatch.setenv("DD_API_KEY", "somebody_elses")
    async with TokensClient(base_url=server.url, app_key=ACCESS_TOKEN) as client:
        await client.get_token(ACCOUNT, "t1")
    headers = server.requests[0].headers
    assert headers["dd-application-key"] == ACCESS_TOKEN
    assert not {"authorization", "dd-api-key"} & headers.keys()


async def test_site_and_base_url(mocked: aioresponses, monkeypatch: pytest.MonkeyPatch) -> None:
    """DD_SITE is followed, and a base URL with a path replaces it."""
    monkeypatch.setenv("DD_SITE", "us5.datadoghq.com")
    mocked.get(f"https://api.us5.datadoghq.com{PATH}", payload={"data": resource()})
    mocked.get(f"https://proxy.example.com/datadog{PATH}", payload={"data": resource()})
    async with TokensClient(**KEYS) as client:
        await client.get_token(ACCOUNT, "t1")
    async with TokensClient(**KEYS, base_url="https://proxy.example.com/datadog/") as client:
        await client.get_token(ACCOUNT, "t1")
    assert {url.host for _, url, _ in sent(mocked)} == {"api.us5.datadoghq.com", "proxy.example.com"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, UnauthorizedError),
        (402, APIError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, APIError),
        (408, APIError),
        (409, ConflictError),
        (410, APIError),
        (422, APIError),
        (429, RateLimitError),
        (451, APIError),
        (499, APIError),
        (500, ServerError),
        (501, ServerError),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
        (505, ServerError),
        (512, ServerError),
        (599, ServerError),
    ],
)
async def test_every_error_status_has_its_class(mocked: aioresponses, status: int, kind: type[APIError]) -> None:
    """A status becomes exactly its class, with all that the answer said and what the call was about."""
    headers = rate_limit_headers(
        100, 7, 3, **{"X-RateLimit-Name": "tokens", "X-Request-Id": "req-1", "Retry-After": "2"}
    )
    if status == 429:  # a 429 with a reset is waited for, even if max_attempts is 1
        headers["X-RateLimit-Reset"] = headers["Retry-After"] = "junk"
    mocked.get(US1, status=status, payload={"errors": ["one", "two"]}, headers=headers)
    async with TokensClient(**KEYS, retry=ONCE) as client:
        with pytest.raises(APIError) as caught:
            await client.get_token(ACCOUNT, "t1")
    error = caught.value
    assert type(error) is kind
    assert error.status == status
    assert error.errors == ("one", "two")
    assert error.rate_limit == RateLimit(100, 10.0, 7, None if status == 429 else 3.0, "tokens")
    assert error.retry_after == (None if status == 429 else 2.0)
    assert error.request_id == "req-1"
    assert (error.operation, error.service_account_id, error.token_id) == ("get_token", ACCOUNT, "t1")
    assert (error.attempts, error.outcome_unknown) == (1, False)
    for part in (str(status), "one", "two", "get_token", ACCOUNT, "t1", "1 attempt", "req-1"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "$"),
        (b"<html>", "$"),
        (b"[]", "$"),
        (b"{}", "$.data"),
        (b'{"data": {"type": "service_access_tokens"}}', "$.data.id"),
        (b'{"data": {"id": "t2", "type": "service_access_tokens"}}', "$.data.id"),
        (b'{"data": {"id": "t1", "attributes": {"created_at": "yesterday"}}}', "$.data.attributes.created_at"),
    ],
)
async def test_an_answer_that_is_not_as_documented(
    mocked: aioresponses, client: TokensClient, body: bytes, path: str
) -> None:
    """A 200 with another body is an `InvalidResponseError` that says where it differs, with the call's context."""
    mocked.get(US1, body=body)
    with pytest.raises(InvalidResponseError) as caught:
        await client.get_token(ACCOUNT, "t1")
    error = caught.value
    assert error.path == path
    assert path in str(error)
    assert (error.operation, error.service_account_id, error.token_id, error.attempts) == (
        "get_token",
        ACCOUNT,
        "t1",
        1,
    )


async def test_the_content_type_does_not_matter(mocked: aioresponses, client: TokensClient) -> None:
    """The API answers with a JSON:API content type, which is read like any other."""
    mocked.get(US1, payload={"data": resource()}, content_type="application/vnd.api+json")
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"api_key": None, "app_key": None}, "api_key"),
        ({"app_key": None}, "app_key"),
        ({"api_key": None}, "api_key"),
        ({"access_token": ACCESS_TOKEN}, "access_token"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": 7}, "api_key"),
        ({"app_key": f"{APP_KEY}\n"}, "app_key"),
        ({"app_key": f"{APP_KEY[:9]} {APP_KEY[9:]}"}, "app_key"),
        ({"app_key": f"{APP_KEY}é"}, "app_key"),
        ({"site": "datadoghq.org"}, "site"),
        ({"site": "api.datadoghq.com"}, "site"),
        ({"site": "https://datadoghq.com"}, "site"),
        ({"site": ""}, "site"),
        ({"site": 1}, "site"),
        ({"site": "datadoghq.com", "base_url": "https://proxy.example.com"}, "base_url"),
        ({"base_url": "http://proxy.example.com"}, "base_url"),
        ({"base_url": "https://me:secret@proxy.example.com"}, "base_url"),
        ({"base_url": "https://proxy.example.com/?a=b"}, "base_url"),
        ({"base_url": "ftp://proxy.example.com"}, "base_url"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": URL("https://proxy.example.com")}, "base_url"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": "50"}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": None}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"rate_limit_reserve": 1.0}, "rate_limit_reserve"),
        ({"rate_limit_reserve": -0.1}, "rate_limit_reserve"),
        ({"retry": None}, "retry"),
        ({"retry": 3}, "retry"),
        ({"session": "a session"}, "session"),
    ],
)
def test_a_bad_setting_is_refused_at_once(mocked: aioresponses, options: dict[str, Any], named: str) -> None:
    """A setting that cannot be right is named by a `ConfigurationError`, a `ValueError`, before anything is sent."""
    with pytest.raises(ConfigurationError, match=named) as caught:
        TokensClient(**(KEYS | options))
    assert isinstance(caught.value, ValueError)
    assert API_KEY not in str(caught.value)
    assert APP_KEY not in str(caught.value)
    mocked.assert_not_called()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 2.0),
        ("initial_backoff", -1),
        ("max_backoff", float("inf")),
        ("max_rate_limit_wait", -0.1),
        ("max_rate_limit_wait", "1"),
    ],
)
def test_a_bad_retry_policy_is_refused_at_once(name: str, value: Any) -> None:
    """The policy's own values are checked when it is made, and named."""
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize("bad", ["", ".", "..", "a\nb", "\x7f", "x" * 257, 7, None, b"t1"])
async def test_a_bad_id_is_refused_before_anything_is_sent(
    mocked: aioresponses, client: TokensClient, bad: Any
) -> None:
    """An invalid ID is named by an `InvalidArgumentError`, as either argument."""
    with pytest.raises(InvalidArgumentError, match="token_id") as caught:
        await client.get_token(ACCOUNT, bad)
    assert (caught.value.operation, caught.value.attempts) == ("get_token", 0)
    with pytest.raises(InvalidArgumentError, match="service_account_id"):
        await client.get_token(bad, "t1")
    with pytest.raises(InvalidArgumentError, match="service_account_id"):
        await client.get_tokens(bad, ["t1"])
    with pytest.raises(InvalidArgumentError, match="service_account_id"):
        client.stream_tokens(bad, ["t1"])
    mocked.assert_not_called()


@pytest.mark.parametrize("bad", ["t1", b"t1", 7, None])
async def test_token_ids_must_be_a_collection(mocked: aioresponses, client: TokensClient, bad: Any) -> None:
    """A single ID where many belong is refused: a `str` would be taken letter by letter."""
    with pytest.raises(InvalidArgumentError, match="token_ids"):
        await client.get_tokens(ACCOUNT, bad)
    with pytest.raises(InvalidArgumentError, match="token_ids"):
        client.stream_tokens(ACCOUNT, bad)
    mocked.assert_not_called()


@pytest.mark.parametrize("bad", ["", "GET", "fast", None, 1])
async def test_an_unknown_strategy_is_refused(mocked: aioresponses, client: TokensClient, bad: Any) -> None:
    """A strategy that there is not is named, before the first ID is taken."""
    ids = iter(["t1"])
    with pytest.raises(InvalidArgumentError, match="strategy"):
        await client.get_tokens(ACCOUNT, ids, strategy=bad)
    with pytest.raises(InvalidArgumentError, match="strategy"):
        client.stream_tokens(ACCOUNT, ids, strategy=bad)
    assert list(ids) == ["t1"]
    mocked.assert_not_called()


async def test_many_tokens_in_order(mocked: aioresponses, client: TokensClient) -> None:
    """One result for each position, in order; a failed one beside the good ones, and a bad ID at its position."""
    for name in ("a", "b"):
        mocked.get(US1.replace("t1", name), payload={"data": resource(name)})
    mocked.get(US1.replace("t1", "c"), status=404, payload={"errors": ["no such token"]})
    result = await client.get_tokens(ACCOUNT, ["a", "c", "a", "", "b"])
    assert [item.token_id for item in result] == ["a", "c", "a", "", "b"]
    assert [item.ok for item in result] == [True, False, True, False, True]
    assert isinstance(result.errors["c"], NotFoundError)
    assert isinstance(result.errors[""], InvalidArgumentError)
    assert set(result.tokens) == {"a", "b"}
    assert len(sent(mocked)) == 3


async def test_a_stream_of_tokens(mocked: aioresponses, client: TokensClient) -> None:
    """A stream takes an async iterable and yields each result once."""
    for name in "abc":
        mocked.get(US1.replace("t1", name), payload={"data": resource(name)})

    async def ids() -> Any:
        for name in "abc":
            yield name

    assert {item.token_id: item.unwrap().id async for item in client.stream_tokens(ACCOUNT, ids())} == {
        name: name for name in "abc"
    }


async def test_stats_count_what_was_done(mocked: aioresponses) -> None:
    """Requests, retries and 429s are counted, and a snapshot does not change afterwards."""
    async with TokensClient(**KEYS, retry=FAST) as client:
        before = client.stats
        mocked.get(US1, status=429, headers={"X-RateLimit-Reset": "0"})
        mocked.get(US1, status=503)
        mocked.get(US1, payload={"data": resource()})
        await client.get_token(ACCOUNT, "t1")
        assert (before.requests, before.retries, before.rate_limited, before.rate_limit_wait_seconds) == (0, 0, 0, 0.0)
        after = client.stats
    assert (after.requests, after.retries, after.rate_limited) == (3, 2, 1)
    assert client.stats == after


async def test_a_retry_that_is_never_sent_is_not_counted(mocked: aioresponses) -> None:
    """A call that gives up instead of waiting for the rate limit has not retried."""
    mocked.get(US1, status=429, headers=rate_limit_headers(100, 0, 3600, 3600))
    async with TokensClient(**KEYS, retry=RetryPolicy(max_rate_limit_wait=1)) as client:
        with pytest.raises(RateLimitError):
            await client.get_token(ACCOUNT, "t1")
        assert (client.stats.requests, client.stats.retries, client.stats.rate_limited) == (1, 0, 1)


async def test_the_rate_limit_can_be_read(mocked: aioresponses, client: TokensClient) -> None:
    """`rate_limit` is unknown at first, then what the headers said; an answer with a higher count does not raise it."""
    assert client.rate_limit is None
    for left in (41, 57):
        mocked.get(US1, payload={"data": resource()}, headers=rate_limit_headers(100, left, 3000, 3600))
    await client.get_token(ACCOUNT, "t1")
    await client.get_token(ACCOUNT, "t1")
    seen = client.rate_limit
    assert seen is not None
    assert (seen.limit, seen.period, seen.remaining, seen.name) == (100, 3600.0, 41, None)
    assert seen.reset is not None
    assert 0 < seen.reset <= 3001


async def test_only_the_client_s_own_session_is_closed(mocked: aioresponses) -> None:
    """A borrowed session is used and stays open; one that the client made is closed with it."""
    mocked.get(US1, payload={"data": resource()}, repeat=True)
    async with aiohttp.ClientSession() as session:
        async with TokensClient(**KEYS, session=session) as client:
            await client.get_token(ACCOUNT, "t1")
        assert not session.closed
    client = TokensClient(**KEYS)
    await client.get_token(ACCOUNT, "t1")
    own = session_of(client)
    assert own is not None
    assert not own.closed
    await client.close()
    assert own.closed


async def test_a_closed_session_cannot_be_borrowed() -> None:
    """A session that is closed already is refused when the client is made."""
    session = aiohttp.ClientSession()
    await session.close()
    with pytest.raises(ConfigurationError, match="session"):
        TokensClient(**KEYS, session=session)


@pytest.mark.parametrize("used", [False, True])
async def test_a_closed_client_says_so(mocked: aioresponses, used: bool) -> None:
    """Each call after `close` raises `ClientClosedError` and opens nothing; closing again is no error."""
    mocked.get(US1, payload={"data": resource()})
    client = TokensClient(**KEYS)
    if used:
        await client.get_token(ACCOUNT, "t1")
    await client.close()
    await client.close()
    with pytest.raises(ClientClosedError):
        await client.get_token(ACCOUNT, "t1")
    with pytest.raises(ClientClosedError):
        await client.get_tokens(ACCOUNT, ["t1"])
    with pytest.raises(ClientClosedError):
        [item async for item in client.stream_tokens(ACCOUNT, ["t1"])]
    with pytest.raises(ClientClosedError):
        async with client:
            pass
    assert len(sent(mocked)) == used
    session = session_of(client)
    left_open = session is not None and not session.closed
    if session is not None:
        await session.close()  # else another test would have to answer for it
    assert not left_open


async def test_nothing_is_opened_before_it_is_needed() -> None:
    """A client that is never used has no session, so it may be made anywhere and dropped."""
    async with TokensClient(**KEYS) as client:
        assert session_of(client) is None


def test_a_client_may_be_made_where_no_loop_runs(mocked: aioresponses) -> None:
    """A client made at import time is usable under the loop that runs later."""
    client = TokensClient(**KEYS)
    mocked.get(US1, payload={"data": resource()})

    async def main() -> str:
        async with client:
            return (await client.get_token(ACCOUNT, "t1")).id

    assert asyncio.run(main()) == "t1"


@pytest.fixture
def two_loops() -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]]:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    yield first, second
    for loop in (first, second):
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_a_second_loop_is_refused(
    mocked: aioresponses, two_loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]
) -> None:
    """Under another loop than before, a client says that this is what is wrong; under its own it works on."""
    first, second = two_loops
    mocked.get(US1, payload={"data": resource()}, repeat=True)
    client = TokensClient(**KEYS)
    first.run_until_complete(client.get_token(ACCOUNT, "t1"))
    try:
        with pytest.raises(ConfigurationError, match="event loop"):
            second.run_until_complete(client.get_token(ACCOUNT, "t1"))
        with pytest.raises(ConfigurationError, match="event loop"):
            second.run_until_complete(client.get_tokens(ACCOUNT, ["t1"]))
        assert first.run_until_complete(client.get_token(ACCOUNT, "t1")).id == "t1"
    finally:
        first.run_until_complete(client.close())


def test_a_session_of_another_loop_is_refused(
    two_loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop],
) -> None:
    """A borrowed session of another loop is an error that says so."""
    first, second = two_loops

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    session = first.run_until_complete(open_session())
    try:
        client = TokensClient(**KEYS, session=session, base_url="http://127.0.0.1:9", retry=ONCE, timeout=2)
        with pytest.raises(DatadogError, match="event loop"):
            second.run_until_complete(client.get_token(ACCOUNT, "t1"))
    finally:
        first.run_until_complete(session.close())


async def test_concurrency_holds_over_all_calls(server: RawServer, connect: Connect) -> None:
    """Concurrent calls, single and bulk, share the client's concurrency."""
    most = running = 0

    async def slow(request: ReceivedRequest) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        await reply()(request)

    server.script(otherwise=slow)
    client = connect(concurrency=3)
    ids = [f"t{number}" for number in range(10)]
    await asyncio.gather(
        client.get_tokens(ACCOUNT, ids, strategy="get"),
        client.get_tokens(ACCOUNT, ids, strategy="get"),
        *(client.get_token(ACCOUNT, token_id) for token_id in ids),
    )
    assert most == 3
    assert len(server.requests) == 30


async def test_a_mocked_failure_of_aiohttp(mocked: aioresponses, client: TokensClient) -> None:
    """Any exception of aiohttp becomes a `TransportError` without its words, which may quote the server."""
    mocked.get(US1, exception=aiohttp.ClientPayloadError("canary of the server"))
    with pytest.raises(TransportError) as caught:
        await client.get_token(ACCOUNT, "t1")
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


async def test_what_is_sent_may_be_answered_by_a_function(mocked: aioresponses, client: TokensClient) -> None:
    """Concurrent calls of single tokens each get their own answer."""

    def answer(url: URL, **_: Any) -> CallbackResult:
        return CallbackResult(payload={"data": resource(url.path.rsplit("/", 1)[1])})

    for name in "abcd":
        mocked.get(US1.replace("t1", name), callback=answer)
    tokens = await asyncio.gather(*(client.get_token(ACCOUNT, name) for name in "abcd"))
    assert [token.id for token in tokens] == list("abcd")


# A whole run


async def test_a_hundred_tokens_through_a_rate_limit() -> None:
    """100 tokens through 50 requests a second: each ID is answered once, in order, and every 429 is counted.

    Whether there are any depends on the machine: in windows of a second, a loop that stalls sends too late. In virtual
    time there are none: `ratelimit/test_simulation.py`.
    """
    async with FakeDatadog(tokens=100, rate_limit=(50, 1.0), latency=0.005, rate_limit_used=5) as datadog:
        async with TokensClient(base_url=datadog.url, access_token=datadog.access_token) as client:
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
            stats = client.stats
        expected = datadog.tokens
    assert [item.unwrap() for item in result] == list(expected)
    assert datadog.requests == stats.requests == 100 + datadog.rejected
    assert stats.rate_limited == stats.retries == datadog.rejected
    assert stats.rate_limit_wait_seconds > 0


async def test_a_stream_through_a_rate_limit_and_an_outage() -> None:
    """With failures among them, each ID is still answered exactly once."""
    async with FakeDatadog(tokens=300, rate_limit=(150, 1.0), latency=0.005) as datadog:
        for fault in ({"status": 503}, {"drop": True}, {"truncate": True}, {"status": 429}) * 5:
            datadog.fail_next(**fault)
        policy = RetryPolicy(initial_backoff=0.01)
        async with TokensClient(
            base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key, retry=policy
        ) as client:
            items = [
                item
                async for item in client.stream_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
            ]
        ids = datadog.token_ids
    assert sorted(item.token_id for item in items) == sorted(ids)
    assert all(item.ok for item in items)


# Borrowed sessions


async def test_a_borrowed_session_with_few_connections_loses_nothing() -> None:
    """No more are in flight than its connector has connections: none waits for one while its time runs."""
    async with (
        FakeDatadog(tokens=40, latency=0.1) as datadog,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=5)) as session,
        TokensClient(
            base_url=datadog.url, access_token=datadog.access_token, session=session, timeout=0.4, retry=ONCE
        ) as client,
    ):
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
        assert len(result.tokens) == datadog.requests == 40


async def test_closing_ends_a_call_that_was_just_let_through() -> None:
    """Once `close` was called nothing is sent, not even what had waited and may go in the same moment."""
    async with FakeDatadog(tokens=2, latency=0.02) as datadog, aiohttp.ClientSession() as session:
        client = TokensClient(base_url=datadog.url, access_token=datadog.access_token, session=session, concurrency=1)
        first, second = (
            asyncio.create_task(client.get_token(datadog.service_account_id, token_id))
            for token_id in datadog.token_ids
        )
        first.add_done_callback(lambda _: asyncio.ensure_future(client.close()))
        await asyncio.wait([first, second])
        assert first.result().id == datadog.token_ids[0]
        assert isinstance(second.exception(), ClientClosedError)
        assert in_flight(client) == 0


async def test_an_outage_costs_little_more_than_a_request_for_each_id() -> None:
    """300 IDs all answered 503: at most 500 requests, the real error for each, and the client works afterwards."""
    async with FakeDatadog(tokens=300) as datadog:
        datadog.fail_next(3_000, status=503)
        policy = RetryPolicy(max_attempts=8, initial_backoff=0.01)
        async with TokensClient(base_url=datadog.url, access_token=datadog.access_token, retry=policy) as client:
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
            assert {type(error) for error in result.errors.values()} == {ServerError}
            assert len(result) == len(result.errors) == 300
            assert 300 < datadog.requests <= 500
            forget_faults(datadog)
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
            assert len(result.tokens) == 300
