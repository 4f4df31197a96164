"""How long the new token of a rotation lives."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.rotations import (
    DAY,
    LIFE,
    NAME,
    SCOPES,
    SOON,
    Vault,
    connect,
    state,
)
from support.scripted import ScriptedDatadog

from dd_sa_tokens import (
    AccessToken,
    RotationError,
    TokensClient,
)
from dd_sa_tokens._rotation.lifetime import successor_expiry

pytestmark = pytest.mark.usefixtures("loop_errors")

# How long the new one lives

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("created", "ends", "expected"),
    [
        (NOW - DAY, None, None),
        (None, None, None),
        (NOW - DAY, NOW + 6 * DAY, NOW + 7 * DAY - MINUTE),
        (NOW - 9 * DAY, NOW - 2 * DAY, NOW + 7 * DAY - MINUTE),
        (NOW, NOW + 365 * DAY, NOW + 365 * DAY - MINUTE),
        (NOW, NOW + 365 * DAY - MINUTE, NOW + 365 * DAY - MINUTE),
        (NOW, NOW + 7 * DAY + timedelta(hours=3), NOW + 7 * DAY + timedelta(hours=3)),
        (NOW, NOW + DAY + timedelta(minutes=5), NOW + DAY + timedelta(minutes=5)),
        (NOW, NOW + timedelta(hours=1), NOW + timedelta(hours=1)),
        (NOW - DAY, END, END),
    ],
    ids=[
        "never",
        "never, age unknown",
        "a week",
        "a week, over",
        "a year",
        "a year, rotated before",
        "no whole days",
        "a little over a day",
        "an hour",
        "end of time",
    ],
)
def test_the_successor_lives_as_long(
    created: datetime | None, ends: datetime | None, expected: datetime | None
) -> None:
    """The new token lives as long from now as the old one did from its creation, and without end only if that did.

    Whole days get a minute less, once, so that a cap of the API holds although the local clock is ahead.
    """
    assert successor_expiry(AccessToken(id="t", created_at=created, expires_at=ends), NOW) == expected


@pytest.mark.parametrize("seconds", [-59.0, -0.3, 0.0, 5.0])
def test_the_shortest_life_is_still_long_enough_when_the_request_arrives(seconds: float) -> None:
    """A token made for the API's shortest life, a day give or take a moment, gets a minute more: the way takes time."""
    old = AccessToken(id="t", created_at=NOW - DAY, expires_at=NOW + timedelta(seconds=seconds))
    assert successor_expiry(old, NOW) == NOW + DAY + timedelta(minutes=1)


@pytest.mark.parametrize("created", [None, NOW, NOW + DAY], ids=["unknown", "no life at all", "backwards"])
def test_a_life_that_is_not_known_has_no_successor(created: datetime | None) -> None:
    """A token with an end and no known creation gives no end for its successor."""
    with pytest.raises(ValueError, match=r"^expires_at must be given"):
        successor_expiry(AccessToken(id="t", created_at=created, expires_at=NOW), NOW)


@pytest.mark.parametrize("life", [LIFE, DAY + SOON, None])
async def test_a_lifetime_is_carried_over(
    datadog: ScriptedDatadog, client: TokensClient, life: timedelta | None
) -> None:
    """The successor of a 90-day, a one-day and an endless token is the same on the server."""
    vault = await Vault.with_a_token(datadog, client, life)
    new = await vault.rotate(client)
    if life is None:
        assert new.expires_at is None
    else:
        assert new.expires_at is not None
        assert abs(new.expires_at - datetime.now(UTC) - life) < timedelta(minutes=1, seconds=10)
    assert new.expires_at == (await client.get_token(datadog.service_account_id, new.id)).expires_at


async def test_one_day_tokens_can_be_rotated_for_ever() -> None:
    """A token made with the API's shortest life, and each of its successors, can be rotated."""
    day_old = AccessToken(
        id="old", name=NAME, scopes=SCOPES, created_at=datetime.now(UTC) - DAY, expires_at=datetime.now(UTC)
    )
    async with ScriptedDatadog([day_old]) as datadog, connect(datadog) as client:
        token = day_old
        for _ in range(4):
            token = await client.rotate_token(datadog.service_account_id, token.id, store=lambda _: asyncio.sleep(0))
            assert token.created_at is not None
            assert token.expires_at is not None
            assert DAY <= token.expires_at - token.created_at <= DAY + timedelta(minutes=1)
        assert datadog.token_ids == [token.id]


@pytest.mark.parametrize("life", [LIFE, None])
async def test_an_end_that_is_given_wins(
    datadog: ScriptedDatadog, client: TokensClient, life: timedelta | None
) -> None:
    """`expires_at` is the new token's end, whether or not the old one had one."""
    vault = await Vault.with_a_token(datadog, client, life)
    ends = datetime.now(UTC).replace(microsecond=0) + 3 * DAY
    assert (await vault.rotate(client, expires_at=ends)).expires_at == ends
    vault.check_replaced()


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ({"created_at": None}, "expires_at must be given"),
        ({"created_at": NOW + 9000 * DAY}, "expires_at must be given"),
        ({"name": None}, "name must be"),
        ({"scopes": ()}, "scopes must"),
        ({"scopes": ("a", "")}, "scopes must"),
    ],
    ids=str,
)
async def test_what_cannot_be_copied_is_not_rotated(flaw: dict[str, Any], words: str) -> None:
    """A token whose name, scopes or lifetime is unknown is not rotated, and the error says what is missing."""
    good = {"name": NAME, "scopes": SCOPES, "created_at": NOW - DAY, "expires_at": NOW + 9000 * DAY}
    async with ScriptedDatadog([AccessToken(id="old", **(good | flaw))]) as datadog, connect(datadog) as client:
        with pytest.raises(RotationError, match=words) as caught:
            await client.rotate_token(datadog.service_account_id, "old", store=lambda _: asyncio.sleep(0))
        assert state(caught.value) == (True, None, False, False)
        assert "Nothing was changed" in str(caught.value)
        assert datadog.asked == ["GET"]


async def test_a_life_that_is_not_known_can_be_given() -> None:
    """If the old token's lifetime is unknown, `expires_at` sets the new one's end."""
    ends = datetime.now(UTC).replace(microsecond=0) + 3 * DAY
    old = AccessToken(id="old", name=NAME, scopes=SCOPES, expires_at=ends)
    async with ScriptedDatadog([old]) as datadog, connect(datadog) as client:
        new = await client.rotate_token(
            datadog.service_account_id, "old", store=lambda _: asyncio.sleep(0), expires_at=ends
        )
        assert (new.expires_at, datadog.token_ids) == (ends, [new.id])


@pytest.mark.parametrize("behind", [2.0, 45.0, 0.0, -2.0, -45.0])
@pytest.mark.parametrize("days", [365, 364, 30, 2])
async def test_a_copied_lifetime_is_within_the_cap_of_a_server_whose_clock_differs(days: int, behind: float) -> None:
    """By the server's clock the new token lives no longer than the old one did, which may be the longest life allowed.

    The same holds for the successor of the successor, and none loses more than the room for clocks.
    """
    async with ScriptedDatadog(tokens=0, clock_offset=-behind) as datadog, connect(datadog) as client:
        vault = await Vault.with_a_token(datadog, client, days * DAY - timedelta(seconds=behind))
        for _ in range(3):
            new = await vault.rotate(client)
            assert new.created_at is not None
            assert new.expires_at is not None
            assert days * DAY - timedelta(minutes=3) < new.expires_at - new.created_at <= days * DAY
            vault.old = new
