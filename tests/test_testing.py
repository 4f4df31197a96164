"""The fake server, over real sockets, with plain aiohttp as its client: gets, lists, credentials, faults."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import attrs
import pytest
from support.plain_client import LIMIT_HEADERS, address, get, keys, listed, raw, until
from yarl import URL

from dd_sa_tokens import AccessToken, InvalidArgumentError, converter
from dd_sa_tokens.testing import FakeDatadog

ACCOUNT, OTHER_ACCOUNT = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"


# ---- What it answers


async def test_a_token_in_the_documented_shape(session: aiohttp.ClientSession) -> None:
    """A get answers the token's resource object under `data`, as JSON:API."""
    async with FakeDatadog(tokens=20) as datadog:
        for token in datadog.tokens:
            got = await get(session, datadog, address(datadog, token.id))
            resource = got.json["data"]

            assert (got.status, got.headers["Content-Type"]) == (200, "application/vnd.api+json")
            assert resource == converter.unstructure(token)
            assert converter.structure(resource, AccessToken) == token
            assert resource["relationships"]["owned_by"]["data"] == {
                "id": datadog.service_account_id,
                "type": "service_account",
            }
            assert ("modified_at" in resource["attributes"]) == (token.modified_at is not None)


async def test_a_list_in_the_documented_shape(session: aiohttp.ClientSession) -> None:
    """A list answers the resource objects, in order, with the total in `meta`."""
    async with FakeDatadog(tokens=7) as datadog:
        got = await get(session, datadog, address(datadog))

    assert (got.status, got.headers["Content-Type"]) == (200, "application/vnd.api+json")
    assert got.json == {
        "data": [converter.unstructure(token) for token in datadog.tokens],
        "meta": {"page": {"total_filtered_count": 7}},
    }


async def test_an_empty_account(session: aiohttp.ClientSession) -> None:
    """An account without tokens has an empty list, as the recorded one has."""
    async with FakeDatadog(tokens=0) as datadog:
        got = await get(session, datadog, address(datadog))

    assert got.body == b'{"data":[],"meta":{"page":{"total_filtered_count":0}}}'
    assert (datadog.tokens, datadog.token_ids) == ((), [])


async def test_what_is_not_there(session: aiohttp.ClientSession) -> None:
    """An unknown token, service account or path is answered with 404 in the documented shape."""
    async with FakeDatadog(tokens=1) as datadog:
        known = datadog.token_ids[0]
        urls = [
            address(datadog, "unknown"),
            address(datadog, known.upper()),
            address(datadog, known, "unknown"),
            address(datadog, None, "unknown"),
            address(datadog) / "",
            address(datadog, known) / "more",
            URL(f"{datadog.url}/api/v2/service_accounts/{datadog.service_account_id}"),
            URL(f"{datadog.url}/"),
        ]
        for url in urls:
            got = await get(session, datadog, url)
            assert (got.status, got.json) == (404, {"errors": ["Not Found"]}), url


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "OPTIONS"])
async def test_other_methods_on_a_token(method: str) -> None:
    """What nobody can do to a token is answered with 404."""
    async with FakeDatadog(tokens=1) as datadog:
        answer = await raw(datadog, address(datadog, datadog.token_ids[0]).raw_path, method)

    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE"])
async def test_other_methods_on_a_list(method: str) -> None:
    """What nobody can do to all tokens of an account is answered with 404, and does nothing."""
    async with FakeDatadog(tokens=1) as datadog:
        answer = await raw(datadog, address(datadog).raw_path, method)

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert len(datadog.tokens) == 1


SPECIAL_IDS = [
    "a/b",
    "%2F",
    "%2f",
    "?",
    "#",
    "a?b#c",
    "é",
    "監視",
    "🚀",
    "two words",
    "a+b",
    "{a}",
    "%",
    "%25",
    "..",
    "&=",
]


@pytest.mark.parametrize("token_id", SPECIAL_IDS)
async def test_ids_are_one_segment(session: aiohttp.ClientSession, token_id: str) -> None:
    """An ID is matched as what one percent-encoded segment of the path says, whatever characters it holds."""
    tokens = [AccessToken(id=token_id, service_account_id=token_id), AccessToken(id="another")]
    async with FakeDatadog(tokens=tokens) as datadog:
        # Written to the socket as it is, so that no client's idea of a URL comes between.
        answer = await raw(datadog, address(datadog, token_id, token_id).raw_path)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert json.loads(body)["data"]["id"] == token_id
        if token_id != "..":
            assert (await get(session, datadog, address(datadog, token_id))).json["data"]["id"] == token_id


