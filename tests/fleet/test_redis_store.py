"""The store as users make it: its arguments, its life, and what it leaves in Redis."""

from __future__ import annotations

import asyncio
import pickle
import sys
import traceback
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from support.command_line import within
from support.keys import KEYS
from support.leasing import seen

from benchmarks.redis_server import RedisServer
from dd_sa_tokens import ConfigurationError, TokensClient
from dd_sa_tokens.fleet import LeaseRequest, RedisStore
from dd_sa_tokens.testing import FakeDatadog

NOWHERE = "redis://localhost:1/0"


def ask(scope: str = "https://api.test", record: str = "get_token", **more: Any) -> LeaseRequest:
    return LeaseRequest(scope=scope, record=record, operation="get_token", **({"needed": 1, "wanted": 11} | more))


@pytest.mark.parametrize("name", ["", "  ", None, 7, "\ud800"])
def test_the_organization_has_a_name(name: Any) -> None:
    """A name that is empty or cannot be sent to Redis is refused, and the text says what would be right."""
    with pytest.raises(ConfigurationError, match="organization must be a non-empty str, such as 'acme'"):
        RedisStore(NOWHERE, organization=name)
    with pytest.raises(ConfigurationError, match="prefix must be a non-empty str, such as 'acme'"):
        RedisStore(NOWHERE, organization="acme", prefix=name)


def test_an_address_is_a_url_of_redis() -> None:
    """A URL of another kind is refused, without being shown: it may have a password."""
    with pytest.raises(ConfigurationError, match="redis must be a URL such as redis://") as caught:
        RedisStore("http://user:canary@host", organization="acme")
    frames = [frame for frame, _ in traceback.walk_tb(caught.tb)][1:]  # without the test's own
    assert frames
    assert not any("canary" in repr(frame.f_locals) for frame in frames)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [(7, "int"), (b"redis://:canary@host", "bytes"), (redis.Redis(), "Redis"), ([NOWHERE], "list")],
    ids=["number", "bytes", "not asynchronous", "list"],
)
def test_another_object_is_no_redis(value: Any, kind: str) -> None:
    """What is neither a URL nor an asynchronous Redis client is refused by its type, without being shown."""
    with pytest.raises(ConfigurationError, match=f"or a redis.asyncio.Redis, not {kind}$") as caught:
        RedisStore(value, organization="acme")
    frames = [frame for frame, _ in traceback.walk_tb(caught.tb)][1:]  # without the test's own
    assert not any("canary" in repr(frame.f_locals) for frame in frames)


@pytest.mark.parametrize("option", ["foo=1", "protocol=9", "retry=1", "ssl_cert_reqs=bogus"])
def test_an_option_that_redis_refuses_is_no_url(option: str) -> None:
    """An option in the URL with which no connection could ever be made is refused when the store is made."""
    with pytest.raises(ConfigurationError, match="with options of redis-py"):
        RedisStore(f"rediss://host/0?{option}", organization="acme")


