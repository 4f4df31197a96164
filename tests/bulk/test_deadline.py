"""The deadline of a bulk fetch: what has come stays, each other ID gets an error, and nothing is left under way."""

from __future__ import annotations

import asyncio
import itertools
import math
import pickle
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import Any

import pytest
from support.bulk import breaking, breaking_slowly
from support.calls import Connect
from support.cancelling import check_nothing_left
from support.in_memory import MemoryTransport, client_of
from support.internals import LoopPasses, counted_in_windows, in_flight, waiting
from support.keys import ACCOUNT
from support.payloads import names
from support.replies import reply, stall
from support.servers import RawServer
from support.virtual_time import CountingServer, now, virtual
from support.waiting import others

from dd_sa_tokens import (
    AccessToken,
    BulkResult,
    DatadogError,
    DeadlineExceededError,
    InvalidArgumentError,
    SourceError,
    TokenResult,
    TokensClient,
)
from dd_sa_tokens._bulk import TokenRequests, collect, make_strategy, stream
from dd_sa_tokens._protocol.documents import Page

IDS = names(10)


def in_memory(concurrency: int = 2, limit: int = 1000) -> tuple[TokensClient, MemoryTransport]:
    """Return a client whose requests take 0.1 s each."""
    transport = MemoryTransport(CountingServer(limit))
    return client_of(transport, concurrency=concurrency), transport


async def slowly(token_ids: Iterable[str], seconds: float = 0.0) -> AsyncIterator[str]:
    """Give the IDs from an async generator."""
    for token_id in token_ids:
        await asyncio.sleep(seconds)
        yield token_id


class Closable:
    """An async generator's work, which says whether it ended."""

    def __init__(self, token_ids: Iterable[str], seconds: float = 0.0) -> None:
        self._token_ids = token_ids
        self._seconds = seconds
        self.given = 0
        self.ended = False

    async def read(self) -> AsyncIterator[str]:
        try:
            for token_id in self._token_ids:
                await asyncio.sleep(self._seconds)
                self.given += 1
                yield token_id
        finally:
            self.ended = True


async def drain(client: TokensClient, source: Any, **options: Any) -> tuple[list[TokenResult], BaseException | None]:
    """Consume a stream; return its results and what it raised."""
    results: list[TokenResult] = []
    try:
        async with aclosing(client.stream_tokens(ACCOUNT, source, **options)) as items:
            async for item in items:
                results.append(item)  # noqa: PERF401 - the results before an error are wanted
    except DatadogError as error:
        return results, error
    return results, None


# get_tokens


@pytest.mark.parametrize("source", [list, tuple, iter, dict.fromkeys], ids=lambda kind: kind.__name__)
@virtual
async def test_what_has_come_stays_and_each_other_id_gets_an_error(source: Callable[[list[str]], Any]) -> None:
    """Of ten IDs the first five come within 0.35 s; each other one has an error of its own, and the order is kept."""
    client, transport = in_memory()
    result = await client.get_tokens(ACCOUNT, source(IDS), strategy="get", deadline=0.35)
    assert now() - 1000.0 == pytest.approx(0.35)
    assert [item.token_id for item in result] == IDS
    assert list(result.tokens) == IDS[:5]
    errors = list(result.errors.values())
    assert {type(error) for error in errors} == {DeadlineExceededError}
    assert [error.token_id for error in errors] == IDS[5:]
    assert len({id(error) for error in errors}) == 5
    assert transport.sent == IDS[:7]  # the last two were cut short
    assert (transport.in_flight, client.stats.requests) == (0, 7)
    assert others() == set()


@virtual
async def test_the_error_says_which_id_and_how_long_the_deadline_was() -> None:
    """It names call, account, ID and seconds, is a `TimeoutError`, and pickles."""
    client, _ = in_memory()
    result = await client.get_tokens(ACCOUNT, IDS, strategy="get", deadline=0.05)
    error = result[3].error
    assert isinstance(error, DeadlineExceededError)
    assert isinstance(error, TimeoutError)
    assert error.deadline == 0.05
    assert (error.operation, error.service_account_id, error.token_id) == ("get_tokens", ACCOUNT, "t3")
    assert str(error).startswith("no answer within the deadline of 0.05 s (get_tokens, service account")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.deadline) == (str(error), 0.05)


