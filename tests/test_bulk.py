"""The bulk engine, over plain coroutine functions: no sockets, and time counted in turns of the event loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.internals import pool_sizes

from dd_sa_tokens import (
    AccessToken,
    BulkResult,
    ClientClosedError,
    ConfigurationError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    ServerError,
    SourceError,
    TokenResult,
    UnauthorizedError,
)
from dd_sa_tokens._arguments import check_id
from dd_sa_tokens._bulk import check_source, collect, stream
from dd_sa_tokens._crew import Crew

WIDTH = 4
HANG = 2.0  # seconds, after which something that should end is taken for hung
FOREVER = 10**9  # turns

Answer = Callable[[str], DatadogError | None]


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class Service:
    """Answers fetches and keeps the books.

    Args:
        answer: Gives the error that an ID meets, or None.
        delay: Turns of the loop that a fetch takes, for all or by ID.
    """

    def __init__(self, answer: Answer = lambda _: None, delay: int | Callable[[str], int] = 1) -> None:
        self._answer = answer
        self._delay = delay
        self.asked: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, token_id: str) -> AccessToken:
        check_id("token_id", token_id, "get_token")
        self.asked.append(token_id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await turns(self._delay if isinstance(self._delay, int) else self._delay(token_id))
        finally:
            self.in_flight -= 1
        error = self._answer(token_id)
        if error is not None:
            raise error
        return AccessToken(id=token_id)


def fail(*errors: type[DatadogError], **by_id: type[DatadogError]) -> Answer:
    """Answer all IDs with the errors in turn (the last one for good), or the named ones with theirs."""
    queue = list(errors)

    def answer(token_id: str) -> DatadogError | None:
        kind = by_id.get(token_id) if by_id else queue.pop(0) if len(queue) > 1 else queue[0]
        return None if kind is None else kind(f"{kind.__name__} for {token_id}", token_id=token_id)

    return answer


async def slowly(token_ids: Iterable[Any], delay: int = 1) -> AsyncIterator[Any]:
    """Give the IDs from an async generator."""
    for token_id in token_ids:
        await turns(delay)
        yield token_id


def breaking(token_ids: Iterable[str], error: BaseException) -> Iterator[str]:
    """Give the IDs, then break."""
    yield from token_ids
    raise error


async def breaking_slowly(token_ids: Iterable[str], error: BaseException) -> AsyncIterator[str]:
    """Give the IDs from an async generator, then break."""
    for token_id in breaking(token_ids, error):
        await turns(1)
        yield token_id


def names(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


def plain(fetch: Any) -> Any:
    """Plan to fetch each ID by itself."""

    async def plan() -> Any:
        return fetch

    return plan


async def gather(token_ids: Any, fetch: Any, width: int = WIDTH) -> BulkResult:
    async with asyncio.timeout(HANG):
        return await collect(token_ids, plain(fetch), width)


async def drain(token_ids: Any, fetch: Any, width: int = WIDTH) -> tuple[list[TokenResult], Exception | None]:
    """Run a stream to its end: the results, and the error that it raised."""
    results: list[TokenResult] = []
    error: Exception | None = None
    async with asyncio.timeout(HANG):
        try:
            async with aclosing(stream(token_ids, plain(fetch), width)) as items:
                async for item in items:
                    results.append(item)  # noqa: PERF401 - the results before an error are wanted
        except TimeoutError:
            raise
        except Exception as raised:  # noqa: BLE001 - whatever it is, the test looks at it
            error = raised
    return results, error


def others() -> set[asyncio.Task[Any]]:
    """Give the tasks beside this one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture(params=[list, slowly], ids=["sync", "async"])
def source(request: pytest.FixtureRequest) -> Callable[[Iterable[Any]], Any]:
    """Make an iterable, or an async one, of IDs."""
    return request.param


# N in, N out


async def test_every_position_gets_its_result_in_input_order(source: Any) -> None:
    """N IDs give N results in the order of the input, however the answers overtake one another."""
    token_ids = names(30)
    service = Service(delay=lambda token_id: hash(token_id) % 7)

    result = await gather(source(token_ids), service)

    assert [item.token_id for item in result] == token_ids
    assert [item.unwrap().id for item in result] == token_ids


async def test_a_stream_gives_every_position_one_result(source: Any) -> None:
    """A stream gives one result for each position, in whatever order."""
    token_ids = names(30)

    results, error = await drain(source(token_ids), Service(delay=lambda token_id: hash(token_id) % 7))

    assert error is None
    assert Counter(item.unwrap().id for item in results) == Counter(token_ids)


async def test_a_stream_gives_results_as_they_complete() -> None:
    """A slow ID does not hold back the results of those after it."""
    results, _ = await drain(names(3), Service(delay=lambda token_id: 20 if token_id == "t0" else 1))

    assert [item.token_id for item in results] == ["t1", "t2", "t0"]


@pytest.mark.parametrize("empty", [(), {}, iter(())])
async def test_nothing_asked_for_gives_nothing(empty: Any) -> None:
    """An empty input gives an empty result and sends nothing."""
    service = Service()

    assert len(await gather(empty, service)) == 0
    assert await drain(empty, service) == ([], None)
    assert service.asked == []


