"""The organization's list of tokens, its users, several accounts, leaks and permissions, over real sockets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from support.plain_client import Got, address, ask, change, create, get, revoke, wanted
from yarl import URL

from dd_sa_tokens import AccessToken
from dd_sa_tokens.models import Leak
from dd_sa_tokens.testing import FakeDatadog

DATE = datetime(2026, 3, 2, 1, 23, 45, tzinfo=UTC)
PERSONAL, SERVICE = "personal_access_tokens", "service_access_tokens"


def organization(datadog: FakeDatadog) -> URL:
    return URL(f"{datadog.url}/api/v2/personal_access_tokens")


def users(datadog: FakeDatadog, user_id: str = "") -> URL:
    return URL(f"{datadog.url}/api/v2/users{f'/{user_id}' if user_id else ''}")


def ids(got: Got) -> list[str]:
    return [item["id"] for item in got.json["data"]]


def total(got: Got) -> int:
    return int(got.json["meta"]["page"]["total_filtered_count"])


async def every(session: aiohttp.ClientSession, datadog: FakeDatadog, url: URL) -> list[dict[str, Any]]:
    """Return the rows of all pages of a list."""
    rows: list[dict[str, Any]] = []
    for number in range(1000):
        got = await get(session, datadog, url, **{"page[size]": "100", "page[number]": str(number)})
        rows += got.json["data"]
        if len(got.json["data"]) < 100:
            break
    return rows


# ---- Several service accounts


async def test_each_account_has_tokens(session: aiohttp.ClientSession) -> None:
    """A number of tokens is for each account; each account's list has its own tokens and no others."""
    async with FakeDatadog(tokens=3, accounts=4) as datadog:
        listed = {
            account: ids(await get(session, datadog, address(datadog, None, account)))
            for account in datadog.service_account_ids
        }

    assert len(listed) == 4
    assert [token_id for found in listed.values() for token_id in found] == [token.id for token in datadog.tokens]
    assert {account: len(found) for account, found in listed.items()} == dict.fromkeys(datadog.service_account_ids, 3)
    assert listed[datadog.service_account_id] == datadog.token_ids
    assert datadog.service_account_ids[0] == datadog.service_account_id


def test_more_accounts_change_nothing_about_the_first() -> None:
    """The first account, its tokens and the keys are the same for any number of accounts and users."""
    alone, among_others = FakeDatadog(30, seed=7), FakeDatadog(30, seed=7, accounts=5, users=50)

    assert among_others.tokens[:30] == alone.tokens
    assert among_others.service_account_ids[:1] == alone.service_account_ids
    assert among_others.access_token == alone.access_token
    assert len({token.id for token in among_others.tokens}) == 150


def test_accounts_beside_those_of_given_tokens() -> None:
    """Given tokens bring their accounts; more are added only up to the number that is asked for."""
    tokens = [AccessToken(id="a", service_account_id="one"), AccessToken(id="b", service_account_id="two")]

    assert FakeDatadog(tokens).service_account_ids == ["one", "two"]
    assert FakeDatadog(tokens, accounts=2).service_account_ids == ["one", "two"]
    assert FakeDatadog(tokens, accounts=4).service_account_ids[:2] == ["one", "two"]
    assert len(FakeDatadog(tokens, accounts=4).service_account_ids) == 4


# ---- The organization's list