@virtual
async def test_duplicates_and_what_is_no_id_keep_their_positions() -> None:
    """Each position of a repeated ID has an error of its own; a position that is no ID keeps its own."""
    client, _ = in_memory()
    result = await client.get_tokens(ACCOUNT, ["a", 5, "A", "b", "a"], strategy="get", deadline=0.05)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    kinds = [type(item.error) for item in result]
    late = DeadlineExceededError
    assert kinds == [late, InvalidArgumentError, late, late, late]
    assert [item.token_id for item in result] == ["a", "<int 5>", "A", "b", "a"]
    assert result[0].error is not result[4].error


@virtual
async def test_a_call_that_ends_in_time_does_not_notice_its_deadline() -> None:
    """All tokens come, and no timer is left."""
    client, _ = in_memory()
    assert len((await client.get_tokens(ACCOUNT, IDS, strategy="get", deadline=60)).tokens) == 10
    results, error = await drain(client, IDS, deadline=60)
    assert (len(results), error) == (10, None)
    assert asyncio.get_running_loop().timers == 0


@virtual
async def test_a_deadline_is_not_taken_for_a_rate_limit() -> None:
    """Calls that wait for the next window end with their deadline, long before it, and leave their places."""
    client, transport = in_memory(limit=3)
    result = await client.get_tokens(ACCOUNT, IDS, strategy="get", deadline=4)
    assert now() - 1000.0 == pytest.approx(4)
    assert len(result.tokens) == 3
    assert {type(error) for error in result.errors.values()} == {DeadlineExceededError}
    assert transport.server.rejected == 0
    check_in_memory(client)


def check_in_memory(client: TokensClient) -> None:
    assert (in_flight(client), waiting(client), counted_in_windows(client)) == (0, 0, 0)


@pytest.mark.parametrize("outer", [0.15, 0.55])
@virtual
async def test_a_deadline_and_an_outer_timeout_work_together(outer: float) -> None:
    """Whichever comes first ends the call: the timeout as `TimeoutError` of its own, the deadline with a result."""
    client, _ = in_memory()
    results: list[BulkResult] = []

    async def call() -> None:
        async with asyncio.timeout(outer):
            results.append(await client.get_tokens(ACCOUNT, IDS, strategy="get", deadline=0.35))
            await asyncio.sleep(9)

    with pytest.raises(TimeoutError) as caught:
        await call()
    assert not isinstance(caught.value, DatadogError)
    assert now() - 1000.0 == pytest.approx(outer)
    assert [len(result.tokens) for result in results] == [5] * (outer > 0.35)
    check_in_memory(client)


@virtual
async def test_an_async_source_is_closed_and_not_asked_again() -> None:
    """`get_tokens` raises `SourceError` with what has come; each ID that was taken has a result in it."""
    client, _ = in_memory()
    source = Closable(IDS)
    with pytest.raises(SourceError, match="the deadline passed after 7 IDs") as caught:
        await client.get_tokens(ACCOUNT, source.read(), strategy="get", deadline=0.35)
    partial = caught.value.partial
    assert [item.token_id for item in partial] == IDS[:7]
    assert list(partial.tokens) == IDS[:5]
    assert {type(error) for error in partial.errors.values()} == {DeadlineExceededError}
    assert isinstance(caught.value.__cause__, DeadlineExceededError)
    assert (source.given, source.ended) == (7, True)
    assert others() == set()


