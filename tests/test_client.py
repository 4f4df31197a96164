"""The door: what goes out, what comes back, and who owns what. aiohttp is replaced; see test_transport for sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses
from conftest import (
    ACCESS_TOKEN,
    ACCOUNT,
    API_KEY,
    APP_KEY,
    FAST,
    KEYS,
    ONCE,
    Connect,
    Exchange,
    RawServer,
    quota,
    reply,
    resource,
)
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

SAMPLES = Path(__file__).parent / "samples"
TOKENS = f"/api/v2/service_accounts/{ACCOUNT}/access_tokens"
PATH = f"{TOKENS}/t1"
US1 = f"https://api.datadoghq.com{PATH}"
US1_TOKENS = f"https://api.datadoghq.com{TOKENS}"
FAR = datetime(2999, 4, 8, 18, 45, 35, 914000, tzinfo=timezone(timedelta(hours=2)))

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


def sent(mocked: aioresponses) -> list[tuple[str, URL, dict[str, Any]]]:
    """Return what went out: method, URL and options."""
    return [(method, url, call.kwargs) for (method, url), calls in mocked.requests.items() for call in calls]


def only_headers(mocked: aioresponses) -> dict[str, str]:
    [(_, _, options)] = sent(mocked)
    return dict(options["headers"])


@pytest.fixture
async def client() -> Any:
    async with TokensClient(**KEYS, retry=ONCE) as client:
        yield client


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
    mocked: aioresponses,
    monkeypatch: pytest.MonkeyPatch,
    credentials: dict[str, str],
    expected: dict[str, str],
    from_environment: bool,
) -> None:
    """Each form of credentials is sent in its own headers and no others, from arguments and from the environment."""
    mocked.get(US1, payload={"data": resource()})
    if from_environment:
        for name, value in credentials.items():
            monkeypatch.setenv(f"DD_{name.upper()}", value)
    async with TokensClient(**({} if from_environment else credentials)) as client:
        await client.get_token(ACCOUNT, "t1")
    headers = only_headers(mocked)
    names = {"DD-API-KEY", "DD-APPLICATION-KEY", "Authorization"}
    assert {name: value for name, value in headers.items() if name in names} == expected


async def test_each_request_says_what_it_takes_and_who_asks(mocked: aioresponses, client: TokensClient) -> None:
    """Accept asks for JSON, and User-Agent names this package with its version."""
    mocked.get(US1, payload={"data": resource()})
    await client.get_token(ACCOUNT, "t1")
    headers = only_headers(mocked)
    assert headers["Accept"] == "application/json"
    assert headers["User-Agent"].startswith(f"dd-sa-tokens/{dd_sa_tokens.__version__} ")
    assert f"aiohttp/{aiohttp.__version__}" in headers["User-Agent"]


async def test_arguments_win_over_the_environment_as_a_whole(
    mocked: aioresponses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a credential argument, none is taken from the environment, not even to complete it or to clash with it."""
    monkeypatch.setenv("DD_ACCESS_TOKEN", "ddsat_of_somebody_else")
    monkeypatch.setenv("DD_API_KEY", "somebody_elses")
    mocked.get(US1, payload={"data": resource()})
    async with TokensClient(app_key=ACCESS_TOKEN) as client:
        await client.get_token(ACCOUNT, "t1")
    headers = only_headers(mocked)
    assert headers["DD-APPLICATION-KEY"] == ACCESS_TOKEN
    assert not {"Authorization", "DD-API-KEY"} & headers.keys()


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
    headers = quota(100, 7, 3, **{"X-RateLimit-Name": "tokens", "X-Request-Id": "req-1", "Retry-After": "2"})
    if status == 429:  # one that says when the quota returns is waited for, whatever max_attempts is
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
        ({"quota_reserve": 1.0}, "quota_reserve"),
        ({"quota_reserve": -0.1}, "quota_reserve"),
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
    """An ID that cannot be one is named by an `InvalidArgumentError`, in either place."""
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
        assert (before.requests, before.retries, before.rate_limited, before.quota_wait_seconds) == (0, 0, 0, 0.0)
        after = client.stats
    assert (after.requests, after.retries, after.rate_limited) == (3, 2, 1)
    assert client.stats == after