@pytest.mark.parametrize(
    ("target", "token_id"),
    [("a/b", "a/b"), ("a%252Fb", "a/b"), ("a%2Fb", "a%2Fb"), ("a", "A"), ("%FF", "\ufffe"), ("a?b", "a?b")],
)
async def test_ids_are_not_decoded_twice_or_not_at_all(target: str, token_id: str) -> None:
    """A target that means another ID does not find this one."""
    async with FakeDatadog(tokens=[AccessToken(id=token_id)]) as datadog:
        answer = await raw(datadog, f"{address(datadog).raw_path}/{target}")

    assert answer.startswith(b"HTTP/1.1 404 ")


# ---- Lists


async def test_pages(session: aiohttp.ClientSession) -> None:
    """Pages count from 0, hold 10 by default and at most 100, and together give every token once."""
    async with FakeDatadog(tokens=205) as datadog:
        assert await listed(session, datadog) == (datadog.token_ids[:10], 205)
        assert await listed(session, datadog, **{"page[number]": "20"}) == (datadog.token_ids[200:], 205)
        pages = [await listed(session, datadog, **{"page[size]": "100", "page[number]": str(n)}) for n in range(4)]

    assert [len(ids) for ids, _ in pages] == [100, 100, 5, 0]
    assert [token_id for ids, _ in pages for token_id in ids] == datadog.token_ids


@pytest.mark.parametrize("name", ["name", "created_at", "expires_at", "last_used_at"])
async def test_sorting(session: aiohttp.ClientSession, name: str) -> None:
    """Sorting goes up, or down after a minus; tokens without the attribute come last in both directions."""
    async with FakeDatadog(tokens=[*FakeDatadog(60).tokens, AccessToken(id="bare")]) as datadog:
        known = {token.id: getattr(token, name) for token in datadog.tokens if getattr(token, name) is not None}
        for sort, downwards in ((name, False), (f"-{name}", True)):
            ids, total = await listed(session, datadog, sort=sort, **{"page[size]": "100"})
            assert [known[i] for i in ids[: len(known)]] == sorted(known.values(), reverse=downwards)
            assert set(ids[len(known) :]) == set(datadog.token_ids) - set(known)
            assert total == 61


async def test_filtering(session: aiohttp.ClientSession) -> None:
    """The filter is a part of the name, in any case, and the total counts what it leaves."""
    names = {"1": "Deploy (EU)", "2": "nightly deploy", "3": "Überwachung", "4": None, "5": ""}
    async with FakeDatadog(tokens=[AccessToken(id=i, name=name) for i, name in names.items()]) as datadog:
        assert await listed(session, datadog, filter="DEPLOY") == (["1", "2"], 2)
        assert await listed(session, datadog, filter="deploy", sort="-name") == (["2", "1"], 2)
        assert await listed(session, datadog, filter="deploy", **{"page[size]": "1"}) == (["1"], 2)
        assert await listed(session, datadog, filter="üBER") == (["3"], 1)
        assert await listed(session, datadog, filter="none") == ([], 0)
        assert await listed(session, datadog, filter="") == (list("12345"), 5)


@pytest.mark.parametrize(
    "query",
    [{"page[size]": size} for size in ("0", "101", "-1", "x", "", "1.5", "٣", "9" * 5_000)]
    + [{"page[number]": number} for number in ("-1", "x", "", "9" * 5_000)]
    + [{"sort": sort} for sort in ("", "-", "--name", "modified_at", "scopes", "name,created_at")],
    ids=str,
)
async def test_bad_queries(session: aiohttp.ClientSession, query: dict[str, str]) -> None:
    """A page or sort that the API does not know is answered with 400, and the text names it."""
    async with FakeDatadog(tokens=3) as datadog:
        got = await get(session, datadog, address(datadog), **query)

    assert got.status == 400
    assert next(iter(query)) in got.json["errors"][0]


# ---- Credentials


