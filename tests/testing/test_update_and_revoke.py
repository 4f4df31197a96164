"""Updating and revoking tokens, over real sockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support.plain_client import (
    LIMIT_HEADERS,
    TYPE,
    address,
    ask,
    change,
    create,
    get,
    listed,
    raw,
    revoke,
)

from dd_sa_tokens import AccessToken, converter
from dd_sa_tokens.testing import FakeDatadog

SAMPLES = Path(__file__).parents[1] / "samples"
NOW = 1_800_000_000.123456


def sample(name: str) -> dict[str, Any]:
    """Return the resource object of a recorded answer."""
    resource: dict[str, Any] = json.loads((SAMPLES / name).read_text(encoding="utf-8"))["data"]
    return resource


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
    """When a token is changed or revoked, its ID is one segment of the path, with any characters in it."""
    async with FakeDatadog(tokens=[AccessToken(id=token_id), AccessToken(id="another")]) as datadog:
        path = address(datadog, token_id).raw_path
        body = json.dumps(change(token_id, name="new")).encode()
        assert (await raw(datadog, path, "PATCH", body)).startswith(b"HTTP/1.1 200 ")
        assert [token.name for token in datadog.tokens] == ["new", None]
        assert (await raw(datadog, path, "DELETE")).startswith(b"HTTP/1.1 204 ")
        assert datadog.token_ids == ["another"]