async def test_a_retry_that_is_never_sent_is_not_counted(mocked: aioresponses) -> None:
    """A call that gives up instead of waiting for the quota has not retried."""
    mocked.get(US1, status=429, headers=quota(100, 0, 3600, 3600))
    async with TokensClient(**KEYS, retry=RetryPolicy(max_rate_limit_wait=1)) as client:
        with pytest.raises(RateLimitError):
            await client.get_token(ACCOUNT, "t1")
        assert (client.stats.requests, client.stats.retries, client.stats.rate_limited) == (1, 0, 1)


async def test_the_quota_can_be_looked_at(mocked: aioresponses, client: TokensClient) -> None:
    """`rate_limit` is unknown at first, then what the headers said; an answer with a higher count does not raise it."""
    assert client.rate_limit is None
    for left in (41, 57):
        mocked.get(US1, payload={"data": resource()}, headers=quota(100, left, 3000, 3600))
    await client.get_token(ACCOUNT, "t1")
    await client.get_token(ACCOUNT, "t1")
    seen = client.rate_limit
    assert seen is not None
    assert (seen.limit, seen.period, seen.remaining, seen.name) == (100, 3600.0, 41, None)
    assert seen.reset is not None
    assert 0 < seen.reset <= 3001


async def test_only_the_client_s_own_session_is_closed(mocked: aioresponses) -> None:
    """A session that was lent is used and stays open; one that the client made is closed with it."""
    mocked.get(US1, payload={"data": resource()}, repeat=True)
    async with aiohttp.ClientSession() as session:
        async with TokensClient(**KEYS, session=session) as client:
            await client.get_token(ACCOUNT, "t1")
        assert not session.closed
    client = TokensClient(**KEYS)
    await client.get_token(ACCOUNT, "t1")
    own = client._pipeline._transport._session
    assert own is not None
    assert not own.closed
    await client.close()
    assert own.closed


async def test_a_closed_session_cannot_be_lent() -> None:
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
    session = client._pipeline._transport._session
    left_open = session is not None and not session.closed
    if session is not None:
        await session.close()  # else another test would have to answer for it
    assert not left_open


async def test_nothing_is_opened_before_it_is_needed() -> None:
    """A client that is never used has no session, so it may be made anywhere and dropped."""
    async with TokensClient(**KEYS) as client:
        assert client._pipeline._transport._session is None


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
    """A lent session that belongs to another loop is an error that says so, not a riddle."""
    first, second = two_loops

    async def lend() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    session = first.run_until_complete(lend())
    try:
        client = TokensClient(**KEYS, session=session, base_url="http://127.0.0.1:9", retry=ONCE, timeout=2)
        with pytest.raises(DatadogError, match="event loop"):
            second.run_until_complete(client.get_token(ACCOUNT, "t1"))
    finally:
        first.run_until_complete(session.close())


async def test_concurrency_holds_over_all_calls(server: RawServer, connect: Connect) -> None:
    """Calls side by side, single and bulk, share the client's places."""
    most = running = 0

    async def slow(exchange: Exchange) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        await reply()(exchange)

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


# List, create, update and revoke


def answered(case: str, status: int = 200) -> dict[str, Any]:
    """Return a recorded answer."""
    document: dict[str, Any] = json.loads((SAMPLES / case / f"{status}.json").read_text())
    return document


def page(numbers: range, total: int) -> dict[str, Any]:
    meta = {"page": {"total_filtered_count": total}}
    return {"data": [resource(f"t{number}") for number in numbers], "meta": meta}


def page_url(number: int, size: int = 100, **more: str) -> str:
    query = {"page[size]": str(size), "page[number]": str(number)} | more
    return str(URL(US1_TOKENS).with_query(query))


def only_request(mocked: aioresponses) -> tuple[str, URL, bytes | None, dict[str, str]]:
    """Return the one request that went out: method, URL, body and headers."""
    [(method, url, options)] = sent(mocked)
    assert options["allow_redirects"] is False
    return method, url, options.get("data"), dict(options["headers"])