async def test_collect_asks_for_a_duplicate_once(source: Any) -> None:
    """`get_tokens` asks for a repeated ID once and answers it at each of its positions."""
    service = Service()
    token_ids = ["a", "b", "a", "c", *names(20), "b", "a"]

    result = await gather(source(token_ids), service)

    assert [item.unwrap().id for item in result] == token_ids
    assert Counter(service.asked) == Counter(set(token_ids))


async def test_a_stream_shares_a_request_among_twins_in_flight() -> None:
    """Duplicates that are in flight together share one request; one that comes later is asked for again."""
    service = Service(delay=5)

    results, _ = await drain(["a", "a", "a", "b"], service)
    again, _ = await drain(["a", "b", "c", "a"], service, width=1)

    assert [item.unwrap().id for item in results] == ["a", "a", "a", "b"]
    assert [item.unwrap().id for item in again] == ["a", "b", "c", "a"]
    assert Counter(service.asked) == {"a": 3, "b": 2, "c": 1}


async def test_what_is_answered_together_is_taken_in_before_more_is_asked(source: Any) -> None:
    """Of results that come at the same time none has to wait while requests for others are made."""
    events: list[str] = []
    rounds = [asyncio.get_running_loop().create_future()]

    async def fetch(token_id: str) -> AccessToken:
        events.append("asked")
        this_round = rounds[-1]
        if events.count("asked") % WIDTH == 0:
            rounds.append(this_round.get_loop().create_future())
            this_round.get_loop().call_soon(this_round.set_result, None)
        await this_round
        events.append("answered")
        return AccessToken(id=token_id)

    for give_all in (gather, drain):
        events.clear()
        await give_all(source(names(3 * WIDTH)), fetch)
        assert events == [*["asked"] * WIDTH, *["answered"] * WIDTH] * 3


async def test_each_failing_position_has_its_own_exception(source: Any) -> None:
    """No two results share an exception instance, duplicates included, so that raising one changes no other."""
    service = Service(fail(a=NotFoundError, b=NotFoundError), delay=5)
    token_ids = ["a", "a", "b", "ok", "a", "b"]

    result = await gather(source(token_ids), service)
    streamed, _ = await drain(source(token_ids), service, width=10)

    for items in (list(result), streamed):
        errors = [item.error for item in items if item.error is not None]
        assert len(errors) == 5
        assert len({id(error) for error in errors}) == 5
        assert all(isinstance(error, NotFoundError) for error in errors)
        assert all(item.error is None or item.error.token_id == item.token_id for item in items)


async def test_an_id_that_fails_disturbs_no_other(source: Any) -> None:
    """Single failures of any kind end up at their own position only."""
    service = Service(fail(t1=NotFoundError, t3=ServerError, t5=ForbiddenError))

    result = await gather(source(names(8)), service)

    assert [type(item.error) for item in result if not item.ok] == [NotFoundError, ServerError, ForbiddenError]
    assert sorted(result.errors) == ["t1", "t3", "t5"]
    assert len(result.tokens) == 5


BAD_IDS: list[Any] = ["", "a\nb", "\x00", "x" * 257, "..", None, 7, b"bytes", ["unhashable"], {"un": "hashable"}]


async def test_bad_ids_are_their_positions_errors(source: Any) -> None:
    """An ID that cannot be one, unhashable things included, is that position's error; the others are fetched."""
    service = Service()
    token_ids = ["first", *BAD_IDS, "last"]

    result = await gather(source(token_ids), service)
    streamed, error = await drain(source(token_ids), service)

    assert error is None
    for items in (list(result), streamed):
        assert len(items) == len(token_ids)
        assert sorted(item.token_id for item in items if item.ok) == ["first", "last"]
        assert all(isinstance(item.error, InvalidArgumentError) for item in items if not item.ok)
    assert [item.ok for item in result] == [True, *[False] * len(BAD_IDS), True]
    assert Counter(service.asked) == {"first": 2, "last": 2}


async def test_what_is_no_str_is_shown_at_its_position() -> None:
    """A position that holds no `str` is named by the value's type and repr, and its error says what is wrong."""
    (item,) = await gather([7], Service())

    assert item.token_id == "<int 7>"
    assert isinstance(item.error, InvalidArgumentError)
    assert item.error.message == "token_id must be a str, not int"
    assert item.error.operation == "get_token"


async def test_an_id_that_looks_like_a_bad_one_keeps_its_own_answer() -> None:
    """A `str` that reads like the name of a position without one is an ID like any other."""
    result = await gather(["<int 7>", 7, "<int 7>"], Service(), 1)

    assert [item.ok for item in result] == [True, False, True]


async def test_a_bad_id_that_repeats_has_an_error_at_each_position() -> None:
    """Repeated bad IDs, too, get one result and one exception each."""
    result = await gather(["", "", None, None, 7, "7"], Service())

    assert len(result) == 6
    assert len({id(item.error) for item in result if item.error}) == 5
    assert result[5].unwrap().id == "7"