async def test_the_organizations_list(session: aiohttp.ClientSession) -> None:
    """It holds the tokens of all accounts, in order, with a few personal tokens among them, which the total counts."""
    async with FakeDatadog(tokens=40, accounts=3) as datadog:
        got = await get(session, datadog, organization(datadog), **{"page[size]": "100"})
        rows = await every(session, datadog, organization(datadog))

    service = [row for row in rows if row["type"] == SERVICE]
    personal = [row for row in rows if row["type"] == PERSONAL]
    assert (len(got.json["data"]), total(got), len(rows)) == (100, 123, 123)
    assert [row["id"] for row in service] == [token.id for token in datadog.tokens]
    assert len(personal) == 3
    places = [place for place, row in enumerate(rows) if row["type"] == PERSONAL]
    assert [place // 31 for place in places] == [0, 1, 2]
    assert all(row["relationships"]["owned_by"]["data"]["type"] == "service_account" for row in service)


async def test_personal_tokens_look_as_recorded(session: aiohttp.ClientSession) -> None:
    """A personal token has a user as its owner, a public portion without prefix, and may have hundreds of scopes."""
    async with FakeDatadog(tokens=1) as datadog:
        rows = await every(session, datadog, organization(datadog))
        people = {row["id"] for row in await every(session, datadog, users(datadog))}

    personal = [row for row in rows if row["type"] == PERSONAL]
    assert {row["relationships"]["owned_by"]["data"]["type"] for row in personal} == {"users"}
    assert {row["relationships"]["owned_by"]["data"]["id"] for row in personal} < people
    assert all(row["attributes"]["public_portion"].isalnum() for row in personal)
    assert sorted(len(row["attributes"]["scopes"]) for row in personal) == [1, 1, 320]
    assert personal[0]["attributes"].keys() == {
        "created_at", "expires_at", "last_used_at", "name", "public_portion", "scopes",
    }  # fmt: skip


async def test_personal_tokens_belong_to_no_account(session: aiohttp.ClientSession) -> None:
    """A personal token is not among the tokens of the accounts, and cannot be got there."""
    given = AccessToken(id="p", type=PERSONAL, service_account_id="a user")
    async with FakeDatadog(tokens=[given, AccessToken(id="s")], users=0) as datadog:
        assert datadog.token_ids == ["s"]
        assert "a user" not in datadog.service_account_ids
        assert (await get(session, datadog, address(datadog, "p", "a user"))).status == 404
        assert ids(await get(session, datadog, organization(datadog))) == ["p", "s"]


async def test_owners(session: aiohttp.ClientSession) -> None:
    """`filter[owned_by]` may be repeated; an owner without tokens adds nothing."""
    async with FakeDatadog(tokens=5, accounts=3) as datadog:
        one, two, three = datadog.service_account_ids
        url = organization(datadog).with_query([("filter[owned_by]", three), ("filter[owned_by]", one)])
        got = await get(session, datadog, url, **{"page[size]": "100"})
        both = [token.id for token in datadog.tokens if token.service_account_id != two]
        assert (ids(got), total(got)) == (both, 10)
        assert total(await get(session, datadog, organization(datadog), **{"filter[owned_by]": "unknown"})) == 0


@pytest.mark.parametrize("path", ["account", "organization"])
async def test_leaked_filter_and_sort(session: aiohttp.ClientSession, path: str) -> None:
    """`filter[leaked]` leaves the leaked tokens; `leaked` sorts them last, `-leaked` first, else in the same order."""
    async with FakeDatadog(tokens=30, users=0) as datadog:
        url = address(datadog) if path == "account" else organization(datadog)
        leaked = [token_id for token_id in datadog.token_ids if token_id in datadog.leaks]
        others = [token_id for token_id in datadog.token_ids if token_id not in datadog.leaks]
        assert leaked

        async def found(**query: str) -> list[str]:
            return ids(await get(session, datadog, url, **query, **{"page[size]": "100"}))

        assert await found(**{"filter[leaked]": "true"}) == leaked
        assert await found(**{"filter[leaked]": "false"}) == datadog.token_ids
        assert await found(sort="leaked") == others + leaked
        assert await found(sort="-leaked") == leaked + others


@pytest.mark.parametrize(
    "query",
    [{"filter[leaked]": "yes"}, {"include": "owner"}, {"include": "leak_information,x"}, {"sort": "modified_at"}],
    ids=str,
)
async def test_bad_queries(session: aiohttp.ClientSession, query: dict[str, str]) -> None:
    """A value that the API does not document is answered with 400, whose text names the parameter."""
    async with FakeDatadog(tokens=1) as datadog:
        got = await get(session, datadog, organization(datadog), **query)

    assert got.status == 400
    assert next(iter(query)) in got.json["errors"][0]


async def test_lists_show_changes(session: aiohttp.ClientSession) -> None:
    """A list that was read before shows creates, updates and revokes at once."""
    async with FakeDatadog(tokens=2, users=0) as datadog:
        for url in (address(datadog), organization(datadog)):
            before = ids(await get(session, datadog, url))
            created = (await create(session, datadog, name="zzz"))["id"]
            assert ids(await get(session, datadog, url)) == [*before, created]
            assert ids(await get(session, datadog, url, filter="zzz")) == [created]
            await ask(session, datadog, "PATCH", address(datadog, created), change(created, name="yyy"))
            assert ids(await get(session, datadog, url, filter="zzz")) == []
            await revoke(session, datadog, created)
            assert ids(await get(session, datadog, url)) == before


# ---- Leaks


async def test_a_leak(session: aiohttp.ClientSession) -> None:
    """A leaked token has the relationship; what is known of the leak comes in `included`, if it is asked for."""
    tokens = [
        AccessToken(id="a", leak=Leak("l1", DATE, "a gist")),
        AccessToken(id="b", leak=Leak("l2", DATE)),
        AccessToken(id="c", leak=Leak("l3")),
        AccessToken(id="d"),
    ]
    relationships = {
        token_id: {"data": data and {"id": data, "type": "leaked_keys"}}
        for token_id, data in {"a": "l1", "b": "l2", "c": "l3", "d": None}.items()
    }
    known = [
        {"id": "l1", "type": "leaked_keys", "attributes": {"date": "2026-03-02T01:23:45Z", "leak_source": "a gist"}},
        {"id": "l2", "type": "leaked_keys", "attributes": {"date": "2026-03-02T01:23:45Z"}},
    ]
    async with FakeDatadog(tokens=tokens, users=0) as datadog:
        assert datadog.leaks == {"a": Leak("l1", DATE, "a gist"), "b": Leak("l2", DATE), "c": Leak("l3")}
        for url in (address(datadog), organization(datadog)):
            plain = (await get(session, datadog, url)).json
            full = (await get(session, datadog, url, include="leak_information")).json
            assert "included" not in plain
            found = {row["id"]: row["relationships"].get("leak_information") for row in plain["data"]}
            assert found == relationships | {"d": None}
            assert {row["id"]: row["relationships"]["leak_information"] for row in full["data"]} == relationships
            assert full["included"] == known
        for token_id, leaks in (("a", known[:1]), ("b", known[1:]), ("c", []), ("d", [])):
            one = (await get(session, datadog, address(datadog, token_id), include="leak_information")).json
            assert one["data"]["relationships"]["leak_information"] == relationships[token_id]
            assert one["included"] == leaks
            assert "included" not in (await get(session, datadog, address(datadog, token_id))).json


def test_a_few_sample_tokens_are_leaked() -> None:
    """Few sample tokens are leaked; each was found after its creation, some in a place that is not known."""
    datadog = FakeDatadog(tokens=500)
    created = {token.id: token.created_at for token in datadog.tokens}

    assert 5 <= len(datadog.leaks) <= 25
    assert {leak.source is None for leak in datadog.leaks.values()} == {True, False}
    for token_id, leak in datadog.leaks.items():
        made = created[token_id]
        assert made is not None
        assert leak.detected_at is not None
        assert made < leak.detected_at < datetime.now(UTC)


# ---- Users


async def test_users(session: aiohttp.ClientSession) -> None:
    """Service accounts are among the users, in the recorded shape, with their roles in `included`."""
    async with FakeDatadog(tokens=0, accounts=20, users=150) as datadog:
        got = await get(session, datadog, users(datadog))
        rows = await every(session, datadog, users(datadog))

    page = got.json
    accounts = [row for row in rows if row["attributes"]["service_account"]]
    assert (len(page["data"]), page["meta"]["page"]) == (10, {"total_filtered_count": 170, "total_count": 170})
    assert len({row["id"] for row in rows}) == 170
    assert {row["id"] for row in accounts} == {*datadog.service_account_ids}
    assert all(row["attributes"]["handle"] == row["id"] for row in accounts)
    assert {row["attributes"]["status"] for row in rows} == {"Active", "Pending", "Disabled"}
    assert any(row["attributes"]["name"] is None for row in rows)
    assert all(row["attributes"]["disabled"] == (row["attributes"]["status"] == "Disabled") for row in rows)
    assert all(datetime.fromisoformat(row["attributes"]["created_at"]).tzinfo for row in rows)
    roles = {row["relationships"]["roles"]["data"][0]["id"] for row in page["data"]}
    assert {item["id"] for item in page["included"] if item["type"] == "roles"} == roles
    assert {item["type"] for item in page["included"]} == {"roles", "permissions"}
    kinds = [row["attributes"]["service_account"] for row in rows]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))