async def test_good_credentials(session: aiohttp.ClientSession) -> None:
    """The pair of keys is good, and so is a token as Bearer, or alone in the application key's place."""
    async with FakeDatadog(tokens=1) as datadog:
        for headers in (
            keys(datadog),
            {"Authorization": f"Bearer {datadog.access_token}"},
            {"DD-APPLICATION-KEY": datadog.access_token},
            {"DD-APPLICATION-KEY": datadog.access_token, "DD-API-KEY": "not looked at"},
        ):
            assert (await get(session, datadog, headers=headers)).status == 200, headers
    assert datadog.access_token.startswith("ddsat_")


async def test_bad_credentials(session: aiohttp.ClientSession) -> None:
    """Missing, half, mixed-up and wrong keys are answered with 401; they spend no quota and learn nothing of it."""
    async with FakeDatadog(tokens=1, rate_limit=(5, 3600.0)) as datadog:
        api, app, own = datadog.api_key, datadog.app_key, datadog.access_token
        refused: list[dict[str, str]] = [
            {},
            {"DD-API-KEY": api},
            {"DD-APPLICATION-KEY": app},
            {"DD-API-KEY": app, "DD-APPLICATION-KEY": api},
            {"DD-API-KEY": api, "DD-APPLICATION-KEY": "wrong"},
            {"DD-API-KEY": own},
            {"Authorization": own},
            {"Authorization": f"Bearer {app}"},
            keys(datadog) | {"Authorization": "Bearer wrong"},
        ]
        for headers in refused:
            got = await get(session, datadog, headers=headers)
            assert (got.status, got.json) == (401, {"errors": ["Unauthorized"]}), headers
            assert not LIMIT_HEADERS & set(got.headers)
        got = await get(session, datadog)

    assert got.headers["X-RateLimit-Remaining"] == "4"
    assert (datadog.requests, datadog.rejected) == (len(refused) + 1, 0)


# ---- Tokens


async def test_the_same_seed_makes_the_same() -> None:
    """A seed settles tokens, IDs and keys; another seed makes others."""
    one, same, other = FakeDatadog(300, seed=7), FakeDatadog(300, seed=7), FakeDatadog(300, seed=8)

    def all_of(datadog: FakeDatadog) -> tuple[Any, ...]:
        return datadog.tokens, datadog.service_account_id, datadog.api_key, datadog.app_key, datadog.access_token

    assert all_of(one) == all_of(same)
    assert all(mine != its for mine, its in zip(all_of(one), all_of(other), strict=True))
    assert len(set(one.token_ids) | set(other.token_ids)) == 600
    assert FakeDatadog(3, seed=7).api_key == one.api_key


def test_variety() -> None:
    """Already fifty made-up tokens show what an auditor looks for."""
    tokens = FakeDatadog(tokens=50).tokens
    now = datetime.now(UTC)
    names = Counter(token.name for token in tokens)
    days = {token: (now - (token.last_used_at or now)).days for token in tokens}

    assert any(token.expires_at is None for token in tokens)
    assert any(token.is_expired() for token in tokens)
    assert any(token.expires_within(timedelta(days=30)) for token in tokens)
    assert any(token.never_used for token in tokens)
    assert any(0 < days[token] < 7 for token in tokens)
    assert any(days[token] > 90 for token in tokens)
    assert {token.modified_at is None for token in tokens} == {True, False}
    assert {len(token.scopes) for token in tokens} >= {1, 2, 12}
    assert any("user_access_manage" in token.scopes for token in tokens)
    assert 1 <= sum(count > 1 for count in names.values()) < 10
    assert any(not str(name).isascii() for name in names)
    assert any(len(str(name)) > 100 for name in names)
    assert all(token.created_at and token.created_at.microsecond for token in tokens)
    assert all(token.public_portion and len(token.public_portion) == len("ddsat_") + 22 for token in tokens)


def test_made_up_tokens_make_sense() -> None:
    """Each has been made before it was changed, used and expired, with scopes that differ."""
    now = datetime.now(UTC)
    for token in FakeDatadog(tokens=2_000).tokens:
        created, used = token.created_at, token.last_used_at
        assert created is not None
        assert all(moment is None or created < moment < now for moment in (token.modified_at, used))
        assert token.expires_at is None or (used or created) < token.expires_at
        assert 1 <= len(token.scopes) == len(set(token.scopes)) <= 12