@pytest.mark.parametrize("wrong", ["one-id", b"one-id", 5, None, object()])
def test_what_is_no_collection_is_refused(wrong: Any) -> None:
    """A single string, bytes or a thing that cannot be iterated over is refused, and the text says what was given."""
    with pytest.raises(InvalidArgumentError, match=f"token_ids must be an iterable.*{type(wrong).__name__}"):
        check_source(wrong)


@pytest.mark.parametrize(
    "right", [[], (), {}, set(), iter([]), {}.keys(), slowly([])], ids=lambda right: type(right).__name__
)
def test_any_collection_is_accepted(right: Any) -> None:
    """Lists, sets, views, iterators and async generators are all collections of IDs."""
    check_source(right)


# How much at a time


async def test_at_most_width_are_in_flight(source: Any) -> None:
    """No more than `width` fetches run at the same time, and that many do."""
    service = Service(delay=lambda token_id: 1 + hash(token_id) % 5)

    await gather(source(names(50)), service)
    await drain(source(names(50)), service)

    assert service.most_in_flight <= WIDTH
    if source is list:
        assert service.most_in_flight == WIDTH


@pytest.mark.parametrize("consumed", [0, 1, 3, 10])
async def test_fetching_stays_within_width_of_what_was_consumed(source: Any, consumed: int) -> None:
    """A consumer that stops after k items finds at most k + width IDs fetched, and as many taken from the source."""
    service = Service()
    taken: list[str] = []

    def watched() -> Iterator[str]:
        for token_id in names(1000):
            taken.append(token_id)
            yield token_id

    async with asyncio.timeout(HANG), aclosing(stream(source(watched()), plain(service), WIDTH)) as items:
        for _ in range(consumed):
            await anext(items)
        await turns(100)
        assert len(service.asked) <= consumed + WIDTH
        # A list is read by the test itself; what counts is the engine's own hunger for an async source.
        if source is slowly:
            assert len(taken) <= consumed + WIDTH
    assert others() == set()


async def test_a_slow_consumer_does_not_stop_the_others() -> None:
    """While the consumer holds an item, the fetches go on up to the width."""
    service = Service()
    async with asyncio.timeout(HANG), aclosing(stream(iter(names(100)), plain(service), WIDTH)) as items:
        await anext(items)
        await turns(50)
        assert len(service.asked) == 1 + WIDTH


async def test_what_the_engine_remembers_is_bounded() -> None:
    """Workers, flights and ready results never outgrow the width, however many IDs pass."""
    crew = Crew(
        slowly(itertools.islice(itertools.cycle(names(50)), 500), delay=0), Service(delay=3), WIDTH, to_the_end=False
    )
    seen = 0
    async with aclosing(crew.results()) as items:
        async for _ in items:
            seen += 1
            assert max(pool_sizes(crew).values()) <= WIDTH
    assert seen == 500


@pytest.fixture
def _traced() -> Iterator[None]:
    """Stop tracing memory, which slows everything down, when the test ends."""
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_traced")
async def test_a_stream_runs_in_constant_memory() -> None:
    """A stream over 200,000 IDs from an async generator holds no more memory at its end than early on."""

    async def endless() -> AsyncIterator[str]:
        for number in range(200_000):
            yield f"token-{number}"

    async def fetch(token_id: str) -> AccessToken:
        return AccessToken(id=token_id)

    seen = early = late = peak = blocks = 0
    async with aclosing(stream(endless(), plain(fetch), 50)) as items:
        async for _ in items:
            seen += 1
            if seen == 1_000:
                gc.collect()
                tracemalloc.start()
            elif seen == 3_000:
                early, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
            elif seen == 30_000:
                late, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()  # which makes everything several times slower; a count of objects will do from here
                blocks = sys.getallocatedblocks()

    assert seen == 200_000
    assert late - early < 64 * 1024
    assert peak - early < 256 * 1024
    assert sys.getallocatedblocks() - blocks < 2_000


@pytest.mark.usefixtures("_traced")
async def test_failures_in_a_stream_run_in_constant_memory() -> None:
    """Failures that were consumed leave nothing behind either, their frames included."""

    async def fetch(token_id: str) -> AccessToken:
        raise NotFoundError(token_id=token_id)

    seen = early = 0
    async with aclosing(stream(iter(names(6_000)), plain(fetch), 50)) as items:
        async for item in items:
            assert item.error is not None
            assert item.error.__traceback__ is None
            seen += 1
            if seen == 500:
                gc.collect()
                tracemalloc.start()
            elif seen == 1_000:
                early, _ = tracemalloc.get_traced_memory()
    gc.collect()
    late, _ = tracemalloc.get_traced_memory()

    assert late - early < 64 * 1024


# A source that breaks


@pytest.mark.parametrize("broken", [breaking, breaking_slowly])
async def test_a_stream_delivers_what_is_in_flight_before_the_sources_error(broken: Any) -> None:
    """When the source raises, the results of what it gave before come first, then its own exception, unchanged."""
    error = RuntimeError("the database went away")
    service = Service(delay=20)

    results, raised = await drain(broken(names(3), error), service)

    assert sorted(item.unwrap().id for item in results) == names(3)
    assert raised is error


