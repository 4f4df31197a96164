"""What may be given as IDs: sources that can be read once, arrays without a truth value, UUIDs, and broken objects."""

from __future__ import annotations

import functools
import weakref
from collections import UserList, deque
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid5

import pytest
from support.bulk import Service, drain, gather
from support.lists import connected
from support.payloads import names, resource
from support.replies import reply
from support.servers import RawServer

from dd_sa_tokens import InvalidArgumentError, NotFoundError, SourceError, TokensClient
from dd_sa_tokens.testing import FakeDatadog

COUNT = 60
UUIDS = [str(uuid5(UUID(int=0), str(number))) for number in range(30)]

Connect = Callable[..., TokensClient]


class Once:
    """A source with a length that can be read once, as a progress bar or a database cursor is."""

    def __init__(self, ids: list[Any], told: int | None = None) -> None:
        self._left = iter(ids)
        self._told = len(ids) if told is None else told

    def __len__(self) -> int:
        return self._told

    def __iter__(self) -> Iterator[Any]:
        return self._left


class SearchedOnce(Once):
    """A progress bar is a `Collection`, too."""

    def __contains__(self, value: object) -> bool:
        return value in self._left


class Unsized(Once):
    """A progress bar of a generator, or a cursor that cannot count, has a `__len__` that raises."""

    def __len__(self) -> int:
        raise NotImplementedError


class Column:
    """A numpy array or a pandas column: it can be compared with anything, and has no truth value."""

    def __init__(self, ids: list[Any]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ids)

    def __eq__(self, other: object) -> Any:
        return Column([value == other for value in self._ids])

    def __bool__(self) -> bool:
        msg = "the truth value is ambiguous"
        raise ValueError(msg)

    __hash__ = None  # type: ignore[assignment] # as theirs


SOURCES: dict[str, Callable[[list[Any]], Any]] = {
    "progress bar": SearchedOnce,
    "cursor": Once,
    "cursor with no count": lambda ids: Once(ids, told=0),
    "cursor that counts too many": lambda ids: Once(ids, told=2**62),
    "progress bar of a generator": lambda ids: Unsized(list(ids)),
    "column": Column,
    "dict": dict.fromkeys,
    "values of a dict": lambda ids: dict(enumerate(ids)).values(),
    "deque": deque,
    "list of one's own": UserList,
}


@pytest.mark.parametrize("strategy", ["auto", "list", "get"])
@pytest.mark.parametrize("make", SOURCES.values(), ids=list(SOURCES))
async def test_each_position_of_any_source_has_its_result(make: Callable[[list[str]], Any], strategy: Any) -> None:
    """A source that has a length and can be read once, or has no truth value, loses no position with any strategy."""
    async with FakeDatadog(tokens=COUNT) as datadog, connected(datadog) as client:
        ids = list(datadog.token_ids)
        result = await client.get_tokens(datadog.service_account_id, make(ids), strategy=strategy)
        assert [item.unwrap().id for item in result] == ids
        assert datadog.requests == (COUNT if strategy == "get" else 1)


@pytest.mark.parametrize("strategy", ["auto", "list", "get"])
@pytest.mark.parametrize("make", SOURCES.values(), ids=list(SOURCES))
async def test_a_stream_of_any_source_is_complete(make: Callable[[list[str]], Any], strategy: Any) -> None:
    """The same holds for a stream. It reads what can be read once only once: `"auto"` then gets each ID by itself."""
    async with FakeDatadog(tokens=COUNT) as datadog, connected(datadog) as client:
        ids = list(datadog.token_ids)
        stream = client.stream_tokens(datadog.service_account_id, make(ids), strategy=strategy)
        assert sorted([item.unwrap().id async for item in stream]) == sorted(ids)


async def test_a_source_that_is_read_once_and_breaks_is_the_source_s_error() -> None:
    """What a cursor gave before it raised is fetched; the error carries it."""

    class Broken(Once):
        def __iter__(self) -> Iterator[str]:
            yield from self._left
            msg = "the cursor is closed"
            raise OSError(msg)

    async with FakeDatadog(tokens=30) as datadog, connected(datadog) as client:
        with pytest.raises(SourceError, match="OSError after 30 IDs") as caught:
            await client.get_tokens(datadog.service_account_id, Broken(list(datadog.token_ids)))
        assert [item.unwrap().id for item in caught.value.partial] == list(datadog.token_ids)
        assert datadog.requests == 1


# The same ID in another form


def _mixed(text: str) -> str:
    return "".join(letter.upper() if place % 2 else letter for place, letter in enumerate(text))


@pytest.mark.parametrize("write", [str.upper, _mixed, UUID], ids=["upper case", "mixed case", "UUID"])
@pytest.mark.parametrize("strategy", ["auto", "list"])
async def test_uuids_are_found_in_the_list_in_any_form(
    server: RawServer, connect: Connect, write: Callable[[str], Any], strategy: Any
) -> None:
    """30 IDs in upper case cost the one request of the list; each result has the text that was given."""
    page = {"data": [resource(token_id) for token_id in UUIDS], "meta": {"page": {"total_filtered_count": 30}}}
    server.script(otherwise=reply(200, page))
    given = [write(token_id) for token_id in UUIDS]
    result = await connect().get_tokens("a", given, strategy=strategy)
    assert [item.token_id for item in result] == [str(value) for value in given]
    assert [item.unwrap().id for item in result] == UUIDS
    assert len(server.requests) == 1


