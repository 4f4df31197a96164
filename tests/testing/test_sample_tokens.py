"""The tokens that the fake holds: sample tokens, and tokens that a test gives."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import attrs
import pytest
from support.plain_client import address, get

from dd_sa_tokens import AccessToken
from dd_sa_tokens.testing import FakeDatadog

ACCOUNT, OTHER_ACCOUNT = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"


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
    """Fifty sample tokens are enough to show what an auditor looks for."""
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


def test_sample_tokens_make_sense() -> None:
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
    """No date of a sample token passes a usual threshold in the course of today."""
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


def test_a_sample_account_for_a_first_token_without_one() -> None:
    """A first token without an account belongs to a sample account, and tokens that name another do not."""
    datadog = FakeDatadog(tokens=[AccessToken(id="a"), AccessToken(id="b", service_account_id=ACCOUNT)])

    assert datadog.service_account_id == FakeDatadog(tokens=0).service_account_id
    assert [token.service_account_id for token in datadog.tokens] == [datadog.service_account_id, ACCOUNT]
    assert datadog.token_ids == ["a"]


def test_an_id_may_come_back_in_another_account() -> None:
    """Only within one account an ID must be the only one of its kind."""
    tokens = [AccessToken(id="a", service_account_id=account) for account in (ACCOUNT, OTHER_ACCOUNT)]

    assert FakeDatadog(tokens=tokens).tokens == tuple(tokens)