def test_a_client_takes_only_a_store() -> None:
    """A URL in place of a store is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="rate_limit_store must be a store such as"):
        TokensClient(**KEYS, rate_limit_store=NOWHERE)  # type: ignore[arg-type] # on purpose
    with pytest.raises(ConfigurationError, match="not the class RedisStore"):
        TokensClient(**KEYS, rate_limit_store=RedisStore)  # type: ignore[arg-type] # on purpose
    for methods in ({"lease": None, "check": print}, {"lease": print}, {"check": print}):
        with pytest.raises(ConfigurationError, match="rate_limit_store must be a store such as"):
            TokensClient(**KEYS, rate_limit_store=SimpleNamespace(**methods))  # type: ignore[arg-type] # on purpose


async def test_a_store_must_be_open() -> None:
    """A client whose store is not open, or is closed, fails at its first request, before anything is sent."""
    store = RedisStore(NOWHERE, organization="acme")
    async with TokensClient(**KEYS, base_url="http://127.0.0.1:9", rate_limit_store=store) as client:
        with pytest.raises(ConfigurationError, match="is not open; use it within 'async with"):
            await client.get_token("sa", "t")
        await store.close()
        with pytest.raises(ConfigurationError, match="is closed"):
            await client.get_token("sa", "t")
        assert client.stats.requests == 0
    with pytest.raises(ConfigurationError, match="make a new one"):
        await store.__aenter__()


def test_a_store_belongs_to_one_loop() -> None:
    """A store that was opened under another event loop is refused at the first request."""
    store = RedisStore(NOWHERE, organization="acme")
    asyncio.run(store.__aenter__())

    async def use() -> None:
        async with TokensClient(**KEYS, base_url="http://127.0.0.1:9", rate_limit_store=store) as client:
            with pytest.raises(ConfigurationError, match="another event loop"):
                await client.get_token("sa", "t")

    asyncio.run(use())


def test_a_store_shows_no_password_and_is_not_pickled() -> None:
    """Its repr says whose it is and whether it is open, and nothing of the address."""
    store = RedisStore("redis://canary-user:canary@localhost/0", organization="acme")
    assert repr(store) == "<RedisStore organization='acme' prefix='dd-sa-tokens', not open>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(store)


async def test_a_borrowed_redis_stays_open(shared_redis: RedisServer) -> None:
    """A Redis client that the store borrows is not closed with it."""
    async with Redis.from_url(shared_redis.url, decode_responses=True) as own:
        async with RedisStore(own, organization="borrowed") as store:
            lease = await store.lease(ask())
            assert lease is not None
            assert lease.is_probe
        assert await own.ping()


async def test_keys_expire_and_are_told_apart(shared_redis: RedisServer, connection: redis.Redis) -> None:
    """Keys carry prefix, organization and base URL in one hash tag, and live for two periods."""
    async with RedisStore(shared_redis.url, organization="a:b{c}", prefix="mine") as store:
        first = await store.lease(ask())
        assert first is not None
        view = seen(99, 7.0)
        await store.lease(ask(record="n/100/10", window=first.window, probe_answered=True, finished=1, view=view))
    tag = "{mine:a%3Ab%7Bc%7D:https://api.test}"
    keys = sorted(connection.keys("{mine*"))
    assert keys == [f"{tag}:get_token", f"{tag}:n/100/10"]
    assert all(19_000 < connection.pttl(key) <= 20_000 for key in keys)
    assert connection.hget(keys[0], "record") == "n/100/10"


@pytest.mark.parametrize("other", [{"organization": "two"}, {"organization": "one", "prefix": "other"}])
async def test_organizations_do_not_share(shared_redis: RedisServer, other: dict[str, str]) -> None:
    """Another organization, or another prefix, is another window: each has a probe of its own."""
    async with (
        RedisStore(shared_redis.url, organization="one") as one,
        RedisStore(shared_redis.url, **other) as two,
    ):
        leases = [await store.lease(ask(scope=f"https://{other}")) for store in (one, two, one)]
    assert [lease is not None and lease.is_probe for lease in leases] == [True, True, False]


async def test_clients_of_one_process_share_a_store(shared_redis: RedisServer, nothing_left: None) -> None:
    """Eight clients on real sockets spend two windows and more of one limit, without a 429 and without a lost ID."""
    async with (
        FakeDatadog(tokens=200, rate_limit=(100, 1.0), latency=0.02) as datadog,
        RedisStore(shared_redis.url, organization="sockets") as store,
    ):
        keys = {"api_key": datadog.api_key, "app_key": datadog.app_key}
        clients = [TokensClient(base_url=datadog.url, **keys, rate_limit_store=store) for _ in range(8)]
        account = datadog.service_account_id
        results = await asyncio.gather(
            *(
                client.get_tokens(account, datadog.token_ids[number::8], strategy="get")
                for number, client in enumerate(clients)
            )
        )
        for client in clients:
            await client.close()
        assert sum(len(result.tokens) for result in results) == 200
        assert datadog.rejected <= 2


async def test_the_command_line_shares_the_limit(shared_redis: RedisServer, connection: redis.Redis) -> None:
    """With DD_SA_TOKENS_REDIS_URL, the command line keeps its count in Redis, under the organization's name."""
    more = {"DD_SA_TOKENS_REDIS_URL": shared_redis.url, "DD_SA_TOKENS_ORGANIZATION": "cli"}
    async with FakeDatadog(tokens=3) as datadog:
        done = await within(datadog, "get", datadog.service_account_id, *datadog.token_ids, **more)
    assert done.code == 0
    assert connection.keys("{dd-sa-tokens:cli:http*")


async def test_the_command_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py, the command line says what to install."""
    monkeypatch.setitem(sys.modules, "dd_sa_tokens.fleet", None)
    async with FakeDatadog(tokens=3) as datadog:
        done = await within(datadog, "get", datadog.service_account_id, "t", DD_SA_TOKENS_REDIS_URL=NOWHERE)
    assert done.code == 2
    assert "pip install '.[cli,redis]'" in done.err
