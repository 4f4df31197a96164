"""`find_tokens`: IDs without accounts, looked up in the organization's list, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from support.bulk import NoTruth, ProgressBar, ReadOnce, breaking, breaking_slowly, slowly
from support.calls import Connect
from support.internals import answer_requests, in_flight, on_the_wire
from support.lists import connected
from support.organizations import ServedRows, decode_page_of, ids, owned, page_number, personal, token_id_of
from support.payloads import resource
from support.replies import Responder, drip, hang_up, later, reply, stall
from support.servers import RawServer

from dd_sa_tokens import (
    BulkResult,
    ClientClosedError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    Leak,
    NotFoundError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    SourceError,
    TokensClient,
    UnauthorizedError,
)
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens.testing import FakeDatadog

ABSENT = "00000000-0000-4000-8000-000000000000"
MANY = 60_000


def rows(count: int) -> list[dict[str, Any]]:
    return [resource(token_id) for token_id in ids(count)]


def errors_of(result: BulkResult) -> list[DatadogError]:
    return [item.error for item in result if item.error is not None]


# N in, N out


async def test_each_position_has_its_result() -> None:
    """IDs of four accounts in any order, repeated, in another case, as UUIDs, absent or invalid: one result each."""
    async with FakeDatadog(tokens=60, accounts=4) as datadog, connected(datadog) as client:
        tokens = {token.id: token for token in datadog.tokens}
        known = random.Random(5).sample(sorted(tokens), 100)
        given: list[Any] = [
            *known,
            known[7].upper(),
            UUID(known[8]),
            known[9],
            ABSENT,
            "",
            5,
            "a\nb",
            ABSENT,
            None,
            "..",
        ]

        result = await client.find_tokens(given)

        assert len(result) == len(given)
        assert [item.token for item in result[:100]] == [tokens[token_id] for token_id in known]
        assert [item.token_id for item in result[:104]] == [*known, known[7].upper(), known[8], known[9], ABSENT]
        assert [item.token for item in result[100:103]] == [tokens[token_id] for token_id in known[7:10]]
        kinds = [type(item.error) for item in result[103:]]
        invalid = InvalidArgumentError
        assert kinds == [NotFoundError, invalid, invalid, invalid, NotFoundError, invalid, invalid]
        errors = errors_of(result)
        assert len({id(error) for error in errors}) == len(errors) == 7
        assert {error.operation for error in errors} == {"find_tokens"}
        assert datadog.requests == 3


async def test_ids_are_found_in_any_case(server: RawServer, connect: Connect) -> None:
    """UUIDs are the same in any case, as given and as the API writes them; other IDs differ by case."""
    server.script(otherwise=reply(200, {"data": [resource(ids(1)[0].upper()), resource("T1"), personal("t2")]}))

    result = await connect().find_tokens([ids(1)[0], ids(1)[0].title(), "t1", "T1", "T2"])

    assert [item.ok for item in result] == [True, True, False, True, False]
    assert [item.token_id for item in result] == [ids(1)[0], ids(1)[0].title(), "t1", "T1", "T2"]
    assert [error.message for error in errors_of(result)] == ["not in the list that these keys may see"] * 2


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        set,
        frozenset,
        deque,
        iter,
        dict.fromkeys,
        lambda items: dict.fromkeys(items).keys(),
        lambda items: dict(enumerate(items)).values(),
        lambda items: (item for item in items),
        lambda items: map(UUID, items),
        slowly,
        ReadOnce,
        NoTruth,
        ProgressBar,
        lambda items: ProgressBar(items, sync=False),
    ],
    ids=lambda make: make.__name__,
)
async def test_any_source(make: Callable[[list[str]], Any]) -> None:
    """IDs come from any iterable or async iterable, which is read once."""
    async with FakeDatadog(tokens=10, accounts=3) as datadog, connected(datadog) as client:
        wanted = [token.id for token in datadog.tokens][5:25]
        result = await client.find_tokens(make(wanted))
        assert sorted(item.token_id for item in result) == sorted(wanted)
        assert result.tokens == {token.id: token for token in datadog.tokens if token.id in wanted}
        assert datadog.requests == 1


@pytest.mark.parametrize("make", [list, tuple, set, iter, slowly, ReadOnce], ids=lambda make: make.__name__)
async def test_no_ids_cost_nothing(make: Callable[[list[Any]], Any]) -> None:
    """Without an ID, or with none that is valid, nothing is sent."""
    async with FakeDatadog(tokens=3) as datadog, connected(datadog) as client:
        assert await client.find_tokens(make([])) == BulkResult()
        invalid = await client.find_tokens(make(["", "..", "x" * 257, 5]))
        assert [type(error) for error in errors_of(invalid)] == [InvalidArgumentError] * 4
        assert datadog.requests == 0


@pytest.mark.parametrize("bad", ["an ID", b"an ID", None, 5, UUID(ABSENT)], ids=str)
async def test_what_is_no_source_is_refused(bad: Any) -> None:
    """A single ID, or what cannot be iterated over, is refused before anything is sent; and so is a bad flag."""
    async with FakeDatadog(tokens=3) as datadog, connected(datadog) as client:
        with pytest.raises(InvalidArgumentError, match="token_ids must be an iterable"):
            await client.find_tokens(bad)
        with pytest.raises(InvalidArgumentError, match="include_leak must be True or False") as caught:
            await client.find_tokens(datadog.token_ids, include_leak=bad)
        assert caught.value.operation == "find_tokens"
        assert datadog.requests == 0


async def test_leaks_of_found_tokens(server: RawServer, connect: Connect) -> None:
    """With `include_leak` each page is asked for with it, and a found token has its whole leak."""
    leak = {"leak_information": {"data": {"id": "l1", "type": "leaked_keys"}}}
    leaked = resource("t1") | {"relationships": leak}
    included = [{"id": "l1", "type": "leaked_keys", "attributes": {"leak_source": "a gist"}}]
    server.script(otherwise=reply(200, {"data": [resource("t0"), leaked], "included": included}))
    client = connect()

    found = await client.find_tokens(["t1", "t0"], include_leak=True)
    assert [item.unwrap().leak for item in found] == [Leak("l1", None, "a gist"), None]
    await client.find_tokens(["t1"])
    assert ["include=leak_information" in request.target for request in server.requests] == [True, False]


# What it costs


@pytest.mark.parametrize(
    ("wanted", "most"),
    [
        (range(1), 1),
        (range(100), 1),
        (range(99, 100), 1),
        (range(100, 101), 3),
        (range(150, 250), 7),
        (range(1999, 2000), 20),
        (range(2000), 20),
        (range(0, 2000, 100), 20),
    ],
    ids=str,
)
async def test_the_list_is_read_until_all_are_found(
    server: RawServer, connect: Connect, wanted: range, most: int
) -> None:
    """After the last ID is found no page is asked for that was not read ahead; never more than T/100 + 1."""
    organization, all_ids = ServedRows(rows(2000)), ids(2000)
    server.script(otherwise=organization)

    result = await connect().find_tokens([all_ids[number] for number in wanted])

    assert len(result.tokens) == len(wanted)
    assert -(-(wanted[-1] + 1) // 100) <= len(organization.pages) <= most
    assert sorted(organization.pages) == list(range(len(organization.pages)))


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (1, 1), (99, 1), (100, 2), (101, 2), (250, 3), (400, 5)])
async def test_an_id_that_is_not_found_needs_the_whole_list(
    server: RawServer, connect: Connect, count: int, requests: int
) -> None:
    """One ID that is absent takes T/100 + 1 requests at most, and says that it is not in the list."""
    organization = ServedRows(rows(count))
    server.script(otherwise=organization)

    result = await connect().find_tokens([*ids(count), ABSENT])

    (error,) = errors_of(result)
    assert len(result.tokens) == count
    assert len(organization.pages) == requests
    assert type(error) is NotFoundError
    assert (error.status, error.attempts, error.token_id, error.service_account_id) == (404, 0, ABSENT, None)
    assert error.message == "not in the list that these keys may see"


async def test_a_personal_token_is_not_found(server: RawServer, connect: Connect) -> None:
    """The ID of a personal token is in the list, but is none of a service account: its error says so, without delay."""
    own, service = ids(3, kind=1), ids(300)
    organization = ServedRows([*map(personal, own), *map(resource, service)])
    server.script(otherwise=organization)

    result = await connect().find_tokens([own[1].upper(), service[0], own[1], own[2]])

    assert len(organization.pages) == 1
    assert result[1].ok
    for item, token_id in zip((result[0], result[2], result[3]), (own[1].upper(), own[1], own[2]), strict=True):
        assert type(item.error) is NotFoundError
        assert item.error.message == "a personal access token, not a service access token"
        assert (item.error.status, item.error.attempts, item.error.token_id) == (404, 0, token_id)
    assert result[0].error is not result[2].error


async def test_the_rate_limit_is_kept() -> None:
    """21 pages through 10 requests a second: hardly a 429 even on a busy machine, and all that is there is found."""
    async with FakeDatadog(tokens=500, accounts=4, rate_limit=(10, 1.0)) as datadog, connected(datadog) as client:
        wanted = [token.id for token in datadog.tokens]
        result = await client.find_tokens([*wanted, ABSENT])
        assert list(result.tokens) == wanted
        assert datadog.requests - datadog.rejected == 21
        assert datadog.rejected <= 3


# Rows that move


@pytest.mark.parametrize("kind", [resource, personal], ids=["service", "personal"])
async def test_rows_that_move_while_they_are_looked_for(
    server: RawServer, connect: Connect, kind: Callable[[str], dict[str, Any]]
) -> None:
    """A row of any kind that goes moves a wanted token onto a page that was read: the second reading finds it."""
    gone, stay = ids(5, kind=1), ids(300)
    organization = ServedRows([*map(kind, gone), *map(resource, stay)])

    def before(number: int) -> Responder | None:
        if number == 1 and len(organization.rows) == 305:
            del organization.rows[:5]
        return None

    organization.before = before
    server.script(otherwise=organization)
    result = await connect().find_tokens(stay[90:110])

    assert list(result.tokens) == stay[90:110]
    assert organization.pages.count(0) == 2


# Lists that cannot be read


@pytest.mark.parametrize(
    ("refused", "found"), [(0, 0), (1, 100), (2, 200)], ids=["first page", "second page", "third page"]
)
async def test_a_page_that_is_refused(server: RawServer, connect: Connect, refused: int, found: int) -> None:
    """A 403 at any page: what was found stays, and the rest gets the error, with the permission, an instance each."""
    organization = ServedRows(rows(500), lambda number: reply(403) if number >= refused else None)
    server.script(otherwise=organization)
    client = connect()

    result = await client.find_tokens([*ids(500), ids(500)[499], ""])

    assert [item.token_id for item in result[:500]] == ids(500)
    assert list(result.tokens) == ids(500)[:found]
    refusals = [error for error in errors_of(result) if isinstance(error, ForbiddenError)]
    assert len({id(error) for error in refusals}) == len(refusals) == 501 - found
    assert all("it needs the permission org_app_keys_read" in str(error) for error in refusals)
    assert [error.token_id for error in refusals] == [*ids(500)[found:], ids(500)[499]]
    assert {(error.operation, error.status, error.attempts) for error in refusals} == {("find_tokens", 403, 1)}
    assert type(result[-1].error) is InvalidArgumentError
    assert in_flight(client) == 0


@pytest.mark.parametrize(
    ("act", "kind", "requests"),
    [
        (lambda: reply(401), UnauthorizedError, 1),
        (lambda: reply(500), ServerError, 3),
        (lambda: reply(200, {"data": [{"id": "t1", "attributes": 5}]}), InvalidResponseError, 1),
        (stall, RequestTimeoutError, 3),
        (lambda: drip(b"HTTP/1.1 200 OK\r\n", 0.01), RequestTimeoutError, 3),
    ],
    ids=["401", "500", "broken", "stalled", "slow"],
)
async def test_a_list_that_fails(
    server: RawServer, connect: Connect, act: Callable[[], Responder], kind: type[DatadogError], requests: int
) -> None:
    """Each kind of failure is the result of each ID, and is raised by none: the call has one result per position."""
    server.script(otherwise=act())
    client = connect(timeout=0.1, retry=RetryPolicy(max_attempts=3, initial_backoff=0.001, max_backoff=0.002))

    result = await client.find_tokens(["a", "b", "a"])

    assert [type(error) for error in errors_of(result)] == [kind] * 3
    assert [error.token_id for error in errors_of(result)] == ["a", "b", "a"]
    assert len({id(error) for error in errors_of(result)}) == 3
    assert len(server.requests) >= requests


async def test_a_page_that_fails_once_is_tried_again(server: RawServer, connect: Connect) -> None:
    """A 503, a dropped connection and a 429 are retried like those of any GET."""
    failures: dict[int, list[Responder]] = {
        0: [hang_up()],
        1: [reply(503), hang_up()],
        2: [reply(429, Retry_After="0")],
    }
    organization = ServedRows(rows(300), lambda number: failures[number].pop() if failures.get(number) else None)
    server.script(otherwise=organization)

    result = await connect().find_tokens(ids(300))

    assert list(result.tokens) == ids(300)
    assert sorted(set(organization.pages)) == [0, 1, 2]
    assert len(organization.pages) == 7


# Sources that raise


@pytest.mark.parametrize("make", [breaking, breaking_slowly], ids=["sync", "async"])
@pytest.mark.parametrize("count", [0, 1, 25])
@pytest.mark.parametrize(
    "error", [OSError("no more"), ValueError("bad row"), ZeroDivisionError(), asyncio.CancelledError()], ids=repr
)
async def test_a_source_that_raises(make: Callable[..., Any], count: int, error: BaseException) -> None:
    """What the source gave before is looked up, and the error that is raised carries it. A cancellation of the source's
    own is an error, too.
    """
    async with FakeDatadog(tokens=30, accounts=2) as datadog, connected(datadog) as client:
        wanted = [token.id for token in datadog.tokens][10 : 10 + count]
        with pytest.raises(SourceError, match=f"{type(error).__name__} after {count} IDs") as caught:
            await client.find_tokens(make(wanted, error))
        assert caught.value.__cause__ is error
        assert list(caught.value.partial.tokens) == wanted
        assert caught.value.operation == "find_tokens"
        assert datadog.requests == (count > 0)


async def test_a_source_that_raises_while_the_list_is_refused() -> None:
    """Both failures are there: the source's is raised, and the partial result has the list's for each ID."""
    async with FakeDatadog(tokens=3, permissions=()) as datadog, connected(datadog) as client:
        with pytest.raises(SourceError) as caught:
            await client.find_tokens(breaking(["a", "b"], OSError()))
        assert [type(error) for error in errors_of(caught.value.partial)] == [ForbiddenError] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_a_source_that_ends_the_program(error: type[BaseException]) -> None:
    """What is no `Exception` comes through as it is."""
    async with FakeDatadog(tokens=3) as datadog, connected(datadog) as client:
        source = breaking(["a"], error())
        task = asyncio.ensure_future(_raised(client.find_tokens(source)))
        assert type(await task) is error
        assert datadog.requests == 0


async def _raised(call: Any) -> BaseException | None:
    try:
        await call
    except BaseException as error:  # noqa: BLE001 - the test looks at it, and a loop would stop at it
        return error
    return None


# Ends


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("wait_for", [1, 2, 3, 4])
async def test_a_cancelled_find_leaves_nothing(server: RawServer, connect: Connect, wait_for: int) -> None:
    """A cancellation during any page gives up the pages under way; the client goes on working."""
    organization = ServedRows(rows(500), lambda number: stall() if number >= wait_for - 1 else None)
    server.script(otherwise=organization)
    client = connect()
    task = asyncio.create_task(client.find_tokens(ids(500)))
    await server.arrival(wait_for)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (in_flight(client), on_the_wire(client)) == (0, 0)
    organization.before = lambda _number: None
    assert len((await client.find_tokens(ids(500))).tokens) == 500


@pytest.mark.usefixtures("nothing_left")
async def test_a_find_that_is_cancelled_while_it_reads_its_source(server: RawServer, connect: Connect) -> None:
    """A source that waits is cancelled with the call, and closed."""
    closed = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "t0"
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = asyncio.create_task(connect().find_tokens(source()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert server.requests == []


@pytest.mark.parametrize("wrap", [iter, slowly], ids=["sync", "async"])
async def test_a_find_can_be_cancelled_between_two_ids(connect: Connect, wrap: Callable[[Any], Any]) -> None:
    """A source that never waits does not keep a cancellation from ending the find."""

    def source() -> Iterator[str]:
        task.cancel()
        while True:
            yield "t0"

    task = asyncio.create_task(connect().find_tokens(wrap(source())))
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


@pytest.mark.usefixtures("nothing_left")
async def test_pages_read_ahead_are_given_up_when_all_are_found(server: RawServer, connect: Connect) -> None:
    """A find does not wait for pages that it does not need."""
    organization = ServedRows(rows(1000), lambda number: stall() if number > 1 else None)
    server.script(otherwise=organization)
    client = connect()

    async with asyncio.timeout(5):
        result = await client.find_tokens([ids(1000)[0], ids(1000)[150]])

    assert len(result.tokens) == 2
    assert (in_flight(client), on_the_wire(client)) == (0, 0)


async def test_closing_the_client_ends_a_find(server: RawServer, connect: Connect) -> None:
    """What was found stays, and the rest gets `ClientClosedError`; a later call raises it."""
    organization = ServedRows(rows(300), lambda number: stall() if number else None)
    server.script(otherwise=organization)
    client = connect()
    task = asyncio.create_task(client.find_tokens(ids(300)))
    await server.arrival(2)
    await client.close()

    result = await task
    assert list(result.tokens) == ids(100)
    assert {type(error) for error in errors_of(result)} == {ClientClosedError}
    with pytest.raises(ClientClosedError):
        await client.find_tokens([])


async def test_finds_of_one_client_at_a_time(server: RawServer, connect: Connect) -> None:
    """Ten finds under one client share its connections, and each gets its own tokens."""
    release = asyncio.Event()
    organization = ServedRows(
        rows(400), lambda number: None if release.is_set() or number else later(release, reply(503))
    )
    server.script(otherwise=organization)
    client = connect(concurrency=4)
    finds = [asyncio.create_task(client.find_tokens(ids(400)[start::10])) for start in range(10)]
    await server.arrival(1)
    release.set()

    results = await asyncio.gather(*finds)
    assert [list(result.tokens) for result in results] == [ids(400)[start::10] for start in range(10)]
    assert in_flight(client) == 0


# Size


@pytest.mark.parametrize("copies", [1, 2], ids=["different", "repeated"])
async def test_the_loop_runs_while_many_ids_are_looked_up(copies: int) -> None:
    """20,000 IDs, of which none is there: the event loop runs at least once for each 1,000 that are handled."""
    passes = 0

    async def count_passes() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    client = TokensClient(access_token="ddpat_x")
    answer_requests(client, lambda request: decode_page_of(request, [resource("t1")], 1))
    wanted = ids(20_000) * copies
    counting = asyncio.create_task(count_passes())
    result = await client.find_tokens(wanted)
    counting.cancel()

    assert len(errors_of(result)) == 20_000 * copies
    # The IDs are checked, get their errors, and are put in order.
    assert passes >= 3 * 20


async def test_memory_is_what_is_asked_for_and_the_ids_seen() -> None:
    """60,000 rows, of which three are wanted: a row leaves its ID behind, not its name, scopes and dates."""
    blocks: dict[int, int] = {}

    def answer(request: Request[Any]) -> Any:
        number = page_number(request)
        if number in {100, 590}:
            gc.collect()
            blocks[number] = sys.getallocatedblocks()
        return decode_page_of(request, (owned(token_id_of(number * 100 + place), "sa") for place in range(100)), MANY)

    client = TokensClient(access_token="ddpat_x", concurrency=1)
    answer_requests(client, answer)
    wanted = [token_id_of(5), token_id_of(30_000), token_id_of(MANY - 1)]

    result = await client.find_tokens(wanted)

    assert [item.token_id for item in result if item.ok] == wanted
    # A row's ID is one block of memory; its token would be nine more.
    assert blocks[590] - blocks[100] < 49_000 * 1.2
