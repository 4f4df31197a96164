"""Bulk fetches over plain coroutine functions: no sockets, and time counted in turns of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bulk import CONCURRENCY, Service, drain, fail, gather, plain, slowly
from support.payloads import names
from support.waiting import HANG, others, turns

from dd_sa_tokens import (
    AccessToken,
    ClientClosedError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    ServerError,
    TokenResult,
    UnauthorizedError,
)
from dd_sa_tokens._bulk import check_source, collect, stream

# N in, N out


async def test_every_position_gets_its_result_in_input_order(source: Any) -> None:
    """N IDs give N results in the order of the input, however the answers overtake one another."""
    token_ids = names(30)
    service = Service(delay=lambda token_id: hash(token_id) % 7)

    result = await gather(source(token_ids), service)

    assert [item.token_id for item in result] == token_ids
    assert [item.unwrap().id for item in result] == token_ids


async def test_a_stream_gives_every_position_one_result(source: Any) -> None:
    """A stream gives one result for each position, in any order."""
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


async def test_a_stream_shares_a_request_among_duplicates_in_flight() -> None:
    """Duplicates that are in flight together share one request; one that comes later is asked for again."""
    service = Service(delay=5)

    results, _ = await drain(["a", "a", "a", "b"], service)
    again, _ = await drain(["a", "b", "c", "a"], service, concurrency=1)

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
        if events.count("asked") % CONCURRENCY == 0:
            rounds.append(this_round.get_loop().create_future())
            this_round.get_loop().call_soon(this_round.set_result, None)
        await this_round
        events.append("answered")
        return AccessToken(id=token_id)

    for give_all in (gather, drain):
        events.clear()
        await give_all(source(names(3 * CONCURRENCY)), fetch)
        assert events == [*["asked"] * CONCURRENCY, *["answered"] * CONCURRENCY] * 3


async def test_each_failing_position_has_its_own_exception(source: Any) -> None:
    """No two results share an exception instance, duplicates included, so that raising one changes no other."""
    service = Service(fail(a=NotFoundError, b=NotFoundError), delay=5)
    token_ids = ["a", "a", "b", "ok", "a", "b"]

    result = await gather(source(token_ids), service)
    streamed, _ = await drain(source(token_ids), service, concurrency=10)

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
    assert item.error.message == "token_id must be a str or a uuid.UUID, not int"
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


@pytest.mark.parametrize("wrong", ["one-id", b"one-id", bytearray(b"id"), memoryview(b"id"), 5, None, object()])
def test_what_is_no_collection_is_refused(wrong: Any) -> None:
    """A single string, bytes or a thing that cannot be iterated over is refused, and the text says what was given."""
    with pytest.raises(InvalidArgumentError, match=f"token_ids must be an iterable.*{type(wrong).__name__}"):
        check_source(wrong, operation="get_tokens")


@pytest.mark.parametrize(
    "right", [[], (), {}, set(), iter([]), {}.keys(), slowly([])], ids=lambda right: type(right).__name__
)
def test_any_collection_is_accepted(right: Any) -> None:
    """Lists, sets, views, iterators and async generators are all collections of IDs."""
    check_source(right)


# Random scripts

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
        "concurrency": draw(st.integers(1, 8)),
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
def test_collect_under_random_scripts(script: dict[str, Any]) -> None:
    """Over random outcomes, durations, widths and duplicates, each position gets its own ID's answer, asked once."""

    async def run() -> None:
        source, service = play(script)
        result = await gather(source, service, script["concurrency"])
        assert [item.token_id for item in result] == script["ids"]
        check_items(script, result)
        assert Counter(service.asked) == Counter(set(script["ids"]))
        assert service.most_in_flight <= script["concurrency"]
        assert others() == set()

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(scripts(OUTCOMES))
def test_stream_under_random_scripts(script: dict[str, Any]) -> None:
    """The same holds for a stream, at any pace of the consumer."""

    async def run() -> None:
        source, service = play(script)
        items: list[TokenResult] = []
        async with asyncio.timeout(HANG):
            async for item in stream(source, plain(service), script["concurrency"]):
                items.append(item)
                await turns(script["pause"])
                assert len(service.asked) <= len(items) + script["concurrency"]
        assert Counter(item.token_id for item in items) == Counter(script["ids"])
        check_items(script, items)
        assert service.most_in_flight <= script["concurrency"]
        assert others() == set()

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(scripts(FATAL))
def test_n_in_n_out_even_when_it_stops(script: dict[str, Any]) -> None:
    """With refusals among the outcomes, there is still one result for each position, and never a wrong one."""

    async def run() -> None:
        source, service = play(script)
        result = await gather(source, service, script["concurrency"])
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
def test_cancellation_under_random_scripts(script: dict[str, Any], after: int) -> None:
    """Cancelled at a random moment of a random script, a bulk fetch ends and leaves no task."""

    async def run() -> None:
        source, service = play(script)
        task = asyncio.create_task(collect(source, plain(service), script["concurrency"]))
        await turns(after)
        task.cancel()
        async with asyncio.timeout(HANG):
            await asyncio.gather(task, return_exceptions=True)
        await turns(3)
        assert service.in_flight == 0
        assert others() == set()

    asyncio.run(run())
