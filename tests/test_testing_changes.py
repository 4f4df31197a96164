"""What the fake server creates, updates and revokes, over real sockets, with plain aiohttp as its client."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support.plain_client import LIMIT_HEADERS, Got, address, ask, get, head, keys, listed, raw, until
from yarl import URL

from dd_sa_tokens import AccessToken, converter
from dd_sa_tokens.testing import FakeDatadog

SAMPLES = Path(__file__).parent / "samples"
NOW = 1_800_000_000.123456
TYPE = "service_access_tokens"


def wanted(**attributes: Any) -> dict[str, Any]:
    """Return the body of a create; good unless attributes are given that are not."""
    return {"data": {"type": TYPE, "attributes": {"name": "new", "scopes": ["logs_read_data"]} | attributes}}


def change(token_id: str, **attributes: Any) -> dict[str, Any]:
    """Return the body of an update."""
    return {"data": {"type": TYPE, "id": token_id, "attributes": attributes}}


async def create(session: aiohttp.ClientSession, datadog: FakeDatadog, **attributes: Any) -> dict[str, Any]:
    """Create a token in the default account, and return its resource object."""
    got = await ask(session, datadog, "POST", address(datadog), wanted(**attributes))
    assert got.status == 201, got.body
    resource: dict[str, Any] = got.json["data"]
    return resource


async def revoke(session: aiohttp.ClientSession, datadog: FakeDatadog, token_id: str) -> Got:
    return await ask(session, datadog, "DELETE", address(datadog, token_id))


def sample(name: str) -> dict[str, Any]:
    resource: dict[str, Any] = json.loads((SAMPLES / name).read_text(encoding="utf-8"))["data"]
    return resource


# ---- Create


async def test_a_created_token(session: aiohttp.ClientSession) -> None:
    """A create answers 201 with the new token and its key, in the recorded shape."""
    async with FakeDatadog(tokens=3) as datadog:
        got = await ask(session, datadog, "POST", address(datadog), wanted(name="größer", scopes=["a", "b"]))
        resource, recorded = got.json["data"], sample("create/201.json")
        attributes = resource["attributes"]

        assert (got.status, got.headers["Content-Type"]) == (201, "application/vnd.api+json")
        assert resource.keys() == recorded.keys()
        assert attributes.keys() == recorded["attributes"].keys()
        assert resource["type"] == TYPE
        owner = {"id": datadog.service_account_id, "type": "service_account"}
        assert resource["relationships"] == {"owned_by": {"data": owner}}
        assert (attributes["name"], attributes["scopes"], attributes["expires_at"]) == ("größer", ["a", "b"], None)
        assert re.fullmatch(r"ddsat_[0-9A-Za-z]{22}_[0-9A-Za-z]{36}", attributes["key"])
        assert attributes["key"].startswith(f"{attributes['public_portion']}_")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", attributes["created_at"])


async def test_a_created_token_as_it_is_got_later(session: aiohttp.ClientSession) -> None:
    """A get shows a created token to the microsecond, never used, and without its key."""
    async with FakeDatadog(tokens=3) as datadog:
        created = await create(session, datadog)
        got = (await get(session, datadog, address(datadog, created["id"]))).json["data"]

    expected = {name: value for name, value in created["attributes"].items() if name != "key"}
    created_at = datetime.fromisoformat(expected.pop("created_at"))
    assert datetime.fromisoformat(got["attributes"].pop("created_at")) == created_at
    assert got["attributes"] == expected | {"last_used_at": None}
    assert {name: got[name] for name in ("id", "type", "relationships")} == {
        name: created[name] for name in ("id", "type", "relationships")
    }


async def test_what_it_holds_after_creates(session: aiohttp.ClientSession) -> None:
    """`tokens`, `token_ids` and lists go on with the created tokens, in the order in which they were made."""
    async with FakeDatadog(tokens=2) as datadog:
        before = datadog.tokens
        ids = [(await create(session, datadog, name=name))["id"] for name in ("Zebra", "zebu")]

        assert datadog.tokens[:2] == before
        assert [token.name for token in datadog.tokens[2:]] == ["Zebra", "zebu"]
        assert datadog.token_ids == [*(token.id for token in before), *ids]
        assert await listed(session, datadog) == (datadog.token_ids, 4)
        assert await listed(session, datadog, filter="ZEB", sort="-name") == (ids[::-1], 2)
        assert await listed(session, datadog, **{"page[size]": "2", "page[number]": "1"}) == (ids, 4)
        items = (await get(session, datadog, address(datadog))).json["data"]
    assert all("key" not in item["attributes"] for item in items)
    assert tuple(converter.structure(item, AccessToken) for item in items) == datadog.tokens


@pytest.mark.parametrize(
    ("expires_at", "shown"),
    [
        (None, None),
        ("2099-04-08T16:45:35.914Z", "2099-04-08T16:45:35.914000Z"),
        ("2099-04-08T18:45:35+02:00", "2099-04-08T16:45:35Z"),
        ("2099-04-08T16:45:35.123456789-00:00", "2099-04-08T16:45:35.123456Z"),
    ],
)
async def test_when_it_expires(session: aiohttp.ClientSession, expires_at: str | None, shown: str | None) -> None:
    """A created token expires at the given moment, which is given back in UTC, or never."""
    async with FakeDatadog(tokens=0) as datadog:
        created = await create(session, datadog, expires_at=expires_at)
        got = (await get(session, datadog, address(datadog, created["id"]))).json["data"]

    assert created["attributes"]["expires_at"] == got["attributes"]["expires_at"] == shown
    moment = None if expires_at is None else datetime.fromisoformat(expires_at)
    assert [token.expires_at for token in datadog.tokens] == [moment]


@pytest.mark.parametrize("offset", [0.0, -100_000.0])
async def test_a_day_at_least(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    """A token lives for 24 hours at least, by the server's own clock, which also dates what is made and changed."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    now = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=offset)
    day, moment = timedelta(hours=24), timedelta(microseconds=1)
    async with FakeDatadog(tokens=0, clock_offset=offset) as datadog:
        early = wanted(expires_at=(now + day - moment).isoformat())
        refused = await ask(session, datadog, "POST", address(datadog), early)
        created = await create(session, datadog, expires_at=(now + day).isoformat())
        await ask(session, datadog, "PATCH", address(datadog, created["id"]), change(created["id"], name="newer"))
        (token,) = datadog.tokens

    assert refused.status == 400
    assert "24 hours" in refused.json["errors"][0]
    assert created["attributes"]["created_at"].startswith(f"{now:%Y-%m-%dT%H:%M:%S.%f}")
    assert (token.created_at, token.modified_at, token.expires_at) == (now, now, now + day)


