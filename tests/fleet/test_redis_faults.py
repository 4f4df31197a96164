"""What happens to calls when Redis goes away, in each way that it can, and when it comes back. Real servers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import attrs
import pytest

from benchmarks.redis_server import RedisServer
from dd_sa_tokens import TokensClient
from dd_sa_tokens.fleet import RedisStore
from dd_sa_tokens.testing import FakeDatadog

SLOWEST = 0.2 + 0.3  # seconds of a call; the second part is for a busy machine

StartRedis = Callable[..., RedisServer]


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    async with FakeDatadog(tokens=3, rate_limit=(100_000, 60.0), latency=0.0) as datadog:
        yield datadog


@attrs.define
class Fault:
    """How Redis goes away, and what heals it."""

    begin: Callable[[RedisServer], object]
    heal: Callable[[RedisServer], object]


def execute(*command: str) -> Callable[[RedisServer], object]:
    def run(server: RedisServer) -> object:
        with server.connect() as connection:
            return connection.execute_command(*command)

    return run


FAULTS = {
    "killed": Fault(RedisServer.kill, RedisServer.start),
    "hanging": Fault(RedisServer.freeze, RedisServer.thaw),
    "paused": Fault(execute("CLIENT", "PAUSE", "300", "ALL"), lambda _: time.sleep(0.3)),
    "out of memory": Fault(execute("CONFIG", "SET", "maxmemory", "1"), execute("CONFIG", "SET", "maxmemory", "0")),
    "read-only": Fault(execute("REPLICAOF", "127.0.0.1", "1"), execute("REPLICAOF", "NO", "ONE")),
}


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level and "store" in r.getMessage()]


async def slowest_call(client: TokensClient, datadog: FakeDatadog, calls: int) -> float:
    """Make calls one after another; return how long the slowest one took."""
    slowest = 0.0
    for _ in range(calls):
        begun = time.perf_counter()
        await client.get_token(datadog.service_account_id, datadog.token_ids[0])
        slowest = max(slowest, time.perf_counter() - begun)
    return slowest


def client_of(datadog: FakeDatadog, store: RedisStore) -> TokensClient:
    return TokensClient(base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key, rate_limit_store=store)


async def until_back(client: TokensClient, datadog: FakeDatadog, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(5):
        while not messages(caplog, logging.INFO):
            await client.get_token(datadog.service_account_id, datadog.token_ids[0])
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_calls_go_on_without_redis(
    start_redis: StartRedis, datadog: FakeDatadog, fault: Fault, caplog: pytest.LogCaptureFixture, nothing_left: None
) -> None:
    """No call fails or waits for long while Redis is unavailable; one WARNING says so, one INFO that it is back."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    server = start_redis()
    async with RedisStore(server.url, organization="acme") as store, client_of(datadog, store) as client:
        await slowest_call(client, datadog, 3)
        assert not caplog.records
        fault.begin(server)

        assert await slowest_call(client, datadog, 100) < SLOWEST
        assert len(messages(caplog, logging.WARNING)) == 1

        await asyncio.to_thread(fault.heal, server)
        await until_back(client, datadog, caplog)
        assert len(messages(caplog, logging.WARNING)) == len(messages(caplog, logging.INFO)) == 1
        assert client.stats.rate_limited == 0


async def test_redis_may_be_away_at_the_start(
    start_redis: StartRedis, datadog: FakeDatadog, caplog: pytest.LogCaptureFixture, nothing_left: None
) -> None:
    """A service starts without its Redis, and shares the limit as soon as that is there."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    server = start_redis()
    server.kill()
    async with RedisStore(server.url, organization="acme") as store, client_of(datadog, store) as client:
        assert await slowest_call(client, datadog, 5) < SLOWEST
        server.start()
        await until_back(client, datadog, caplog)
        assert len(messages(caplog, logging.WARNING)) == 1


@pytest.mark.parametrize("command", [("FLUSHALL",), ("SCRIPT", "FLUSH")], ids=" ".join)
async def test_what_redis_forgets_is_made_anew(
    start_redis: StartRedis, datadog: FakeDatadog, command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """When Redis loses its keys or its scripts, the limit goes on being shared, from what the headers said."""
    caplog.set_level(logging.INFO, "dd_sa_tokens")
    server = start_redis()
    async with RedisStore(server.url, organization="acme") as store:
        for _ in range(2):
            async with client_of(datadog, store) as client:
                assert await slowest_call(client, datadog, 30) < SLOWEST
                execute(*command)(server)
                assert await slowest_call(client, datadog, 30) < SLOWEST
        with server.connect() as connection:
            assert len(connection.keys()) == 2
    assert not caplog.records


async def test_a_wrong_password_stops_nothing_and_is_not_shown(
    start_redis: StartRedis, datadog: FakeDatadog, caplog: pytest.LogCaptureFixture
) -> None:
    """With a password that Redis refuses, calls use the headers only; neither the log nor the store shows it."""
    caplog.set_level(logging.DEBUG)
    server = start_redis("--requirepass", "right")
    store = RedisStore(f"{server.url}?password=canary-5b8d", organization="acme")
    async with store, client_of(datadog, store) as client:
        assert await slowest_call(client, datadog, 5) < SLOWEST
    assert len(messages(caplog, logging.WARNING)) == 1
    assert "canary" not in caplog.text + repr(store)
    assert "invalid username-password" in caplog.text


async def test_a_closed_store_stops_no_client(
    start_redis: StartRedis, datadog: FakeDatadog, caplog: pytest.LogCaptureFixture, nothing_left: None
) -> None:
    """A store that is closed before its clients leaves all their calls to the headers, and says so once."""
    async with RedisStore(start_redis().url, organization="acme") as store:
        client = client_of(datadog, store)
        await slowest_call(client, datadog, 3)
    assert await slowest_call(client, datadog, 30) < SLOWEST
    assert len([token async for token in client.list_tokens(datadog.service_account_id)]) == 3
    await client.close()
    assert len(messages(caplog, logging.WARNING)) == 1