@virtual
async def test_a_source_that_hangs_does_not_hold_up_the_deadline() -> None:
    """The deadline passes while the source is awaited: the call ends in time, and the source with it."""
    client, _ = in_memory()
    source = Closable(IDS, seconds=9)
    with pytest.raises(SourceError) as caught:
        await client.get_tokens(ACCOUNT, source.read(), deadline=9.5)
    assert now() - 1000.0 == pytest.approx(9.5)
    assert list(caught.value.partial.tokens) == IDS[:1]
    assert source.ended
    source = Closable(IDS, seconds=9)
    results, error = await drain(client, source.read(), deadline=9.5)
    assert [item.token_id for item in results] == IDS[:1]
    assert isinstance(error, DeadlineExceededError)
    assert source.ended
    assert others() == set()


@pytest.mark.parametrize("make", [breaking, breaking_slowly])
@virtual
async def test_a_source_that_raised_before_the_deadline_keeps_its_error(make: Callable[..., Any]) -> None:
    """The source's error is the cause; what was in flight has the deadline's error."""
    client, _ = in_memory(concurrency=5)
    with pytest.raises(SourceError, match="OSError after 3 IDs") as caught:
        await client.get_tokens(ACCOUNT, make(IDS[:3], OSError()), strategy="get", deadline=0.15)
    assert isinstance(caught.value.__cause__, OSError)
    assert [item.ok for item in caught.value.partial] == [True, False, False]


@virtual
async def test_a_sync_source_is_read_to_its_end_after_the_deadline() -> None:
    """A generator of 5,000 IDs has 5,000 results, in few passes of the event loop, but several."""
    client, _ = in_memory()
    source = iter(names(5_000))
    passes = LoopPasses()
    result = await client.get_tokens(ACCOUNT, source, deadline=0.15)
    assert (len(result), len(result.tokens)) == (5_000, 1)
    assert next(source, None) is None
    assert 10 <= passes.count < 60


@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError])
@virtual
async def test_a_sync_source_that_raises_after_the_deadline_keeps_its_error(kind: type[BaseException]) -> None:
    """The rest is read without requests; what the source raises there is the cause, with all results so far."""
    client, _ = in_memory()
    with pytest.raises(SourceError, match=f"{kind.__name__} after 10 IDs") as caught:
        await client.get_tokens(ACCOUNT, breaking(IDS, kind()), strategy="get", deadline=0.15)
    assert isinstance(caught.value.__cause__, kind)
    assert [item.ok for item in caught.value.partial] == [True] + [False] * 9


@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError])
@virtual
async def test_an_async_source_that_raises_when_it_is_closed_keeps_its_error(kind: type[BaseException]) -> None:
    """What came before the deadline is in the error. A cancellation from outside is one, also while it is closed."""

    async def read(last: float = 0.0) -> AsyncIterator[str]:
        try:
            for token_id in IDS:
                yield token_id
        finally:
            await asyncio.sleep(last)
            raise kind

    client, _ = in_memory()
    with pytest.raises(SourceError, match=f"{kind.__name__} after 3 IDs") as caught:
        await client.get_tokens(ACCOUNT, read(), deadline=0.15)
    assert isinstance(caught.value.__cause__, kind)
    assert [item.ok for item in caught.value.partial] == [True, False, False]
    call = asyncio.create_task(client.get_tokens(ACCOUNT, read(9.0), deadline=0.15))
    await asyncio.sleep(1.0)
    call.cancel()
    await asyncio.wait([call])
    assert kind is OSError or call.cancelled()
    assert others() == set()


@virtual
async def test_a_source_that_is_not_stopped_by_being_cancelled_loses_nothing() -> None:
    """Cancelled at the deadline, it gives one more ID. That has a result, too, and the call ends."""

    async def read() -> AsyncIterator[str]:
        yield IDS[0]
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(9.0)
        yield IDS[1]

    client, _ = in_memory()
    with pytest.raises(SourceError, match="the deadline passed after 2 IDs") as caught:
        await client.get_tokens(ACCOUNT, read(), deadline=0.5)
    assert [item.ok for item in caught.value.partial] == [True, False]
    results, error = await drain(client, read(), deadline=0.5)
    assert [item.ok for item in results] == [True, False]
    assert isinstance(error, DeadlineExceededError)
    assert others() == set()


# The list