NOT_CREATED = [
    ("body", b""),
    ("body", b"{"),
    ("body", b"name=new"),
    ("body", b"\xff\xfe"),
    ("body", b"[" * 100_000),
    ("body", b"null"),
    ("body", []),
    ("data", {}),
    ("data", {"data": None}),
    ("data", {"data": [wanted()["data"]]}),
    ("data.type", {"data": {"attributes": wanted()["data"]["attributes"]}}),
    ("data.type", {"data": wanted()["data"] | {"type": "personal_access_tokens"}}),
    ("data.attributes", {"data": {"type": TYPE}}),
    ("data.attributes", {"data": {"type": TYPE, "attributes": ["name"]}}),
    ("data.attributes.name", {"data": {"type": TYPE, "attributes": {"scopes": ["a"]}}}),
    *(("data.attributes.name", wanted(name=name)) for name in (None, "", 5, ["new"], "\ud800")),
    ("data.attributes.scopes", {"data": {"type": TYPE, "attributes": {"name": "new"}}}),
    *(("data.attributes.scopes", wanted(scopes=s)) for s in (None, [], "a", {"a": 1}, [""], ["a", None], ["\udfff"])),
    *(
        ("data.attributes.expires_at", wanted(expires_at=at))
        for at in (
            "",
            "soon",
            "2099-04-08",
            "2099-04-08T16:45:35",
            4_080_000_000,
            True,
            "2000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+23:00",
            "9999-12-31T23:00:00-23:00",
        )
    ),
]