@pytest.mark.parametrize("threshold", [7, 14, 30, 60, 90, 180, 365])
def test_an_audit_finds_the_same_at_any_hour(threshold: int) -> None:
    """No date of a made-up token passes a usual threshold in the course of today."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    span = timedelta(days=threshold)

    def findings(at: datetime) -> list[tuple[bool, ...]]:
        return [
            (
                token.is_expired(at),
                token.expires_within(span, at),
                token.last_used_at is not None and at - token.last_used_at > span,
                token.created_at is not None and at - token.created_at > span,
            )
            for token in datadog.tokens
        ]

    datadog = FakeDatadog(tokens=1_000)
    assert findings(midnight) == findings(midnight + timedelta(days=1, microseconds=-1))


async def test_given_tokens_of_several_accounts(session: aiohttp.ClientSession) -> None:
    """Given tokens are held in their order, each found under its own account only."""
    a, b, c = (
        AccessToken(id=i, name=i, service_account_id=s) for i, s in (("a", ACCOUNT), ("b", OTHER_ACCOUNT), ("c", None))
    )
    async with FakeDatadog(tokens=iter([a, b, c])) as datadog:
        assert datadog.service_account_id == ACCOUNT
        assert datadog.tokens == (a, b, attrs.evolve(c, service_account_id=ACCOUNT))
        assert datadog.token_ids == ["a", "c"]
        found = {
            (account, token_id): (await get(session, datadog, address(datadog, token_id, account))).status
            for account in (ACCOUNT, OTHER_ACCOUNT)
            for token_id in "abc"
        }
        other = await get(session, datadog, address(datadog, None, OTHER_ACCOUNT))

    assert [key for key, status in found.items() if status == 200] == [
        (ACCOUNT, "a"),
        (ACCOUNT, "c"),
        (OTHER_ACCOUNT, "b"),
    ]
    assert [item["id"] for item in other.json["data"]] == ["b"]


def test_the_default_account_is_made_up_where_the_first_token_has_none() -> None:
    """A first token without an account belongs to a made-up one, which others do not join."""
    datadog = FakeDatadog(tokens=[AccessToken(id="a"), AccessToken(id="b", service_account_id=ACCOUNT)])

    assert datadog.service_account_id == FakeDatadog(tokens=0).service_account_id
    assert [token.service_account_id for token in datadog.tokens] == [datadog.service_account_id, ACCOUNT]
    assert datadog.token_ids == ["a"]


def test_an_id_may_come_back_in_another_account() -> None:
    """Only within one account an ID must be the only one of its kind."""
    tokens = [AccessToken(id="a", service_account_id=account) for account in (ACCOUNT, OTHER_ACCOUNT)]

    assert FakeDatadog(tokens=tokens).tokens == tuple(tokens)


# ---- Faults


async def test_a_status(session: aiohttp.ClientSession) -> None:
    """A scripted status is answered as often as asked, without rate-limit headers and without spending quota."""
    async with FakeDatadog(tokens=1, rate_limit=(9, 3600.0)) as datadog:
        datadog.fail_next(2, status=503)
        answers = [await get(session, datadog) for _ in range(3)]

    assert [got.status for got in answers] == [503, 503, 200]
    assert answers[0].json == {"errors": ["Service Unavailable"]}
    assert answers[0].headers["Content-Type"] == "application/vnd.api+json"
    assert not LIMIT_HEADERS & set(answers[0].headers)
    assert answers[2].headers["X-RateLimit-Remaining"] == "8"
    assert (datadog.requests, datadog.rejected) == (3, 0)


async def test_a_status_with_headers_and_body(session: aiohttp.ClientSession) -> None:
    """A proxy's HTML page, its own headers and a status that HTTP has no name for can be scripted."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(status=512, headers={"Retry-After": "7", "date": "no date"}, body=b"<h1>Sorry</h1>")
        datadog.fail_next(status=200, headers={"content-type": "text/plain"}, body=b"{")
        datadog.fail_next(status=512)
        page, plain, bare = [await get(session, datadog) for _ in range(3)]

    assert (page.status, page.body, page.headers["Content-Type"]) == (512, b"<h1>Sorry</h1>", "text/html")
    assert (page.headers["Retry-After"], page.headers["Date"]) == ("7", "no date")
    assert (plain.status, plain.body, plain.headers["Content-Type"]) == (200, b"{", "text/plain")
    assert bare.json == {"errors": ["Error 512"]}