def listed(ids: list[str], pages: dict[int, float]) -> TokenRequests:
    """Return requests to a list whose pages, of two tokens each, take so many seconds; a get takes one."""

    async def get(token_id: Any) -> AccessToken:
        await asyncio.sleep(1)
        return AccessToken(id=token_id)

    async def read(number: int) -> Page[AccessToken]:
        await asyncio.sleep(pages[number])
        items = [AccessToken(id=token_id) for token_id in ids[2 * number :][:2]]
        return Page(tuple(items), len(ids), 0.0)

    return TokenRequests(get=get, read_page=read, try_first_page=lambda: read(0), concurrency=5)


@virtual
async def test_tokens_of_pages_that_came_stay() -> None:
    """The deadline passes while the list is read: the tokens of the pages that came are there, also of later ones."""
    requests = listed(names(8), {0: 0.1, 1: 9.0, 2: 0.1, 3: 9.0})
    error = DeadlineExceededError(deadline=0.5)
    result = await collect(names(9), lambda ids: make_strategy("list", requests, ids), 5, error)
    assert now() - 1000.0 == pytest.approx(0.5)
    assert list(result.tokens) == ["t0", "t1", "t4", "t5"]
    assert {type(error) for error in result.errors.values()} == {DeadlineExceededError}
    assert others() == set()


@virtual
async def test_tokens_of_the_list_stay_when_the_gets_are_cut_short() -> None:
    """What the list held needs no request, so it is there after the deadline, too, wherever its ID stands."""
    requests = listed(names(8), dict.fromkeys(range(4), 0.1))
    ids = ["x", "y", "z", *names(8)]
    error = DeadlineExceededError(deadline=0.9)
    result = await collect(ids, lambda given: make_strategy("list", requests, given), 1, error)
    assert list(result.tokens) == names(8)
    assert list(result.errors) == ["x", "y", "z"]


# stream_tokens


@pytest.mark.parametrize("make", [iter, slowly], ids=["sync", "async"])
@virtual
async def test_a_stream_answers_what_it_took_and_then_raises(make: Callable[..., Any]) -> None:
    """After the tokens that came, the IDs in flight get the error, each its own, and then the stream raises it."""
    client, transport = in_memory()
    results, error = await drain(client, make(IDS), strategy="get", deadline=0.35)
    assert now() - 1000.0 == pytest.approx(0.35)
    assert [item.ok for item in results] == [True] * 5 + [False] * 2
    assert [item.error.token_id for item in results if item.error is not None] == IDS[5:7]
    assert isinstance(error, DeadlineExceededError)
    assert (error.operation, error.token_id, error.deadline) == ("stream_tokens", None, 0.35)
    assert len({id(error), *(id(item.error) for item in results[5:])}) == 3
    assert len(transport.sent) == 7
    assert others() == set()


async def drain_listed(source: Any, requests: TokenRequests, seconds: float) -> tuple[list[TokenResult], bool]:
    """Stream with the strategy "list"; return the results, and whether the deadline passed."""
    results: list[TokenResult] = []
    error = DeadlineExceededError(deadline=seconds)
    try:
        async with aclosing(stream(source, lambda ids: make_strategy("list", requests, ids), 2, error)) as items:
            async for item in items:
                results.append(item)  # noqa: PERF401 - the results before an error are wanted
    except DeadlineExceededError:
        return results, True
    return results, False


@virtual
async def test_a_stream_gives_the_tokens_of_pages_that_came() -> None:
    """The deadline passes while the list is read: the tokens of the pages that came are yielded, at each position."""
    requests = listed(names(8), {0: 0.1, 1: 9.0, 2: 0.1, 3: 9.0})
    results, expired = await drain_listed(["x", *names(9), "t4", 5], requests, 0.5)
    assert now() - 1000.0 == pytest.approx(0.5)
    assert expired
    assert [item.unwrap().id for item in results] == ["t0", "t1", "t4", "t5", "t4"]
    assert others() == set()


