"""Sources of IDs and fetches that break or cancel themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.bulk import CONCURRENCY, Service, breaking, breaking_slowly, drain, fail, gather, plain
from support.payloads import names
from support.waiting import HANG, turns

from dd_sa_tokens import (
    AccessToken,
    ConfigurationError,
    DatadogError,
    NotFoundError,
    SourceError,
)
from dd_sa_tokens._bulk import collect

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


class Unreadable:
    """A source that raises before its first item."""

    def __iter__(self) -> Any:
        raise OSError


class UnreadableSlowly:
    """An async one."""

    def __aiter__(self) -> Any:
        raise OSError


@pytest.mark.parametrize("source", [Unreadable(), UnreadableSlowly()], ids=["sync", "async"])
async def test_a_source_that_cannot_be_begun(source: Any) -> None:
    """An error of the source before its first item is told like any later one."""
    with pytest.raises(SourceError, match="OSError after 0 IDs") as caught:
        await gather(source, Service())

    assert list(caught.value.partial) == []
    assert isinstance(caught.value.__cause__, OSError)


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
            await collect(["a", "b"], plain(fetch), CONCURRENCY)
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


async def test_an_error_of_the_fetch_itself_does_not_hang_its_duplicates() -> None:
    """Duplicates that wait for a shared request end with it, even when it breaks in an unforeseen way."""

    async def fetch(token_id: str) -> AccessToken:
        await turns(5)
        raise ZeroDivisionError

    _, raised = await drain(["a", "a", "a"], fetch)

    assert isinstance(raised, ZeroDivisionError)


@pytest.mark.parametrize("token_ids", [["a", "b"], ["a", "a", "a"]], ids=["different", "duplicates"])
@pytest.mark.parametrize("to_the_end", [True, False], ids=["collect", "stream"])
async def test_a_fetch_that_cancels_itself_is_not_lost(token_ids: list[str], to_the_end: bool) -> None:
    """A `CancelledError` that no caller caused (aiohttp raises some) neither hangs nor drops a position."""

    async def fetch(token_id: str) -> AccessToken:
        await turns(5)
        if token_id == "a":
            raise asyncio.CancelledError
        return AccessToken(id=token_id)

    with pytest.raises(asyncio.CancelledError):
        await (gather if to_the_end else drain)(token_ids, fetch)