async def test_a_scripted_429(session: aiohttp.ClientSession) -> None:
    """A scripted 429 counts as rejected; it has no rate-limit headers unless they are given."""
    async with FakeDatadog(tokens=1, rate_limit=(9, 3600.0)) as datadog:
        datadog.fail_next(status=429)
        datadog.fail_next(status=429, headers={"X-RateLimit-Reset": "7, 7"})
        bare, joined = await get(session, datadog), await get(session, datadog)

    assert bare.json == {"errors": ["Too many requests"]}
    assert not LIMIT_HEADERS & set(bare.headers)
    assert joined.headers["X-RateLimit-Reset"] == "7, 7"
    assert (datadog.requests, datadog.rejected) == (2, 2)


async def test_a_dropped_connection() -> None:
    """A drop closes the connection without a byte."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(drop=True)
        path = address(datadog, datadog.token_ids[0]).raw_path

        assert await raw(datadog, path) == b""
        assert (await raw(datadog, path)).startswith(b"HTTP/1.1 200 ")
    assert datadog.requests == 2


async def test_a_truncated_answer(session: aiohttp.ClientSession) -> None:
    """A truncated answer announces its whole length, sends half, and the connection closes."""
    async with FakeDatadog(tokens=1, rate_limit=(9, 3600.0)) as datadog:
        whole = await get(session, datadog)
        datadog.fail_next(truncate=True)
        answer = await raw(datadog, address(datadog, datadog.token_ids[0]).raw_path)
        datadog.fail_next(truncate=True)
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(session, datadog)
        assert (await get(session, datadog)).body == whole.body

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"Content-Length: {len(whole.body)}".encode() in head
    assert b"X-RateLimit-Remaining: 7" in head
    assert body == whole.body[: len(whole.body) // 2]


async def test_a_stall(session: aiohttp.ClientSession) -> None:
    """A stalled request is answered as usual, only later, and holds up nobody else."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(stall=0.2)
        start = time.monotonic()
        stalled = asyncio.create_task(get(session, datadog))
        await until(lambda: datadog.requests == 1)
        assert (await get(session, datadog)).status == 200
        assert not stalled.done()
        assert (await stalled).status == 200
        assert time.monotonic() - start >= 0.2


async def test_faults_queue_up(session: aiohttp.ClientSession) -> None:
    """Faults come in the order in which they were scripted, also before the start."""
    datadog = FakeDatadog(tokens=1)
    datadog.fail_next(2, status=500)
    datadog.fail_next(status=502)
    async with datadog:
        datadog.fail_next(status=504)
        assert [(await get(session, datadog)).status for _ in range(5)] == [500, 500, 502, 504, 200]


async def test_faults_wait_for_good_requests(session: aiohttp.ClientSession) -> None:
    """Requests without credentials or quota get their 401 or 429, and leave a spoilt answer to others."""
    async with FakeDatadog(tokens=1, rate_limit=(1, 3600.0)) as datadog:
        assert (await get(session, datadog)).status == 200
        datadog.fail_next(drop=True)
        assert (await get(session, datadog, headers={})).status == 401
        assert (await get(session, datadog)).status == 429
        assert len(datadog._faults) == 1


async def test_latency(session: aiohttp.ClientSession) -> None:
    """Each answer takes the latency, refusals too, and requests do not wait for one another."""
    async with FakeDatadog(tokens=1, latency=0.05) as datadog:
        start = time.monotonic()
        assert (await get(session, datadog, headers={})).status == 401
        assert time.monotonic() - start >= 0.05
        start = time.monotonic()
        await asyncio.gather(*(get(session, datadog) for _ in range(20)))
        assert 0.05 <= time.monotonic() - start < 20 * 0.05


# ---- Start and end


async def test_it_is_gone_after_its_end(session: aiohttp.ClientSession) -> None:
    """After the end nobody listens, and no task is left."""
    before = asyncio.all_tasks()
    async with FakeDatadog(tokens=1) as datadog:
        assert datadog.url.startswith("http://127.0.0.1:")
        url = address(datadog, datadog.token_ids[0])
        assert (await get(session, datadog)).status == 200

    assert asyncio.all_tasks() == before
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(session, datadog, url)
    with pytest.raises(RuntimeError, match="async with"):
        _ = datadog.url