@pytest.mark.parametrize(("case", "count"), [("list", 2), ("list_empty", 0)])
async def test_a_list_is_the_documented_request(
    mocked: aioresponses, client: TokensClient, case: str, count: int
) -> None:
    """A list is a GET of its pages, the first one being number 0, without a body; its tokens are those of a get."""
    mocked.get(page_url(0), payload=answered(case))
    tokens = [token async for token in client.list_tokens(ACCOUNT)]
    assert [token.name for token in tokens] == ["nightly-export", "billing-sync"][:count]
    method, url, body, headers = only_request(mocked)
    assert (method, url.path, body) == ("GET", TOKENS, None)
    assert dict(url.query) == {"page[size]": "100", "page[number]": "0"}
    assert headers.keys() == {"Accept", "User-Agent", "DD-API-KEY", "DD-APPLICATION-KEY"}


async def test_a_list_s_options_go_into_its_query(mocked: aioresponses, client: TokensClient) -> None:
    """Filter, sort and page size are those of every page, and the tokens come in the pages' order."""
    more = {"sort": "-created_at", "filter": "a&b=ü"}
    for number in range(3):
        mocked.get(page_url(number, 2, **more), payload=page(range(2 * number, min(2 * number + 2, 5)), 5))
    tokens = client.list_tokens(ACCOUNT, filter="a&b=ü", sort="-created_at", page_size=2)
    assert [token.id async for token in tokens] == ["t0", "t1", "t2", "t3", "t4"]
    queries = [dict(url.query) for _, url, _ in sent(mocked)]
    assert queries == [{"page[size]": "2", "page[number]": str(number)} | more for number in range(3)]


async def test_a_create_is_the_recorded_request(mocked: aioresponses, client: TokensClient) -> None:
    """A create is a POST of the recorded JSON; it gives the token and, once, its key."""
    mocked.post(US1_TOKENS, status=201, payload=answered("create", 201), content_type="application/vnd.api+json")
    created = await client.create_token(ACCOUNT, name="deploy-bot", scopes=["dashboards_read"])
    assert created.key.reveal() == "ddsat_4RsLg6IwOz0KvFh7YeBuJm_not-a-real-key"
    assert (created.token.name, created.token.scopes) == ("deploy-bot", ("dashboards_read",))
    assert (created.token.expires_at, created.token.last_used_at) == (None, None)
    assert created.token.created_at == datetime(2026, 5, 11, 19, 22, 48, 305117, tzinfo=UTC)
    method, url, body, headers = only_request(mocked)
    assert (method, url) == ("POST", URL(US1_TOKENS))
    assert json.loads(body or b"") == json.loads((SAMPLES / "create" / "request.json").read_text())
    assert b" " not in (body or b"")
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept"] == "application/json"
    assert headers["DD-API-KEY"] == API_KEY


@pytest.mark.parametrize("scopes", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}.keys()])
async def test_a_create_with_all_that_there_is(mocked: aioresponses, client: TokensClient, scopes: Any) -> None:
    """Scopes from any collection are sent as an array, and the end of its life in UTC."""
    mocked.post(US1_TOKENS, status=201, payload=answered("create", 201))
    await client.create_token(ACCOUNT, name="Ü", scopes=scopes, expires_at=FAR)
    _, _, body, _ = only_request(mocked)
    attributes = '{"name":"Ü","scopes":["a","b"],"expires_at":"2999-04-08T16:45:35.914000Z"}'
    assert (body or b"").decode() == f'{{"data":{{"attributes":{attributes},"type":"service_access_tokens"}}}}'


