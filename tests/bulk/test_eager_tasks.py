"""Under `asyncio.eager_task_factory` a new task runs at once, inside the call that makes it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from support.bulk import Service, breaking, plain, slowly
from support.cancelling import check_nothing_left
from support.lists import connected
from support.payloads import names

from dd_sa_tokens import AccessToken, InvalidArgumentError, SourceError, TokenResult
from dd_sa_tokens._bulk import collect, stream
from dd_sa_tokens.testing import FakeDatadog

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")

CONCURRENCY = 250
COUNT = 500


@pytest.fixture(autouse=True)
async def _eager() -> AsyncIterator[None]:
    """Let all tasks of the loop start at once, those of the test's servers included."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore] # 3.12 and later
    yield
    loop.set_task_factory(None)


async def ready(ids: Iterable[str]) -> AsyncIterator[str]:
    """Give IDs from an async generator that never waits."""
    for token_id in ids:
        yield token_id


SOURCES: dict[str, Any] = {"list": list, "generator": iter, "async, ready": ready, "async, slow": slowly}
DELAYS = {"answers at once": 0, "answers later": 3}


@pytest.mark.parametrize("delay", DELAYS.values(), ids=list(DELAYS))
@pytest.mark.parametrize("make", SOURCES.values(), ids=list(SOURCES))
async def test_every_position_has_its_result(make: Any, delay: int) -> None:
    """With 250 at a time, from any source, whether the fetches wait or not."""
    service = Service(delay=delay)
    async with asyncio.timeout(10):
        result = await collect(make(names(COUNT)), plain(service), CONCURRENCY)
        assert [item.unwrap().id for item in result] == names(COUNT)
        async with aclosing(stream(make(names(COUNT)), plain(service), CONCURRENCY)) as items:
            found = [item.unwrap().id async for item in items]
    assert sorted(found) == sorted(names(COUNT))
    assert service.most_in_flight <= CONCURRENCY


@pytest.mark.parametrize("make", SOURCES.values(), ids=list(SOURCES))
async def test_as_many_are_in_flight_as_may_be(make: Any) -> None:
    """The workers are all started, not one after the other's first answer."""
    service = Service(delay=300)
    async with asyncio.timeout(10):
        await collect(make(names(COUNT)), plain(service), CONCURRENCY)
    assert service.most_in_flight == CONCURRENCY


async def test_a_fetch_that_breaks_comes_out() -> None:
    """An error of the fetch itself, raised while the first worker starts, is the call's."""

    async def fetch(token_id: str) -> AccessToken:
        raise ZeroDivisionError(token_id)

    with pytest.raises(ZeroDivisionError):
        await collect(names(COUNT), plain(fetch), CONCURRENCY)


async def test_a_source_that_breaks_is_the_source_s_error() -> None:
    """What the source gave before its error is fetched."""
    with pytest.raises(SourceError) as caught:
        await collect(breaking(names(300), OSError()), plain(Service()), CONCURRENCY)
    assert [item.unwrap().id for item in caught.value.partial] == names(300)


async def test_what_needs_no_request_is_answered() -> None:
    """Values that are no IDs are answered without a fetch, which never waits."""
    given: Iterator[Any] = iter(range(COUNT))
    result = await collect(given, plain(Service()), CONCURRENCY)
    assert [type(item.error) for item in result] == [InvalidArgumentError] * COUNT


async def test_a_stream_that_is_left_early_ends_its_workers() -> None:
    """Leaving the loop cancels all workers."""
    service = Service(delay=20)
    first: TokenResult | None = None
    async with aclosing(stream(names(COUNT), plain(service), CONCURRENCY)) as items:
        async for item in items:
            first = item
            break
    assert first is not None
    assert service.in_flight == 0


@pytest.mark.parametrize("strategy", ["auto", "list", "get"])
@pytest.mark.parametrize("make", SOURCES.values(), ids=list(SOURCES))
async def test_a_client_under_an_eager_loop(make: Any, strategy: Any) -> None:
    """`get_tokens`, `stream_tokens` and `list_tokens` give all tokens over real sockets, and leave nothing."""
    async with (
        FakeDatadog(tokens=300, rate_limit=(10_000, 10.0)) as datadog,
        connected(datadog, concurrency=CONCURRENCY) as client,
    ):
        ids = list(datadog.token_ids)
        async with asyncio.timeout(20):
            result = await client.get_tokens(datadog.service_account_id, make(ids), strategy=strategy)
            assert [item.unwrap().id for item in result] == ids
            async with aclosing(
                client.stream_tokens(datadog.service_account_id, make(ids), strategy=strategy)
            ) as items:
                found = [item.unwrap().id async for item in items]
            assert sorted(found) == sorted(ids)
            listed = [token.id async for token in client.list_tokens(datadog.service_account_id)]
            assert sorted(listed) == sorted(ids)
        check_nothing_left(client)