@pytest.mark.parametrize(("where", "body"), NOT_CREATED)
async def test_bad_creates(session: aiohttp.ClientSession, where: str, body: Any) -> None:
    """A body that is not what the API documents is answered with 400, whose text says where; nothing is made."""
    async with FakeDatadog(tokens=1) as datadog:
        got = await ask(session, datadog, "POST", address(datadog), body)

    assert (got.status, got.headers["Content-Type"]) == (400, "application/vnd.api+json")
    (text,) = got.json["errors"]
    assert re.search(rf"\b{where} must be", text)
    assert len(datadog.tokens) == 1


@pytest.mark.parametrize(("size", "status"), [(1024 * 1024, 201), (1024 * 1024 + 1, 413)])
async def test_the_largest_body(session: aiohttp.ClientSession, size: int, status: int) -> None:
    """A body may have 1 MiB and no more; a larger one is refused, and the next request is answered as usual."""
    async with FakeDatadog(tokens=0) as datadog:
        body = io.BytesIO(json.dumps(wanted()).encode().ljust(size))
        async with session.post(address(datadog), data=body, headers=keys(datadog)) as answer:
            assert answer.status == status
            assert ("errors" in await answer.json(content_type=None)) == (status == 413)
        assert len(datadog.tokens) == (status == 201)
        assert (await get(session, datadog, address(datadog))).status == 200


async def test_a_body_that_cannot_be_decompressed(session: aiohttp.ClientSession) -> None:
    """A body that is not what its Content-Encoding says is answered with 400."""
    async with FakeDatadog(tokens=0) as datadog:
        headers = keys(datadog) | {"Content-Encoding": "gzip"}
        got = await ask(session, datadog, "POST", address(datadog), json.dumps(wanted()).encode(), headers)

    assert (got.status, datadog.tokens) == (400, ())


async def test_creates_in_unknown_accounts(session: aiohttp.ClientSession) -> None:
    """A create in a service account that is not there is answered with 404, and makes no account."""
    async with FakeDatadog(tokens=1) as datadog:
        url = address(datadog, None, "unknown")
        assert (await ask(session, datadog, "POST", url, wanted())).status == 404
        assert (await get(session, datadog, url)).status == 404
    assert len(datadog.tokens) == 1


async def test_creates_in_other_accounts(session: aiohttp.ClientSession) -> None:
    """A token is made in the account of the path, and is to be found there only."""
    tokens = [AccessToken(id="a", service_account_id="one"), AccessToken(id="b", service_account_id="the other")]
    async with FakeDatadog(tokens=tokens) as datadog:
        got = await ask(session, datadog, "POST", address(datadog, None, "the other"), wanted())
        token_id = got.json["data"]["id"]

        assert got.json["data"]["relationships"]["owned_by"]["data"]["id"] == "the other"
        assert datadog.token_ids == ["a"]
        assert [token.service_account_id for token in datadog.tokens] == ["one", "the other", "the other"]
        assert (await get(session, datadog, address(datadog, token_id, "the other"))).status == 200
        assert (await get(session, datadog, address(datadog, token_id, "one"))).status == 404


async def test_the_same_seed_creates_the_same(session: aiohttp.ClientSession) -> None:
    """The same creates in the same order are given the same IDs and keys; with another seed they are not."""
    made = []
    for seed in (7, 7, 8):
        async with FakeDatadog(tokens=5, seed=seed) as datadog:
            created = [await create(session, datadog, name=str(number)) for number in range(3)]
        made.append([(resource["id"], resource["attributes"]["key"]) for resource in created])

    assert made[0] == made[1]
    assert not set(made[0]) & set(made[2])


async def test_the_tokens_of_another_server(session: aiohttp.ClientSession) -> None:
    """A server that holds what another of the same seed has created gives other IDs to what it creates."""
    async with FakeDatadog(tokens=0) as first:
        await create(session, first, name="old")
    async with FakeDatadog(tokens=first.tokens) as second:
        await create(session, second, name="new")

    assert [token.name for token in second.tokens] == ["old", "new"]
    assert len(set(second.token_ids)) == 2


async def test_creates_at_the_same_time(session: aiohttp.ClientSession) -> None:
    """Creates that are under way together make a token each, with IDs and keys of their own."""
    async with FakeDatadog(tokens=1, latency=0.01) as datadog:
        made = await asyncio.gather(*(create(session, datadog, name=str(number)) for number in range(50)))

    assert len({resource["id"] for resource in made}) == len({r["attributes"]["key"] for r in made}) == 50
    assert {(token.id, token.name) for token in datadog.tokens[1:]} == {
        (resource["id"], resource["attributes"]["name"]) for resource in made
    }