@pytest.mark.parametrize("broken", [breaking, breaking_slowly])
@pytest.mark.parametrize("count", [0, 1, 3, 17])
async def test_collect_carries_the_partial_result(broken: Any, count: int) -> None:
    """From `get_tokens`, a source's error comes as `SourceError` with its cause and what was fetched before it."""
    error = RuntimeError("the database went away")

    with pytest.raises(SourceError, match="RuntimeError") as caught:
        await gather(broken(names(count), error), Service(delay=5))

    assert caught.value.__cause__ is error
    assert [item.unwrap().id for item in caught.value.partial] == names(count)
    assert isinstance(caught.value, DatadogError)
    assert caught.value.operation == "get_tokens"


@pytest.mark.parametrize("broken", [breaking, breaking_slowly])
async def test_a_cancellation_of_the_source_s_own_is_the_source_s_error(broken: Any) -> None:
    """A source that waits for something which is cancelled has failed; the call itself was not cancelled."""
    with pytest.raises(SourceError, match="CancelledError") as caught:
        await gather(broken(names(3), asyncio.CancelledError()), Service(delay=5))

    assert [item.unwrap().id for item in caught.value.partial] == names(3)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_source_is_not_asked_again_after_its_error(is_async: bool) -> None:
    """An iterator that raises once and could go on is done: what it has after its error is not fetched."""

    class Hiccup:
        given = 0

        def __iter__(self) -> Hiccup:
            return self

        def __next__(self) -> str:
            self.given += 1
            if self.given == 4:
                raise RuntimeError
            if self.given > 20:
                raise StopIteration
            return f"t{self.given}"

    class AsyncHiccup(Hiccup):
        __iter__ = None

        def __aiter__(self) -> AsyncHiccup:
            return self

        async def __anext__(self) -> str:
            await turns(1)
            try:
                return self.__next__()
            except StopIteration:
                raise StopAsyncIteration from None

    service = Service(delay=5)
    with pytest.raises(SourceError):
        await gather(AsyncHiccup() if is_async else Hiccup(), service)
    _, raised = await drain(AsyncHiccup() if is_async else Hiccup(), service)
    assert type(raised) is RuntimeError
    assert service.asked == ["t1", "t2", "t3"] * 2


async def test_collect_arranges_duplicates_and_bad_ids_in_a_partial_result() -> None:
    """A partial result keeps the input's order, its duplicates and its bad IDs."""
    with pytest.raises(SourceError) as caught:
        await gather(breaking(["a", "", "a", "b"], KeyError("x")), Service(fail(b=NotFoundError)))

    partial = caught.value.partial
    assert [item.token_id for item in partial] == ["a", "", "a", "b"]
    assert [item.ok for item in partial] == [True, False, True, False]


async def test_a_source_that_fails_at_its_first_call_is_the_sources_error() -> None:
    """A source whose iterator cannot even be made is reported like one that breaks later."""

    class Broken:
        def __iter__(self) -> Iterator[str]:
            raise OSError("no such file")

    with pytest.raises(SourceError) as caught:
        await gather(Broken(), Service())

    assert isinstance(caught.value.__cause__, OSError)
    assert len(caught.value.partial) == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_the_source_is_no_source_error(kind: type[BaseException]) -> None:
    """Ctrl-C while the source runs stays what it is: `except Exception` must not swallow it as a `SourceError`."""
    raised: BaseException | None = None
    try:
        await gather(breaking(["a"], kind()), Service())
    except BaseException as error:  # noqa: BLE001 - that is the question
        raised = error

    assert isinstance(raised, kind)


async def test_an_error_of_the_fetch_itself_is_not_blamed_on_the_source() -> None:
    """What is no `DatadogError` (a bug, then) comes out as itself, neither hidden nor called the source's fault."""

    async def fetch(token_id: str) -> AccessToken:
        await turns(1)
        raise ZeroDivisionError

    async with asyncio.timeout(HANG):
        with pytest.raises(ZeroDivisionError):
            await collect(["a", "b"], plain(fetch), WIDTH)
    _, raised = await drain(["a", "b"], fetch)
    assert isinstance(raised, ZeroDivisionError)


async def test_an_error_of_the_client_is_the_call_s() -> None:
    """A client that is wrong, for all IDs alike, is no position's error: the call raises it."""
    service = Service(fail(ConfigurationError))

    with pytest.raises(ConfigurationError):
        await gather(names(20), service)
    results, raised = await drain(names(20), service)
    assert results == []
    assert isinstance(raised, ConfigurationError)


async def test_an_error_of_the_fetch_itself_does_not_hang_its_twins() -> None:
    """Duplicates that wait for a shared request end with it, even when it breaks in an unforeseen way."""

    async def fetch(token_id: str) -> AccessToken:
        await turns(5)
        raise ZeroDivisionError

    _, raised = await drain(["a", "a", "a"], fetch)

    assert isinstance(raised, ZeroDivisionError)