async def test_one_id_in_several_forms_is_fetched_once() -> None:
    """A UUID in lower case, in upper case and as an object costs one request, and each position has its own text."""
    text = UUIDS[0]
    service = Service(delay=5)
    given = [text, text.upper(), UUID(text), _mixed(text)]
    result = await gather(given, service)
    assert service.asked == [text]
    assert [item.token_id for item in result] == [text, text.upper(), text, _mixed(text)]
    assert all(item.ok for item in result)
    service = Service(delay=5)
    items, raised = await drain(given, service)
    assert raised is None
    assert service.asked == [text]
    assert sorted(item.token_id for item in items) == sorted([text, text.upper(), text, _mixed(text)])


async def test_one_failing_id_in_several_forms_names_each_form() -> None:
    """The error of each position names the text that was given there, and is an exception of its own."""
    text = UUIDS[0]
    service = Service(lambda token_id: NotFoundError("gone", token_id=token_id), delay=5)
    result = await gather([text, text.upper(), UUID(text)], service)
    assert len(service.asked) == 1
    errors = [item.error for item in result]
    assert [error.token_id for error in errors if error is not None] == [text, text.upper(), text]
    assert len({id(error) for error in errors}) == 3


@pytest.mark.parametrize("other", ["T1", "0" * 36, UUIDS[0].replace("-", "").upper(), "{" + UUIDS[0].upper() + "}"])
async def test_other_ids_are_compared_as_they_are(other: str) -> None:
    """What is not in the form 8-4-4-4-12 is another ID in another case."""
    service = Service()
    await gather([other, other.lower() + "x", other.swapcase()], service)
    assert len(service.asked) == len({other, other.lower() + "x", other.swapcase()})


# Objects that break


class NoRepr:
    def __repr__(self) -> str:
        raise self.error  # type: ignore[attr-defined] # given below


def _broken(error: Exception) -> NoRepr:
    value = NoRepr()
    value.error = error  # type: ignore[attr-defined] # see above
    return value


class ReprOfAnotherType:
    def __repr__(self) -> str:
        return 7  # type: ignore[return-value] # that is what is broken


class Lazy:
    """An object that stands for another one which cannot be loaded, as web frameworks have them."""

    @property
    def __class__(self) -> type:
        msg = "working outside of request context"
        raise RuntimeError(msg)


class BrokenUuid(UUID):
    def __str__(self) -> str:
        raise RuntimeError


class LoudText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


def _dead() -> Any:
    return weakref.proxy(NoRepr())


BROKEN: dict[str, Callable[[], Any]] = {
    "repr raises": lambda: _broken(ZeroDivisionError()),
    "repr is too deep": lambda: _broken(RecursionError()),
    "repr is no text": ReprOfAnotherType,
    "a dead weak reference": _dead,
    "a lazy object": Lazy,
    "a column in a column": lambda: Column(["x"]),
    "a list that holds itself": lambda: functools.reduce(lambda items, _: items.append(items) or items, [0], []),
    "bytes": lambda: b"t1",
    "None": lambda: None,
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=list(BROKEN))
async def test_a_position_that_cannot_be_shown_disturbs_no_other(make: Callable[[], Any]) -> None:
    """What is no ID, and cannot even be shown, is an error at its position, and the other IDs are fetched."""
    ids = [*names(25), make(), *names(3)]
    service = Service()
    result = await gather(ids, service)
    assert [item.ok for item in result] == [True] * 25 + [False] + [True] * 3
    assert isinstance(result[25].error, InvalidArgumentError)
    assert result[25].token_id in str(result[25].token_id)
    items, raised = await drain(ids, Service())
    assert raised is None
    assert len(items) == 29
    assert [type(item.error) for item in items if not item.ok] == [InvalidArgumentError]


@pytest.mark.parametrize("strategy", ["auto", "list", "get"])
async def test_a_position_that_cannot_be_shown_disturbs_no_strategy(strategy: Any) -> None:
    """The same holds for each strategy of the client."""
    async with FakeDatadog(tokens=25) as datadog, connected(datadog) as client:
        ids = [*datadog.token_ids, *(make() for make in BROKEN.values())]
        result = await client.get_tokens(datadog.service_account_id, ids, strategy=strategy)
    assert [item.ok for item in result] == [True] * 25 + [False] * len(BROKEN)


async def test_a_text_or_uuid_that_behaves_badly_is_still_an_id() -> None:
    """A subclass of `str` or `UUID` whose own methods raise is taken as the text that it holds."""
    result = await gather([LoudText("t1"), BrokenUuid(UUIDS[0])], Service())
    assert [item.unwrap().id for item in result] == ["t1", UUIDS[0]]