# ---- Update


@pytest.mark.parametrize("changes", [{"name": "renamed"}, {"scopes": ["x", "y"]}, {"name": "é", "scopes": ["x"]}])
async def test_an_update(session: aiohttp.ClientSession, changes: dict[str, Any]) -> None:
    """An update answers with the whole token, in the recorded shape; it changes what it names, and `modified_at`."""
    async with FakeDatadog(tokens=3) as datadog:
        before = datadog.tokens[1]
        got = await ask(session, datadog, "PATCH", address(datadog, before.id), change(before.id, **changes))
        resource, recorded = got.json["data"], sample("get_updated/200.json")
        after = datadog.tokens[1]

        assert (got.status, got.headers["Content-Type"]) == (200, "application/vnd.api+json")
        assert resource.keys() == recorded.keys()
        assert resource["attributes"].keys() == recorded["attributes"].keys()
        assert converter.structure(resource, AccessToken) == after
        assert (await get(session, datadog, address(datadog, before.id))).json == got.json
        assert await listed(session, datadog) == (datadog.token_ids, 3)
    assert after.modified_at is not None
    assert abs(datetime.now(UTC) - after.modified_at) < timedelta(seconds=30)
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    assert after == attrs.evolve(before, modified_at=after.modified_at, **plain)


async def test_an_update_of_a_created_token(session: aiohttp.ClientSession) -> None:
    """An update does not show the key again, and only the last of several updates counts."""
    async with FakeDatadog(tokens=0) as datadog:
        created = await create(session, datadog)
        for name in ("first", "second"):
            got = await ask(
                session, datadog, "PATCH", address(datadog, created["id"]), change(created["id"], name=name)
            )

    assert created["attributes"]["key"].encode() not in got.body
    assert "key" not in got.json["data"]["attributes"]
    assert [token.name for token in datadog.tokens] == ["second"]


NOT_UPDATED: list[tuple[str, Any]] = [
    ("body must be", b""),
    ("data must be", {}),
    ("data.type must be", {"data": {"id": "a", "attributes": {"name": "new"}}}),
    ("data.id must be", {"data": {"type": TYPE, "attributes": {"name": "new"}}}),
    ("data.id must be", change("b", name="new")),
    ("data.id must be", change("A", name="new")),
    ("data.attributes must be", {"data": {"type": TYPE, "id": "a"}}),
    ("data.attributes must have", change("a")),
    ("data.attributes must have", change("a", expires_at="2099-04-08T16:45:35Z")),
    *(("data.attributes.name must be", change("a", name=name, scopes=["x"])) for name in (None, "", 5)),
    *(("data.attributes.scopes must be", change("a", name="new", scopes=scopes)) for scopes in (None, [], "x", [""])),
]


@pytest.mark.parametrize(("text", "body"), NOT_UPDATED)
async def test_bad_updates(session: aiohttp.ClientSession, text: str, body: Any) -> None:
    """An update that names another token, or nothing or nonsense to change, changes nothing: 400."""
    async with FakeDatadog(tokens=[AccessToken(id="a", name="old"), AccessToken(id="b")]) as datadog:
        before = datadog.tokens
        got = await ask(session, datadog, "PATCH", address(datadog, "a"), body)

    assert got.status == 400
    assert text in got.json["errors"][0]
    assert datadog.tokens == before


# ---- Revoke


async def test_a_revocation() -> None:
    """A revoke answers 204 with nothing: no body, no length, and no type of what is not there."""
    async with FakeDatadog(tokens=3) as datadog:
        answer = await raw(datadog, address(datadog, datadog.token_ids[1]).raw_path, "DELETE")

    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 204 ")
    assert body == b""
    names = {line.partition(b":")[0].lower() for line in start.split(b"\r\n")[1:]}
    assert {name.lower().encode() for name in LIMIT_HEADERS} <= names
    assert not names & {b"content-type", b"content-length", b"transfer-encoding"}


