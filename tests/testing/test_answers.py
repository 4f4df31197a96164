"""What the fake answers to gets and lists, over real sockets, with plain aiohttp as its client."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import aiohttp
import attrs
import pytest
from support.documents import unset_fields
from support.plain_client import LIMIT_HEADERS, address, get, keys, listed, raw
from yarl import URL

from dd_sa_tokens import AccessToken, Leak, converter
from dd_sa_tokens.testing import FakeDatadog


async def test_a_token_in_the_documented_shape(session: aiohttp.ClientSession) -> None:
    """A get answers the token's resource object under `data`, as JSON:API."""
    async with FakeDatadog(tokens=20) as datadog:
        for token in datadog.tokens:
            got = await get(session, datadog, address(datadog, token.id))
            resource = got.json["data"]

            assert (got.status, got.headers["Content-Type"]) == (200, "application/vnd.api+json")
            leak = resource["relationships"].pop("leak_information", None)
            assert (leak is None) == (token.id not in datadog.leaks)
            assert resource == converter.unstructure(attrs.evolve(token, leak=None))
            assert converter.structure(resource, AccessToken) == attrs.evolve(token, leak=None)
            assert resource["relationships"]["owned_by"]["data"] == {
                "id": datadog.service_account_id,
                "type": "service_account",
            }
            assert ("modified_at" in resource["attributes"]) == (token.modified_at is not None)


async def test_every_field_of_a_token_comes_back() -> None:
    """A new field of a token or a leak fails here until both have a value for it, and the fake answers with it."""
    leak = Leak("l1", datetime(2026, 5, 1, tzinfo=UTC), "a gist")
    token = AccessToken(
        id="t1",
        name="deploy",
        public_portion="ddsat_x",
        scopes=("dashboards_read",),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        modified_at=datetime(2026, 2, 1, tzinfo=UTC),
        last_used_at=datetime(2026, 3, 1, tzinfo=UTC),
        expires_at=datetime(2036, 1, 1, tzinfo=UTC),
        service_account_id="an account",
        leak=leak,
    )
    assert unset_fields(token) == {"type"}  # the type of personal tokens makes the owner a user
    assert unset_fields(leak) == set()
    async with FakeDatadog(tokens=[token]) as datadog, datadog.client() as client:
        assert await client.get_token("an account", "t1", include_leak=True) == token


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


async def test_ids_have_no_case(session: aiohttp.ClientSession) -> None:
    """The API compares UUIDs without regard to case, and so does the fake."""
    async with FakeDatadog(tokens=1) as datadog:
        known = datadog.token_ids[0]
        for url in (address(datadog, known.upper()), address(datadog, known, datadog.service_account_id.upper())):
            got = await get(session, datadog, url)
            assert (got.status, got.json["data"]["id"]) == (200, known)


async def test_every_operation_takes_ids_in_upper_case() -> None:
    """Creates, updates, revokes, filters and faults find what they are about by its ID in upper case, too."""
    async with FakeDatadog(tokens=2, accounts=2) as datadog, datadog.client() as client:
        account, (first, second) = datadog.service_account_id, datadog.token_ids
        upper = account.upper()
        created = await client.create_token(upper, name="new", scopes=["a"])
        assert created.token.service_account_id == account
        assert (await client.update_token(upper, first.upper(), name="renamed")).name == "renamed"
        await client.revoke_token(upper, second.upper())
        assert datadog.token_ids == [first, created.token.id]
        listed = client.list_organization_tokens(service_account_ids=[upper])
        assert [token.id async for token in listed] == [first, created.token.id]
        assert len(datadog.service_account_ids) == 2
        datadog.fail_next(status=503, token_id=first)
        await client.get_token(account, first.upper())
        assert datadog.pending_faults == 0


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "OPTIONS"])
async def test_other_methods_on_a_token(method: str) -> None:
    """A method that tokens do not have is answered with 404."""
    async with FakeDatadog(tokens=1) as datadog:
        answer = await raw(datadog, address(datadog, datadog.token_ids[0]).raw_path, method)

    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE"])
async def test_other_methods_on_a_list(method: str) -> None:
    """A method that lists do not have is answered with 404, and changes nothing."""
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
    """An ID is one percent-encoded segment of the path, with any characters in it."""
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
    """Missing, incomplete, swapped and wrong keys get a 401 without rate-limit headers, and spend no rate limit."""
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