@pytest.mark.parametrize("options", [{"latency": 60.0}, {}], ids=["latency", "stall"])
@pytest.mark.parametrize("client_stays", [True, False])
async def test_its_end_waits_for_nobody(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, options: dict[str, float], client_stays: bool
) -> None:
    """The end comes at once, cleanly and in silence while requests stall, whether their clients still wait or not."""
    before = asyncio.all_tasks()
    async with FakeDatadog(tokens=1, **options) as datadog:
        datadog.fail_next(5, stall=60.0)
        stalled = [asyncio.create_task(get(session, datadog)) for _ in range(5)]
        await until(lambda: len(datadog._pausing) == 5)
        if not client_stays:
            for task in stalled:
                task.cancel()
            await asyncio.wait(stalled)
        start = time.monotonic()
    assert time.monotonic() - start < 1.0
    if client_stays:
        await asyncio.wait(stalled)
        assert all(isinstance(task.exception(), aiohttp.ClientConnectionError) for task in stalled)
    assert asyncio.all_tasks() == before
    assert caplog.records == []


async def test_it_can_be_started_again(session: aiohttp.ClientSession) -> None:
    """It can be started again after its end, goes on counting, and cannot be started twice at a time."""
    datadog = FakeDatadog(tokens=1)
    for count in (1, 2):
        async with datadog:
            assert (await get(session, datadog)).status == 200
            assert datadog.requests == count
            with pytest.raises(RuntimeError, match="already"):
                await datadog.__aenter__()


async def test_faults_and_refusals_leave_no_complaint(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """The server logs nothing when it fails on purpose."""
    async with FakeDatadog(tokens=1, rate_limit=(20, 3600.0)) as datadog:
        for fault in ({"drop": True}, {"truncate": True}, {"status": 500}, {"stall": 0.001}):
            datadog.fail_next(**fault)
            await raw(datadog, address(datadog).raw_path)
        assert (await get(session, datadog, headers={})).status == 401

    assert caplog.records == []


# ---- Arguments


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokens", [-1, True, 1.5, None, "abc", ["id"], [AccessToken(id="")], [AccessToken(id="a")] * 2]),
        (
            "rate_limit",
            [(), (1,), (0, 10.0), (1, 0.0), (1, -1.0), (1.5, 10.0), (True, 1.0), (1, math.nan), 5, "12", (1, math.inf)],
        ),
        ("latency", [-0.1, math.nan, math.inf, "1", True, None]),
        ("seed", [-1, 1.5, "a", None, True]),
        ("reset_rounding", ["", "UP", None, 1]),
        ("clock_offset", [math.nan, math.inf, -math.inf, "1", None, 2e9]),
        ("quota_used", [-1, 1.5, "1", None, True]),
    ],
)
def test_bad_arguments(name: str, values: list[Any]) -> None:
    """An argument that cannot be right is refused at once, by its name."""
    for value in values:
        with pytest.raises(InvalidArgumentError, match=rf"\b{name} must be"):
            FakeDatadog(**{name: value})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("one at a time", {}),
        ("one at a time", {"drop": True, "truncate": True}),
        ("one at a time", {"status": 500, "stall": 1.0}),
        ("count", {"count": 0, "drop": True}),
        ("count", {"count": 1.5, "drop": True}),
        ("count", {"count": True, "drop": True}),
        ("status", {"status": 199}),
        ("status", {"status": 600}),
        ("status", {"status": "500"}),
        ("stall", {"stall": -1.0}),
        ("stall", {"stall": math.nan}),
        ("headers and body", {"drop": True, "headers": {"Retry-After": "1"}}),
        ("headers and body", {"stall": 1.0, "body": b""}),
    ],
)
async def test_bad_faults(session: aiohttp.ClientSession, name: str, arguments: dict[str, Any]) -> None:
    """A fault that makes no sense is refused, and nothing fails."""
    async with FakeDatadog(tokens=1) as datadog:
        with pytest.raises(InvalidArgumentError, match=name):
            datadog.fail_next(**arguments)
        assert (await get(session, datadog)).status == 200