async def test_what_was_revoked_is_gone(session: aiohttp.ClientSession) -> None:
    """A revoked token is in no list and in no attribute, and every operation on it is answered with 404."""
    async with FakeDatadog(tokens=3) as datadog:
        first, second, third = datadog.tokens
        created = (await create(session, datadog))["id"]
        for token_id in (second.id, created):
            assert (await revoke(session, datadog, token_id)).status == 204
            url = address(datadog, token_id)
            for method, body in (("GET", None), ("PATCH", change(token_id, name="new")), ("DELETE", None)):
                got = await ask(session, datadog, method, url, body)
                assert (got.status, got.json) == (404, {"errors": ["Not Found"]}), method
        assert await listed(session, datadog) == ([first.id, third.id], 2)
        assert datadog.tokens == (first, third)
        assert datadog.token_ids == [first.id, third.id]


async def test_an_account_stays_without_tokens(session: aiohttp.ClientSession) -> None:
    """An account whose last token was revoked is empty, and takes new ones."""
    async with FakeDatadog(tokens=1) as datadog:
        assert (await revoke(session, datadog, datadog.token_ids[0])).status == 204
        assert await listed(session, datadog) == ([], 0)
        await create(session, datadog)
    assert len(datadog.tokens) == 1


async def test_only_in_the_account_of_the_path(session: aiohttp.ClientSession) -> None:
    """A token of the same ID in another account is neither changed nor revoked."""
    tokens = [AccessToken(id="a", name=account, service_account_id=account) for account in ("one", "two")]
    async with FakeDatadog(tokens=tokens) as datadog:
        assert (await ask(session, datadog, "PATCH", address(datadog, "a", "two"), change("a", name="x"))).status == 200
        assert [token.name for token in datadog.tokens] == ["one", "x"]
        assert (await ask(session, datadog, "DELETE", address(datadog, "a", "two"))).status == 204
        assert datadog.tokens == (tokens[0],)
        assert (await ask(session, datadog, "DELETE", address(datadog, "a", "three"))).status == 404


@pytest.mark.parametrize("token_id", ["a/b", "%2F", "?", "#", "監視", "..", "a+b", "two words"])
async def test_ids_are_one_segment_in_changes_too(token_id: str) -> None:
    """An ID is one segment of the path, whatever characters it holds, when a token is changed or revoked."""
    async with FakeDatadog(tokens=[AccessToken(id=token_id), AccessToken(id="another")]) as datadog:
        path = address(datadog, token_id).raw_path
        body = json.dumps(change(token_id, name="new")).encode()
        assert (await raw(datadog, path, "PATCH", body)).startswith(b"HTTP/1.1 200 ")
        assert [token.name for token in datadog.tokens] == ["new", None]
        assert (await raw(datadog, path, "DELETE")).startswith(b"HTTP/1.1 204 ")
        assert datadog.token_ids == ["another"]


# ---- Credentials


def ways(key: str) -> list[dict[str, str]]:
    """Return the ways in which a token may sign a request."""
    return [
        {"Authorization": f"Bearer {key}"},
        {"DD-APPLICATION-KEY": key},
        {"DD-APPLICATION-KEY": key, "DD-API-KEY": "not looked at"},
    ]


async def test_a_created_key_is_good_until_it_is_revoked(session: aiohttp.ClientSession) -> None:
    """A created token's key signs requests from its creation on, updates and all, and no longer once it is revoked."""
    async with FakeDatadog(tokens=1) as datadog:
        one, other = [await create(session, datadog) for _ in range(2)]
        key = one["attributes"]["key"]

        async def statuses() -> list[int]:
            return [(await get(session, datadog, headers=headers)).status for headers in ways(key)]

        assert await statuses() == [200, 200, 200]
        url = address(datadog, one["id"])
        signed = {"Authorization": f"Bearer {key}"}
        assert (await ask(session, datadog, "PATCH", url, change(one["id"], scopes=["x"]), signed)).status == 200
        assert await statuses() == [200, 200, 200]
        assert (await ask(session, datadog, "DELETE", url, headers=signed)).status == 204
        assert await statuses() == [401, 401, 401]
        signed = {"Authorization": f"Bearer {other['attributes']['key']}"}
        assert (await get(session, datadog, headers=signed)).status == 200