async def test_one_user(session: aiohttp.ClientSession) -> None:
    """One user is what the list has of it; an unknown one is 404."""
    async with FakeDatadog(tokens=0, accounts=2) as datadog:
        for row in await every(session, datadog, users(datadog)):
            assert (await get(session, datadog, users(datadog, row["id"]))).json["data"] == row
        assert (await get(session, datadog, users(datadog, "unknown"))).status == 404


async def test_filters_and_sorts_of_users(session: aiohttp.ClientSession) -> None:
    """Users are filtered by name, handle, email address and status, and sorted in both directions, nulls last."""
    async with FakeDatadog(tokens=0, accounts=3, users=60) as datadog:
        rows = {row["id"]: row["attributes"] for row in await every(session, datadog, users(datadog))}

        async def found(**query: str) -> list[str]:
            return ids(await get(session, datadog, users(datadog), **query, **{"page[size]": "100"}))

        account = datadog.service_account_ids[1]
        assert await found(filter=account[:20].upper()) == [account]
        assert set(await found(filter="çELIK")) == {i for i, user in rows.items() if "Çelik" in (user["name"] or "")}
        assert set(await found(filter="user-1@")) == {i for i, user in rows.items() if user["email"][:7] == "user-1@"}
        for statuses in ("Pending", "Disabled,Pending"):
            wanted_ids = {i for i, user in rows.items() if user["status"] in statuses.split(",")}
            assert set(await found(**{"filter[status]": statuses})) == wanted_ids != set()
        names = sorted(str(user["name"]) for user in rows.values() if user["name"])
        unnamed = [None] * (len(rows) - len(names))
        for query, expected in (
            ({"sort": "name"}, names),
            ({"sort": "-name"}, names[::-1]),
            ({"sort": "name", "sort_dir": "desc"}, names[::-1]),
            ({"sort": "-name", "sort_dir": "asc"}, names),
        ):
            assert [rows[i]["name"] for i in await found(**query)] == [*expected, *unnamed]
        modified = [datetime.fromisoformat(rows[i]["modified_at"]) for i in await found(sort="-modified_at")]
        assert modified == sorted(modified, reverse=True)
        assert await found(sort="user_count") == [*rows]


