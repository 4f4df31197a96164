"""Creating tokens, over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.plain_client import (
    TYPE,
    address,
    ask,
    change,
    create,
    get,
    keys,
    listed,
    wanted,
)

from dd_sa_tokens import AccessToken, converter
from dd_sa_tokens.testing import FakeDatadog

SAMPLES = Path(__file__).parents[1] / "samples"
NOW = 1_800_000_000.123456


def sample(name: str) -> dict[str, Any]:
    """Return the resource object of a recorded answer."""
    resource: dict[str, Any] = json.loads((SAMPLES / name).read_text(encoding="utf-8"))["data"]
    return resource


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