async def test_a_created_key_is_good_until_it_expires(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is refused from the very moment of `expires_at` on, by the server's clock; its token stays."""
    now = NOW
    monkeypatch.setattr(time, "time", lambda: now)
    async with FakeDatadog(tokens=1, clock_offset=5.0) as datadog:
        expires_at = datetime.fromtimestamp(NOW, UTC) + timedelta(days=2)
        created = await create(session, datadog, expires_at=expires_at.isoformat())
        for at, status in ((-5.1, 200), (-5.0, 401), (1.0, 401)):
            now = expires_at.timestamp() + at
            for headers in ways(created["attributes"]["key"]):
                assert (await get(session, datadog, headers=headers)).status == status
        assert created["id"] in datadog.token_ids


async def test_what_is_no_key(session: aiohttp.ClientSession) -> None:
    """Parts of a key, a key in a wrong place, and the public portion of a token that was given open nothing."""
    async with FakeDatadog(tokens=1) as datadog:
        attributes = (await create(session, datadog))["attributes"]
        key, public_portion = attributes["key"], attributes["public_portion"]
        refused: list[dict[str, str]] = [
            *ways(public_portion),
            *ways(key[:-1]),
            *ways(str(datadog.tokens[0].public_portion)),
            *ways(""),
            {"DD-API-KEY": key},
            {"Authorization": key},
            {"Authorization": f"bearer {key}"},
            {"Authorization": f"Basic {key}"},
            {"Authorization": "Bearer wrong", "DD-APPLICATION-KEY": key},
            {"DD-API-KEY": key, "DD-APPLICATION-KEY": datadog.app_key},
        ]
        for headers in refused:
            assert (await get(session, datadog, headers=headers)).status == 401, headers


async def test_the_standing_token_is_not_among_the_tokens(session: aiohttp.ClientSession) -> None:
    """`access_token` can create and revoke, and stays good when all tokens are gone."""
    async with FakeDatadog(tokens=2) as datadog:
        signed = {"Authorization": f"Bearer {datadog.access_token}"}
        assert (await ask(session, datadog, "POST", address(datadog), wanted(), signed)).status == 201
        for token_id in datadog.token_ids:
            assert (await ask(session, datadog, "DELETE", address(datadog, token_id), headers=signed)).status == 204
        assert (await get(session, datadog, address(datadog), headers=signed)).status == 200
    assert datadog.tokens == ()


async def test_it_does_not_show_keys(session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """No key is in its repr, in those of what it holds, or in a log record."""
    caplog.set_level(logging.DEBUG)
    async with FakeDatadog(tokens=1) as datadog:
        key = (await create(session, datadog))["attributes"]["key"]
        await get(session, datadog, headers={"Authorization": f"Bearer {key}"})
        held = [held for account in datadog._accounts._accounts.values() for held in account.values()]

    assert key not in f"{datadog!r} {datadog._accounts!r} {held!r} {datadog.tokens!r}"
    assert key not in caplog.text


# ---- Quota and faults


async def test_all_operations_spend_quota(session: aiohttp.ClientSession) -> None:
    """The five operations spend one quota, under one name, carried out or not; one without quota is not carried out."""
    async with FakeDatadog(tokens=1, rate_limit=(8, 3600.0)) as datadog:
        token_id = datadog.token_ids[0]
        url = address(datadog, token_id)
        asked: list[tuple[str, URL, Any, int]] = [
            ("GET", url, None, 200),
            ("GET", address(datadog), None, 200),
            ("POST", address(datadog), wanted(), 201),
            ("POST", address(datadog), wanted(name=""), 400),
            ("PATCH", url, change(token_id, name="new"), 200),
            ("PATCH", url, change("another", name="new"), 400),
            ("DELETE", url, None, 204),
            ("DELETE", url, None, 404),
            ("POST", address(datadog), wanted(), 429),
            ("PATCH", address(datadog, datadog.token_ids[-1]), change(datadog.token_ids[-1], name="x"), 429),
            ("DELETE", address(datadog, datadog.token_ids[-1]), None, 429),
        ]
        answers = [await ask(session, datadog, method, where, body) for method, where, body, _ in asked]

    assert [got.status for got in answers] == [status for *_, status in asked]
    assert [got.headers["X-RateLimit-Remaining"] for got in answers] == [*"76543210", "0", "0", "0"]
    assert {got.headers["X-RateLimit-Name"] for got in answers} == {"service_account_access_tokens"}
    assert (datadog.requests, datadog.rejected) == (11, 3)
    assert [token.name for token in datadog.tokens] == ["new"]


OPERATIONS = ["POST", "PATCH", "DELETE"]


def operation(datadog: FakeDatadog, method: str) -> tuple[str, bytes]:
    """Return the path and the body of an operation on the account, or on its only token."""
    token_id = datadog.token_ids[0]
    body = {"POST": wanted(), "PATCH": change(token_id, name="new"), "DELETE": None}[method]
    path = address(datadog, None if method == "POST" else token_id).raw_path
    return path, b"" if body is None else json.dumps(body).encode()


def carried_out(datadog: FakeDatadog, method: str) -> bool:
    """Tell whether that operation has been carried out on a server with one token."""
    names = [token.name for token in datadog.tokens]
    return {"POST": len(names) == 2, "PATCH": names == ["new"], "DELETE": names == []}[method]


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_refusal_instead_of_a_change(session: aiohttp.ClientSession, method: str) -> None:
    """A scripted status, like bad credentials, keeps an operation from being carried out; the next one is."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(status=503)

        url = URL(f"{datadog.url}{path}", encoded=True)
        assert (await ask(session, datadog, method, url, body, headers={})).status == 401
        assert (await raw(datadog, path, method, body)).startswith(b"HTTP/1.1 503 ")
        assert not carried_out(datadog, method)
        assert (await raw(datadog, path, method, body)).startswith(b"HTTP/1.1 20")
        assert carried_out(datadog, method)


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_change_whose_answer_is_dropped(method: str) -> None:
    """With a drop the operation is carried out, and not a byte says so."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(drop=True)

        assert await raw(datadog, path, method, body) == b""
        assert carried_out(datadog, method)


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_change_whose_answer_is_truncated(method: str) -> None:
    """With a truncated answer the operation is carried out; a revoke's, which has no body, is dropped."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(truncate=True)
        start, _, rest = (await raw(datadog, path, method, body)).partition(b"\r\n\r\n")

    assert carried_out(datadog, method)
    if method == "DELETE":
        assert (start, rest) == (b"", b"")
    else:
        length = re.search(rb"Content-Length: (\d+)", start)
        assert length is not None
        assert len(rest) == int(length[1]) // 2 > 0


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_change_whose_answer_stalls(method: str) -> None:
    """With a stall the operation is carried out at once, and its answer comes later."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(stall=0.05)
        stalled = asyncio.create_task(raw(datadog, path, method, body))
        await until(lambda: carried_out(datadog, method))
        assert not stalled.done()
        assert (await stalled).startswith(b"HTTP/1.1 20")


async def test_a_fault_belongs_to_who_came_first(session: aiohttp.ClientSession) -> None:
    """A fault stays with the request that met it, although others come while its body is on its way."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, "POST")
        datadog.fail_next(drop=True)
        datadog.fail_next(status=503)
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(datadog.url).port)
        writer.write(head(datadog, path, "POST", len(body)) + body[:9])
        await until(lambda: len(datadog._faults) == 1)

        assert (await get(session, datadog)).status == 503
        assert not carried_out(datadog, "POST")
        writer.write(body[9:])
        assert await reader.read() == b""
        assert carried_out(datadog, "POST")
        writer.close()
        await writer.wait_closed()


async def test_bodies_that_never_end(session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes, or the server's end, while a body is on its way: nothing is made, said, or waited for."""
    before = asyncio.all_tasks()
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, "POST")
        writers = []
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", URL(datadog.url).port)
            writer.write(head(datadog, path, "POST", len(body)) + body[:9])
            writers.append(writer)
        await until(lambda: datadog.requests == 2)
        writers[0].close()
        await writers[0].wait_closed()
        assert (await get(session, datadog)).status == 200
        start = time.monotonic()
    assert time.monotonic() - start < 1.0
    writers[1].close()
    await writers[1].wait_closed()

    assert len(datadog.tokens) == 1
    assert asyncio.all_tasks() == before
    assert caplog.records == []