@pytest.mark.parametrize("query", [{"sort": "email"}, {"sort_dir": "up"}, {"filter[status]": "Gone"}], ids=str)
async def test_bad_queries_of_users(session: aiohttp.ClientSession, query: dict[str, str]) -> None:
    """A sort or status that the API does not know is answered with 400, whose text names the parameter."""
    async with FakeDatadog(tokens=0) as datadog:
        got = await get(session, datadog, users(datadog), **query)

    assert got.status == 400
    assert next(iter(query)) in got.json["errors"][0]


# ---- Permissions and rate limits

REQUESTS: dict[str, tuple[str, Callable[[FakeDatadog], URL], Callable[[FakeDatadog], Any], int]] = {
    "get": ("GET", lambda d: address(d, d.token_ids[0]), lambda d: None, 200),
    "list": ("GET", address, lambda d: None, 200),
    "create": ("POST", address, lambda d: wanted(), 201),
    "update": (
        "PATCH",
        lambda d: address(d, d.token_ids[0]),
        lambda d: change(d.token_ids[0], name="x"),
        200,
    ),
    "revoke": ("DELETE", lambda d: address(d, d.token_ids[0]), lambda d: None, 204),
    "organization": ("GET", organization, lambda d: None, 200),
    "users": ("GET", users, lambda d: None, 200),
    "user": ("GET", lambda d: users(d, d.service_account_id), lambda d: None, 200),
}
ALLOWED = {
    "service_account_write": {"get", "list", "create", "update", "revoke"},
    "org_app_keys_read": {"get", "list", "organization"},
    "org_app_keys_write": {"create", "update", "revoke"},
    "user_app_keys": {"organization"},
    "user_access_read": {"users", "user"},
    None: set[str](),
}


@pytest.mark.parametrize("permission", ALLOWED)
async def test_permissions(session: aiohttp.ClientSession, permission: str | None) -> None:
    """Keys with one permission may do what it is for; the rest is answered with 403, and changes nothing."""
    async with FakeDatadog(tokens=1, permissions=[permission] if permission else ()) as datadog:
        allowed = set()
        for name, (method, url, body, success) in REQUESTS.items():
            before = datadog.tokens
            got = await ask(session, datadog, method, url(datadog), body(datadog))
            if got.status == 403:
                assert got.json == {"errors": ["Forbidden"]}
                assert datadog.tokens == before
            else:
                assert got.status == success
                allowed.add(name)

    assert allowed == ALLOWED[permission]


async def test_own_keys_only(session: aiohttp.ClientSession) -> None:
    """With `user_app_keys` alone, the organization's list has one user's personal tokens; without users, none."""
    async with FakeDatadog(tokens=5, permissions=["user_app_keys"]) as datadog:
        got = await get(session, datadog, organization(datadog))
        assert [row["type"] for row in got.json["data"]] == [PERSONAL]
        assert total(got) == 1
    async with FakeDatadog(tokens=5, permissions=["user_app_keys"], users=0) as datadog:
        assert ids(await get(session, datadog, organization(datadog))) == []


async def test_three_rate_limits(session: aiohttp.ClientSession) -> None:
    """The token operations, the organization's list and the users have a window each, under a name of its own."""
    async with FakeDatadog(tokens=1, rate_limit=(3, 3600.0), rate_limit_used=1) as datadog:
        answers = {
            name: [await get(session, datadog, url(datadog)) for _ in range(3)]
            for name, url in (("account", address), ("organization", organization), ("users", users))
        }
        one = await get(session, datadog, users(datadog, datadog.service_account_id))

    for found in answers.values():
        assert [got.status for got in found] == [200, 200, 429]
    assert one.status == 429
    assert [found[0].headers["X-RateLimit-Name"] for found in answers.values()] == [
        "service_account_access_tokens",
        "personal_access_tokens",
        "users",
    ]
