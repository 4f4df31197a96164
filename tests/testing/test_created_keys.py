"""Which requests the key of a created token signs."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from support.internals import texts_of
from support.plain_client import (
    address,
    ask,
    change,
    create,
    get,
    wanted,
)

from dd_sa_tokens.testing import FakeDatadog

SAMPLES = Path(__file__).parents[1] / "samples"
NOW = 1_800_000_000.123456


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
        texts = texts_of(datadog)

    assert not [secret for secret in (key, datadog.api_key, datadog.app_key, datadog.access_token) if secret in texts]
    assert key not in caplog.text