@virtual
async def test_a_stream_gives_the_tokens_of_the_list_when_the_gets_are_cut_short() -> None:
    """The IDs in flight get the deadline's error. What the list held comes nevertheless, wherever its ID stands."""
    requests = listed(names(8), dict.fromkeys(range(4), 0.1))
    results, expired = await drain_listed(["x", "y", "z", *names(8)], requests, 0.9)
    assert now() - 1000.0 == pytest.approx(0.9)
    assert expired
    assert [item.token_id for item in results if not item.ok] == ["x", "y"]
    assert [item.token_id for item in results if item.ok] == names(8)


@pytest.mark.parametrize("make", [itertools.cycle, slowly])
@virtual
async def test_a_stream_does_not_ask_a_source_again_that_may_not_end(make: Callable[..., Any]) -> None:
    """An iterator may never end, so after the deadline it is not read for tokens that the list held."""
    requests = listed(names(8), {0: 0.1, 1: 9.0, 2: 0.1, 3: 9.0})
    assert await drain_listed(make(names(8)), requests, 0.5) == ([], True)


@virtual
async def test_the_time_of_a_stream_begins_with_its_first_item() -> None:
    """A stream that waits to be consumed has its whole deadline before it."""
    client, _ = in_memory()
    items = client.stream_tokens(ACCOUNT, IDS, strategy="get", deadline=0.35)
    await asyncio.sleep(60)
    assert sum([item.ok async for item in _until_error(items)]) == 5


async def _until_error(items: AsyncIterator[TokenResult]) -> AsyncIterator[TokenResult]:
    try:
        async for item in items:
            yield item
    except DeadlineExceededError:
        return


@virtual
async def test_the_consumers_time_counts_and_requests_end_while_it_is_busy() -> None:
    """While the consumer holds an item the deadline passes: what is in flight is cancelled then, what came stays."""
    client, transport = in_memory()
    items = client.stream_tokens(ACCOUNT, IDS, strategy="get", deadline=0.15)
    first = await anext(items)
    await asyncio.sleep(0.2)
    assert transport.in_flight == 0
    await asyncio.sleep(60)
    rest = [item.ok async for item in _until_error(items)]
    assert first.ok
    assert rest == [False, False]


@virtual
async def test_a_stream_whose_last_item_came_in_time_does_not_raise() -> None:
    """All was answered before the deadline, though not all consumed: that is a success."""
    client, _ = in_memory(concurrency=5)
    items = client.stream_tokens(ACCOUNT, IDS[:2], strategy="get", deadline=0.35)
    got = [await anext(items)]
    await asyncio.sleep(5)
    got += [item async for item in items]
    assert [item.ok for item in got] == [True, True]


# Over sockets


@pytest.mark.usefixtures("nothing_left")
async def test_requests_in_flight_are_cancelled(server: RawServer, connect: Connect) -> None:
    """The connections of requests that were cut short are given up, and the client goes on."""
    server.script(reply(), otherwise=stall())
    client = connect(concurrency=4)
    result = await client.get_tokens(ACCOUNT, IDS, strategy="get", deadline=0.1)
    assert [item.ok for item in result] == [True] + [False] * 9
    await server.emptied()
    check_nothing_left(client)
    assert client.stats.requests == len(server.requests)
    server.script(otherwise=reply())
    assert len((await client.get_tokens(ACCOUNT, IDS, deadline=5)).tokens) == 10


# Bad input


@pytest.mark.parametrize("deadline", [0, -1, math.inf, math.nan, True, "5", 1e300])
async def test_a_deadline_that_is_no_time_is_refused_before_anything_is_sent(
    server: RawServer, connect: Connect, deadline: Any
) -> None:
    """Seconds above 0, finite: the error names the argument and the call, from a stream at once."""
    client = connect()
    with pytest.raises(InvalidArgumentError, match=r"^deadline must be .* \(get_tokens"):
        await client.get_tokens(ACCOUNT, IDS, deadline=deadline)
    with pytest.raises(InvalidArgumentError, match=r"^deadline must be .* \(stream_tokens"):
        client.stream_tokens(ACCOUNT, IDS, deadline=deadline)
    assert server.requests == []