async def test_an_update_is_the_recorded_request(mocked: aioresponses, client: TokensClient) -> None:
    """An update is a PATCH of the recorded JSON, with what changes and nothing else, and gives the token as it is."""
    token_id = answered("update")["data"]["id"]
    mocked.patch(f"{US1_TOKENS}/{token_id}", payload=answered("update"))
    token = await client.update_token(ACCOUNT, token_id, name="deploy-bot-2")
    assert (token.id, token.name, token.scopes) == (token_id, "deploy-bot-2", ("dashboards_read",))
    assert token.modified_at == datetime(2026, 5, 11, 19, 22, 49, 17503, tzinfo=UTC)
    method, url, body, headers = only_request(mocked)
    assert (method, url) == ("PATCH", URL(f"{US1_TOKENS}/{token_id}"))
    assert json.loads(body or b"") == json.loads((SAMPLES / "update" / "request.json").read_text())
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("change", [{"scopes": ("a", "b")}, {"name": "n", "scopes": {"a"}}])
async def test_an_update_sends_what_changes(mocked: aioresponses, client: TokensClient, change: dict[str, Any]) -> None:
    """Scopes replace scopes and a name a name; what is not given is not in the body."""
    mocked.patch(US1, payload={"data": resource()})
    await client.update_token(ACCOUNT, "t1", **change)
    _, _, body, _ = only_request(mocked)
    expected = change | {"scopes": list(change["scopes"])}
    data = {"attributes": expected, "id": "t1", "type": "service_access_tokens"}
    assert json.loads(body or b"") == {"data": data}


@pytest.mark.parametrize(("status", "body"), [(204, ""), (200, "{}"), (202, "")])
async def test_a_revoke_is_the_recorded_request(
    mocked: aioresponses, client: TokensClient, status: int, body: str
) -> None:
    """A revoke is a DELETE without a body, and gives nothing."""
    mocked.delete(US1, status=status, body=body)
    assert await client.revoke_token(ACCOUNT, "t1") is None
    method, url, sent_body, headers = only_request(mocked)
    assert (method, url, sent_body) == ("DELETE", URL(US1), None)
    assert "Content-Type" not in headers


Call = Callable[[TokensClient], Awaitable[object]]


async def read_list(client: TokensClient) -> list[Any]:
    return [token async for token in client.list_tokens(ACCOUNT)]


CALLS: dict[str, Call] = {
    "list_tokens": read_list,
    "create_token": lambda client: client.create_token(ACCOUNT, name="n", scopes=["s"]),
    "update_token": lambda client: client.update_token(ACCOUNT, "t1", name="n"),
    "revoke_token": lambda client: client.revoke_token(ACCOUNT, "t1"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), (403, ForbiddenError), (404, NotFoundError), (409, ConflictError)]
)
async def test_every_call_s_refusal_says_what_it_was_about(
    mocked: aioresponses, client: TokensClient, request: pytest.FixtureRequest, call: Call, status: int, kind: type
) -> None:
    """A refusal names the call and its IDs, and leaves no doubt that nothing was done."""
    for method in ("GET", "POST", "PATCH", "DELETE"):
        for url in (US1, US1_TOKENS, page_url(0)):
            mocked.add(url, method, status=status, payload={"errors": ["no"]})
    with pytest.raises(APIError) as caught:
        await call(client)
    name = request.node.callspec.id.rpartition("-")[2]
    error = caught.value
    assert type(error) is kind
    assert (error.operation, error.service_account_id) == (name, ACCOUNT)
    assert error.token_id == ("t1" if name in {"update_token", "revoke_token"} else None)
    assert (error.errors, error.attempts, error.outcome_unknown) == (("no",), 1, False)
    assert "look" not in str(error)
    assert len(sent(mocked)) == 1