@pytest.mark.parametrize("token_ids", [["a", "b"], ["a", "a", "a"]], ids=["different", "twins"])
@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_a_fetch_that_cancels_itself_is_not_lost(token_ids: list[str], to_the_end: bool) -> None:
    """A `CancelledError` that nobody asked for (the HTTP library has some) neither hangs nor drops a position."""

    async def fetch(token_id: str) -> AccessToken:
        await turns(5)
        if token_id == "a":
            raise asyncio.CancelledError
        return AccessToken(id=token_id)

    with pytest.raises(asyncio.CancelledError):
        await (gather if to_the_end else drain)(token_ids, fetch)


# When no other ID can succeed


@pytest.mark.parametrize("width", [1, 4, 50])
async def test_a_confirmed_401_stops_collect(source: Any, width: int) -> None:
    """Refused keys cost at most width + 1 requests; each remaining position gets the 401, and no attempt."""
    service = Service(lambda token_id: UnauthorizedError(token_id=token_id, attempts=1))

    result = await gather(source(names(500)), service, width)

    assert len(service.asked) <= width + 1
    assert [item.token_id for item in result] == names(500)
    errors = [item.error for item in result]
    assert all(isinstance(error, UnauthorizedError) for error in errors)
    assert len({id(error) for error in errors}) == 500
    assert [error.token_id for error in errors if error] == names(500)
    not_sent = [error for error in errors if error and error.token_id not in service.asked]
    assert not_sent
    assert {error.attempts for error in not_sent} == {0}
    assert {error.attempts for error in errors if error} == {0, 1}


async def test_after_a_stop_the_rest_of_a_long_source_lets_others_run() -> None:
    """The positions that are answered without a request do not hold up the event loop all at once."""
    turns_of_others = 0

    async def other() -> None:
        nonlocal turns_of_others
        while True:
            await asyncio.sleep(0)
            turns_of_others += 1

    others_task = asyncio.ensure_future(other())
    results = await gather(names(2_000), Service(fail(UnauthorizedError)))
    others_task.cancel()

    assert len(results.errors) == 2_000
    assert turns_of_others > 2_000 / WIDTH


@pytest.mark.parametrize("width", [1, 4, 50])
async def test_a_confirmed_401_stops_a_stream(source: Any, width: int) -> None:
    """A stream gives the 401 to the positions that it has taken, and then raises it, an instance of its own."""
    service = Service(fail(UnauthorizedError))
    taken: list[str] = []

    def watched() -> Iterator[str]:
        for token_id in names(500):
            taken.append(token_id)
            yield token_id

    token_ids = slowly(watched()) if source is slowly else watched()
    results, raised = await drain(token_ids, service, width)

    assert isinstance(raised, UnauthorizedError)
    assert raised.token_id is None
    assert len(service.asked) <= width + 1
    assert all(isinstance(item.error, UnauthorizedError) for item in results)
    assert raised not in [item.error for item in results]
    # What an async source was about to give has not been taken yet.
    assert len(taken) - (source is slowly) <= len(results) <= len(taken)
    assert sorted(item.token_id for item in results) == sorted(taken[: len(results)])


