"""Service accounts by their IDs over real sockets: what they cost, and which of them come."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import pytest
from support.calls import FAST
from support.internals import in_flight

from dd_sa_tokens import ForbiddenError, InvalidArgumentError, ServerError, ServiceAccount, TokensClient
from dd_sa_tokens.testing import FakeDatadog


async def found(client: TokensClient, *account_ids: str, **options: str) -> list[ServiceAccount]:
    """Return the service accounts that have these IDs."""
    return [one async for one in client.list_service_accounts(service_account_ids=account_ids, **options)]


@pytest.mark.parametrize(
    ("accounts", "users", "requests"),
    [
        (40, 57_000 - 40, Counter(list_service_accounts=1, get_service_account=40)),
        (3_000, 500, Counter(list_service_accounts=35)),
        (3, 20, Counter(list_service_accounts=1)),
    ],
)
async def test_the_fewer_of_gets_and_pages(accounts: int, users: int, requests: Counter[str]) -> None:
    """Few accounts among many users are read one by one, and many accounts page by page. Each comes once."""
    async with FakeDatadog(tokens=1, accounts=accounts, users=users) as datadog:
        async with datadog.client(retry=FAST) as client:
            account_ids = datadog.service_account_ids
            listed = await found(client, *account_ids, *account_ids[:2])
        assert sorted(one.id for one in listed) == sorted(account_ids)
        assert all(one.name for one in listed)
        counts = Counter(each.operation for each in datadog.received)
        assert counts <= requests
        assert counts.total() <= requests.total()


async def test_an_id_without_a_service_account_is_skipped() -> None:
    """An unknown ID gives nothing, whether users are read one by one or in pages."""
    for users in (3, 1000):
        async with FakeDatadog(tokens=1, accounts=2, users=users) as datadog, datadog.client(retry=FAST) as client:
            ids = [str(uuid.uuid4()), *datadog.service_account_ids]
            assert {one.id for one in await found(client, *ids)} == set(datadog.service_account_ids)


async def test_a_filter_is_kept() -> None:
    """With a filter, the users that match it are read, and none of the others comes."""
    async with FakeDatadog(tokens=1, accounts=5, users=1000) as datadog, datadog.client(retry=FAST) as client:
        everyone = await found(client, *datadog.service_account_ids)
        assert everyone[0].name is not None
        matching = await found(client, *datadog.service_account_ids, filter=everyone[0].name)
        assert everyone[0] in matching
        assert 0 < len(matching) < len(everyone) == 5
        assert {one.operation for one in datadog.received[-len(matching) :]} == {"list_service_accounts"}


async def test_a_failure_ends_the_search() -> None:
    """An account that cannot be read raises its error, and leaves no request behind."""
    async with FakeDatadog(tokens=1, accounts=30, users=10_000) as datadog, datadog.client(retry=FAST) as client:
        datadog.fail_next(500, status=500, operation="get_service_account")
        with pytest.raises(ServerError):
            await found(client, *datadog.service_account_ids)
        assert in_flight(client) == 0


async def test_gets_in_flight_stay_below_the_concurrency() -> None:
    """No more accounts are asked for at a time than the client's concurrency allows."""
    async with FakeDatadog(tokens=1, accounts=30, users=10_000, latency=0.01) as datadog:
        async with datadog.client(retry=FAST, concurrency=4) as client:
            reading = asyncio.ensure_future(found(client, *datadog.service_account_ids))
            most = 0
            while not reading.done():
                most = max(most, in_flight(client))
                await asyncio.sleep(0.001)
        assert len(await reading) == 30
        assert 1 < most <= 4


async def test_refused_and_invalid() -> None:
    """A 403 names the permission; an invalid ID is refused before anything is sent."""
    async with FakeDatadog(permissions=["service_account_write"]) as datadog, datadog.client(retry=FAST) as client:
        with pytest.raises(InvalidArgumentError):
            client.list_service_accounts(service_account_ids=["a", ""])
        assert datadog.requests == 0
        with pytest.raises(ForbiddenError, match="user_access_read"):
            await found(client, datadog.service_account_id)