BAD: list[tuple[Callable[[TokensClient], Any], str]] = [
    (lambda client: client.list_tokens(""), "service_account_id"),
    (lambda client: client.list_tokens(ACCOUNT, filter=5), "filter"),
    (lambda client: client.list_tokens(ACCOUNT, sort="id"), "sort"),
    (lambda client: client.list_tokens(ACCOUNT, page_size=0), "page_size"),
    (lambda client: client.list_tokens(ACCOUNT, page_size=101), "page_size"),
    (lambda client: client.create_token("..", name="n", scopes=["s"]), "service_account_id"),
    (lambda client: client.create_token(ACCOUNT, name="", scopes=["s"]), "name"),
    (lambda client: client.create_token(ACCOUNT, name=5, scopes=["s"]), "name"),
    (lambda client: client.create_token(ACCOUNT, name="n", scopes="s"), "scopes"),
    (lambda client: client.create_token(ACCOUNT, name="n", scopes=[]), "scopes"),
    *(
        (
            lambda client, expires_at=expires_at: client.create_token(
                ACCOUNT, name="n", scopes=["s"], expires_at=expires_at
            ),
            "expires_at",
        )
        for expires_at in (
            "2999-01-01T00:00:00Z",
            32_503_680_000,
            FAR.date(),
            FAR.replace(tzinfo=None),
            datetime.now(UTC),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        )
    ),
    (lambda client: client.update_token(ACCOUNT, "", name="n"), "token_id"),
    (lambda client: client.update_token(ACCOUNT, "t1"), "name, scopes or both"),
    (lambda client: client.update_token(ACCOUNT, "t1", name=""), "name"),
    (lambda client: client.update_token(ACCOUNT, "t1", scopes=()), "scopes"),
    (lambda client: client.update_token(ACCOUNT, "t1", name="n", scopes="s"), "scopes"),
    (lambda client: client.revoke_token(ACCOUNT, "."), "token_id"),
    (lambda client: client.revoke_token(None, "t1"), "service_account_id"),
]


@pytest.mark.parametrize(("call", "named"), BAD)
async def test_a_bad_argument_is_refused_before_anything_is_sent(
    mocked: aioresponses, client: TokensClient, call: Callable[[TokensClient], Any], named: str
) -> None:
    """What cannot be right is named by an `InvalidArgumentError`, by a list, too, when it is called and not later."""
    with pytest.raises(InvalidArgumentError, match=named) as caught:
        await call(client)  # a list is not awaited: it has to raise before
    assert caught.value.operation in CALLS
    assert caught.value.attempts == 0
    assert not isinstance(caught.value, ConfigurationError)
    mocked.assert_not_called()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_call_works_on_a_closed_client(mocked: aioresponses, client: TokensClient, call: Call) -> None:
    """After `close` each call raises `ClientClosedError`, sends nothing, and leaves no doubt about it."""
    await client.close()
    with pytest.raises(ClientClosedError) as caught:
        await call(client)
    assert (caught.value.attempts, caught.value.outcome_unknown) == (0, False)
    mocked.assert_not_called()


async def test_a_closed_client_s_list_is_refused_when_it_is_called(client: TokensClient) -> None:
    """A list of a closed client is refused at once, and one that was begun before ends with the same error."""
    tokens = client.list_tokens(ACCOUNT)
    await client.close()
    with pytest.raises(ClientClosedError):
        client.list_tokens(ACCOUNT)
    with pytest.raises(ClientClosedError):
        await anext(tokens)


# A whole run


async def test_five_hundred_tokens_through_a_quota() -> None:
    """500 tokens through 200 requests a second: each ID answered once, in order, with at most one 429."""
    async with FakeDatadog(tokens=500, rate_limit=(200, 1.0), latency=0.005) as datadog:
        async with TokensClient(base_url=datadog.url, access_token=datadog.access_token) as client:
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
            stats = client.stats
        expected = datadog.tokens
    assert [item.unwrap() for item in result] == list(expected)
    assert datadog.rejected <= 1
    assert datadog.requests == stats.requests == 500 + datadog.rejected
    assert stats.rate_limited == stats.retries == datadog.rejected
    assert stats.quota_wait_seconds > 0


async def test_a_stream_through_a_quota_and_an_outage() -> None:
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
        assert client._gate.in_flight == 0


async def test_an_outage_costs_little_more_than_a_request_for_each_id() -> None:
    """1,000 IDs all answered 503: at most 2,000 requests, the real error for each, and the client works afterwards."""
    async with FakeDatadog(tokens=1000) as datadog:
        datadog.fail_next(10_000, status=503)
        policy = RetryPolicy(max_attempts=8, initial_backoff=0.01)
        async with TokensClient(base_url=datadog.url, access_token=datadog.access_token, retry=policy) as client:
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
            assert {type(error) for error in result.errors.values()} == {ServerError}
            assert len(result) == len(result.errors) == 1000
            assert 1000 < datadog.requests <= 2000
            datadog.clear_faults()
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
            assert len(result.tokens) == 1000