@pytest.mark.parametrize("broken", [breaking, breaking_slowly])
@pytest.mark.parametrize("error", [RuntimeError(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("count", [WIDTH, WIDTH + 1, WIDTH + 2, WIDTH + 3])
async def test_a_source_that_breaks_after_a_stop_is_no_shorter_source(
    broken: Any, error: BaseException, count: int
) -> None:
    """Whichever worker meets the source's error, one whose request the stop took back included, it is reported."""
    service = Service(fail(UnauthorizedError), delay=lambda token_id: 1 if token_id == "t0" else FOREVER)

    with pytest.raises(SourceError) as caught:
        await gather(broken(names(count), error), service)

    assert caught.value.__cause__ is error
    assert [type(item.error) for item in caught.value.partial] == [UnauthorizedError] * count


async def test_a_401_that_is_not_confirmed_goes_on(source: Any) -> None:
    """A single 401 (a key that is still being rolled out) is tried again and disturbs nothing."""
    once = iter([True])
    service = Service(lambda token_id: UnauthorizedError() if next(once, False) else None)

    result = await gather(source(names(40)), service)

    assert result.errors == {}
    assert len(service.asked) == 41


async def test_a_401_whose_second_try_meets_another_error_gives_that_error() -> None:
    """Only a second 401 confirms; what else the second try meets is the position's error, and the rest goes on."""
    answers = iter([UnauthorizedError(), NotFoundError()])
    service = Service(lambda _: next(answers, None))

    result = await gather(names(20), service, 1)

    assert [type(item.error) for item in result if item.error] == [NotFoundError]
    assert len(result.tokens) == 19


async def test_results_before_a_401_are_kept() -> None:
    """What succeeded before the keys were revoked stays in the result."""
    count = itertools.count()
    service = Service(lambda _: UnauthorizedError() if next(count) >= 30 else None)

    result = await gather(names(100), service)

    assert len(result.tokens) == 30
    assert len(result) == 100
    assert set(map(type, result.errors.values())) == {UnauthorizedError}
    assert len(service.asked) <= 30 + WIDTH + 1


@pytest.mark.parametrize("width", [1, 4, 50])
async def test_a_run_of_403s_stops(source: Any, width: int) -> None:
    """Ten 403s and nothing else mean that no ID can succeed: the rest is not asked for and gets the error."""
    service = Service(fail(ForbiddenError))

    result = await gather(source(names(500)), service, width)

    assert 10 <= len(service.asked) <= 10 + width
    assert len(result) == 500
    assert all(isinstance(item.error, ForbiddenError) and item.error.token_id == item.token_id for item in result)
    assert len({id(item.error) for item in result}) == 500


async def test_a_run_of_403s_ends_a_stream(source: Any) -> None:
    """A stream gives each 403 at its position and raises it once it is clear that nothing else will come."""
    service = Service(fail(ForbiddenError))

    results, raised = await drain(source(names(500)), service)

    assert isinstance(raised, ForbiddenError)
    assert 10 <= len(service.asked) <= 10 + WIDTH
    assert len(results) >= len(service.asked)
    assert all(isinstance(item.error, ForbiddenError) for item in results)


async def test_fewer_403s_do_not_stop(source: Any) -> None:
    """Nine 403s are nine positions' errors and nothing more."""
    service = Service(fail(ForbiddenError))

    results, raised = await drain(source(names(9)), service)

    assert raised is None
    assert len(results) == 9


async def test_403s_among_others_do_not_stop(source: Any) -> None:
    """Once something else has come back, any number of 403s stays at their positions."""
    service = Service(lambda token_id: None if token_id in {"t0", "t400"} else ForbiddenError())

    result = await gather(source(names(500)), service)
    streamed, raised = await drain(source(names(500)), service)

    assert sorted(result.tokens) == ["t0", "t400"]
    assert raised is None
    assert len(streamed) == 500


@pytest.mark.parametrize("source", [list, lambda token_ids: slowly(token_ids, delay=0)], ids=["sync", "async"])
async def test_leading_403s_resume_when_a_success_was_in_flight(source: Any) -> None:
    """Twelve 403s hold the rest back only until what is under way has answered: a success lets all go on."""
    service = Service(
        lambda token_id: ForbiddenError() if int(token_id[1:]) < 12 else None,
        delay=lambda token_id: 1 if int(token_id[1:]) < 12 else 60,
    )

    streamed, raised = await drain(source(names(60)), service, 16)
    result = await gather(source(names(60)), service, 16)

    assert raised is None
    assert len(streamed) == 60
    assert len(result.tokens) == 48
    assert len(result.errors) == 12


async def test_a_success_after_leading_403s_lets_all_workers_go_on() -> None:
    """Those who held back while it looked as if all were forbidden are all back at work after the first success."""
    service = Service(
        lambda token_id: ForbiddenError() if int(token_id[1:]) < 12 else None,
        delay=lambda token_id: 1 if int(token_id[1:]) < 12 else 30,
    )
    in_flight: dict[str, int] = {}

    async def fetch(token_id: str) -> AccessToken:
        in_flight[token_id] = service.in_flight
        return await service(token_id)

    await gather(names(60), fetch, 13)
    assert max(in_flight[token_id] for token_id in names(60)[30:]) == 12


async def test_while_403s_look_like_the_end_nothing_new_is_sent() -> None:
    """After ten 403s the engine waits for what is under way before it asks for anything else."""
    service = Service(
        fail(**{f"t{number}": ForbiddenError for number in range(500)}), delay=lambda i: 50 if i == "t0" else 1
    )

    async with asyncio.timeout(HANG), aclosing(stream(iter(names(500)), plain(service), WIDTH)) as items:
        for _ in range(10):
            await anext(items)
        await turns(20)
        assert len(service.asked) <= 10 + WIDTH
        with pytest.raises(ForbiddenError):
            async for _ in items:
                pass
    assert len(service.asked) <= 10 + WIDTH


async def test_a_bug_met_while_403s_hold_the_rest_back_does_not_hang(source: Any) -> None:
    """A fetch that breaks while ten 403s hold the others back ends the call: none waits for what never comes."""

    async def fetch(token_id: str) -> AccessToken:
        await turns(60 if token_id == "t0" else 1)
        raise ZeroDivisionError if token_id == "t0" else ForbiddenError

    with pytest.raises(ZeroDivisionError):
        await gather(source(names(60)), fetch)
    _, raised = await drain(source(names(60)), fetch)
    assert isinstance(raised, ZeroDivisionError)


async def test_bad_ids_say_nothing_about_the_others() -> None:
    """Positions refused here, without a request, neither prove nor disprove that everything is forbidden."""
    service = Service(fail(ForbiddenError))
    token_ids = [token_id for name in names(100) for token_id in (name, "", None)]

    result = await gather(token_ids, service)

    assert len(service.asked) <= 10 + WIDTH
    assert len(result) == 300


async def test_twins_of_one_403_count_once() -> None:
    """Positions that share one request's 403 are one 403: after four of those the other IDs are still asked for."""
    service = Service(fail(**dict.fromkeys(["a", "b", "c", "t0"], ForbiddenError)), delay=5)

    results, raised = await drain([*"aaaabbbbcccc", *names(20)], service)

    assert raised is None
    assert sum(item.ok for item in results) == 19
    assert len(results) == 32


async def test_a_closed_client_stops(source: Any) -> None:
    """`close()` while a bulk fetch is under way ends it: each remaining position has `ClientClosedError`."""
    count = itertools.count()
    service = Service(lambda _: ClientClosedError() if next(count) >= 20 else None)

    result = await gather(source(names(500)), service)

    assert len(result) == 500
    assert len(result.tokens) == 20
    assert set(map(type, result.errors.values())) == {ClientClosedError}
    assert len(service.asked) <= 20 + WIDTH


async def test_a_closed_client_ends_a_stream(source: Any) -> None:
    """A stream whose client is closed meanwhile raises `ClientClosedError` after what was under way."""
    count = itertools.count()
    service = Service(lambda _: ClientClosedError() if next(count) >= 20 else None)

    results, raised = await drain(source(names(500)), service)

    assert isinstance(raised, ClientClosedError)
    assert sum(item.ok for item in results) == 20
    assert len(results) <= 20 + WIDTH


@pytest.mark.parametrize("kind", [UnauthorizedError, ForbiddenError, ClientClosedError])
async def test_a_slow_source_does_not_hang_a_stream_that_has_stopped(kind: type[DatadogError]) -> None:
    """Once nothing more is to be sent, the stream ends without waiting for the source's next ID."""
    closed = asyncio.Event()

    async def stuck() -> AsyncIterator[str]:
        try:
            for token_id in names(10):
                yield token_id
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    results, raised = await drain(stuck(), Service(fail(kind), delay=30), 20)

    assert isinstance(raised, kind)
    assert len(results) == 10
    assert closed.is_set()
    assert others() == set()


async def test_a_stop_takes_back_what_is_under_way() -> None:
    """When the keys turn out to be refused, requests still in flight are cancelled and not waited for."""
    service = Service(fail(UnauthorizedError), delay=lambda token_id: 1 if token_id == "t0" else FOREVER)

    result = await gather(names(8), service)

    assert all(isinstance(item.error, UnauthorizedError) for item in result)
    assert service.in_flight == 0


# Leaving early


@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_cancelling_while_a_source_is_waited_for_is_no_complaint(
    complaints: list[dict[str, Any]], to_the_end: bool
) -> None:
    """Workers that wait for a slow source end as cancelled ones, without an exception that nobody looks at."""

    async def stuck() -> AsyncIterator[str]:
        yield "t0"
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task((gather if to_the_end else drain)(stuck(), Service()))
    await turns(20)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_a_source_that_fails_when_it_is_cancelled_is_no_complaint(
    complaints: list[dict[str, Any]], to_the_end: bool
) -> None:
    """What a source makes of being cancelled (an error of its own, say) does not take the cancellation's place."""

    async def fragile() -> AsyncIterator[str]:
        yield "t0"
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise ConnectionError

    task = asyncio.create_task((gather if to_the_end else drain)(fragile(), Service()))
    await turns(20)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("kind", [None, UnauthorizedError, ForbiddenError, ClientClosedError])
@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_cancelling_at_any_moment_leaves_nothing(source: Any, kind: Any, to_the_end: bool) -> None:
    """Cancelled after any number of turns, also amid a stop, a bulk fetch ends at once and leaves no task."""
    for after in itertools.count():
        service = Service((lambda _: None) if kind is None else fail(kind), delay=2)

        async def run(service: Service = service) -> None:
            if to_the_end:
                await collect(source(names(15)), plain(service), WIDTH)
            else:
                async with aclosing(stream(source(names(15)), plain(service), WIDTH)) as items:
                    async for _ in items:
                        await turns(1)

        task = asyncio.create_task(run())
        await turns(after)
        finished = task.done()
        task.cancel()
        async with asyncio.timeout(HANG):
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await turns(3)  # an async source that was dropped is closed by the loop
        assert service.in_flight == 0
        assert others() == set(), f"cancelled after {after} turns"
        if finished:
            break
        # A stop that ends the call in the very turn of the cancellation may win.
        assert isinstance(outcome, asyncio.CancelledError) or kind is not None
    assert after > 5


@pytest.mark.parametrize("consumed", [0, 1, 5])
async def test_a_stream_that_is_closed_early_cancels_its_requests(source: Any, consumed: int) -> None:
    """Breaking out of a stream cancels the requests in flight before `aclose()` returns."""
    service = Service(delay=lambda token_id: 1 if int(token_id[1:]) < 5 else FOREVER)

    async with asyncio.timeout(HANG):
        items = stream(source(names(100)), plain(service), WIDTH)
        for _ in range(consumed):
            await anext(items)
        await items.aclose()

    assert service.in_flight == 0
    await turns(2)
    assert others() == set()


async def test_a_stream_that_is_dropped_cancels_its_requests(source: Any) -> None:
    """A stream that was left with a plain `break` and dropped is cleaned up by the loop within a turn or two."""
    service = Service(delay=lambda token_id: 1 if token_id == "t0" else FOREVER)

    async for _ in stream(source(names(100)), plain(service), WIDTH):
        break
    gc.collect()
    await turns(5)

    assert service.in_flight == 0
    assert others() == set()


async def test_an_exception_of_the_consumer_comes_through() -> None:
    """What the consumer raises amid a stream is what it gets, not a group of other things."""
    service = Service(delay=3)

    async def consume() -> None:
        async with aclosing(stream(names(20), plain(service), WIDTH)) as items:
            async for _ in items:
                raise LookupError

    with pytest.raises(LookupError):
        await consume()
    assert service.in_flight == 0


# Whatever happens

OUTCOMES: list[type[DatadogError] | None] = [None, NotFoundError, ServerError, InvalidArgumentError]
FATAL: list[type[DatadogError] | None] = [*OUTCOMES, UnauthorizedError, ForbiddenError, ClientClosedError]


@st.composite
def scripts(draw: st.DrawFn, outcomes: list[type[DatadogError] | None]) -> dict[str, Any]:
    """Draw IDs with duplicates, what each meets and when, and how they are asked for."""
    known = names(draw(st.integers(1, 12)))
    return {
        "ids": draw(st.lists(st.sampled_from(known), max_size=30)),
        "outcome": {name: draw(st.sampled_from(outcomes)) for name in known},
        "delay": {name: draw(st.integers(0, 6)) for name in known},
        "width": draw(st.integers(1, 8)),
        "source": draw(st.sampled_from([None, 0, 1, 3])),
        "pause": draw(st.integers(0, 3)),
    }


def play(script: dict[str, Any]) -> tuple[Any, Service]:
    """Make a script's source and service."""
    kinds = script["outcome"]

    def answer(token_id: str) -> DatadogError | None:
        kind = kinds[token_id]
        return None if kind is None else kind(token_id, token_id=token_id)

    source = script["ids"] if script["source"] is None else slowly(script["ids"], script["source"])
    return source, Service(answer, lambda token_id: script["delay"][token_id])


def check_items(script: dict[str, Any], items: Iterable[TokenResult]) -> None:
    """See that each result is what the script says for its ID, and that no two share an exception."""
    errors: set[int] = set()
    for item in items:
        kind = script["outcome"][item.token_id]
        if kind is None:
            assert item.unwrap().id == item.token_id
        else:
            assert type(item.error) is kind
            assert item.error.message == item.token_id
            assert id(item.error) not in errors
            errors.add(id(item.error))


@settings(max_examples=150, deadline=None)
@given(scripts(OUTCOMES))
def test_collect_whatever_happens(script: dict[str, Any]) -> None:
    """Over random outcomes, durations, widths and duplicates, each position gets its own ID's answer, asked once."""

    async def run() -> None:
        source, service = play(script)
        result = await gather(source, service, script["width"])
        assert [item.token_id for item in result] == script["ids"]
        check_items(script, result)
        assert Counter(service.asked) == Counter(set(script["ids"]))
        assert service.most_in_flight <= script["width"]
        assert others() == set()

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(scripts(OUTCOMES))
def test_stream_whatever_happens(script: dict[str, Any]) -> None:
    """The same holds for a stream, whatever the consumer's pace."""

    async def run() -> None:
        source, service = play(script)
        items: list[TokenResult] = []
        async with asyncio.timeout(HANG):
            async for item in stream(source, plain(service), script["width"]):
                items.append(item)
                await turns(script["pause"])
                assert len(service.asked) <= len(items) + script["width"]
        assert Counter(item.token_id for item in items) == Counter(script["ids"])
        check_items(script, items)
        assert service.most_in_flight <= script["width"]
        assert others() == set()

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(scripts(FATAL))
def test_n_in_n_out_even_when_it_stops(script: dict[str, Any]) -> None:
    """With refusals among the outcomes, there is still one result for each position, and never a wrong one."""

    async def run() -> None:
        source, service = play(script)
        result = await gather(source, service, script["width"])
        assert [item.token_id for item in result] == script["ids"]
        fatal = {UnauthorizedError, ForbiddenError, ClientClosedError} & set(script["outcome"].values())
        for item in result:
            kind = script["outcome"][item.token_id]
            assert item.ok or type(item.error) is kind or type(item.error) in fatal
            assert not item.ok or (kind is None and item.unwrap().id == item.token_id)
        errors = [id(item.error) for item in result if item.error]
        assert len(errors) == len(set(errors))
        assert others() == set()

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(scripts(FATAL), st.integers(0, 40))
def test_cancellation_whatever_happens(script: dict[str, Any], after: int) -> None:
    """Cancelled at a random moment of a random script, a bulk fetch ends and leaves no task."""

    async def run() -> None:
        source, service = play(script)
        task = asyncio.create_task(collect(source, plain(service), script["width"]))
        await turns(after)
        task.cancel()
        async with asyncio.timeout(HANG):
            await asyncio.gather(task, return_exceptions=True)
        await turns(3)
        assert service.in_flight == 0
        assert others() == set()

    asyncio.run(run())
