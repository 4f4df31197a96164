"""Which strategy a bulk fetch takes, and what it costs, over plain coroutine functions."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bulk import ProgressBar, slowly
from support.pages import CONCURRENCY, KINDS, Account, moods
from support.payloads import names
from support.waiting import others

from dd_sa_tokens import (
    AccessToken,
    DatadogError,
    InvalidArgumentError,
    NotFoundError,
    SourceError,
)
from dd_sa_tokens._bulk import TokenRequests, make_strategy, stream
from dd_sa_tokens._protocol.documents import Page
from dd_sa_tokens._validation import check_id

pytestmark = pytest.mark.usefixtures("nothing_left")

# Which way to go


@pytest.mark.parametrize("count", [0, 5, 1000])
async def test_get_never_looks_at_the_list(count: int) -> None:
    """The strategy "get" is exactly one GET for each ID."""
    account = Account(names(1000))

    assert await account.choose("get", names(count)) == account.get
    assert account.pages == []


@pytest.mark.parametrize("count", [1, 100])
async def test_list_reads_all_pages_first(count: int) -> None:
    """The strategy "list" reads the whole list, however few IDs there are, and asks only for those it did not hold."""
    account = Account(names(40))

    result = await account.collect("list", [*names(count), "absent"])

    assert sorted(account.pages) == list(range(8))
    assert sorted(account.gets) == sorted(["absent", *names(count)[40:]])
    assert len(result.tokens) == min(count, 40)


async def test_nothing_is_listed_where_nothing_is_asked_for() -> None:
    """An empty collection is no reason to read a list."""
    account = Account(names(40))

    assert len(await account.collect("list", [])) == 0
    assert account.pages == []


async def test_a_token_of_the_list_is_the_page_s_own() -> None:
    """What a page held is given as the page had it, without another request."""
    account = Account(names(5))

    fetch = await account.choose("list", ["t1"])

    assert await fetch("t1") == AccessToken(id="t1")
    assert account.gets == []
    with pytest.raises(NotFoundError):
        await fetch("absent")
    assert account.gets == ["absent"]


def twice(ids: list[str]) -> list[str]:
    return [*ids, *ids]


@pytest.mark.parametrize(
    ("ids", "looks"),
    [
        (names(19), False),
        (names(20), True),
        (twice(names(19)), False),
        (twice(names(20)), True),
        (["t0"] * 1000, False),
        ([*names(19), None, 5, ["t"], b"t"], False),
        ([*names(20), None], True),
        ([*names(19), "", "..", "a\n", "x" * 257], False),
        ([*names(19), "absent"], True),
    ],
    ids=lambda value: f"{len(value)} IDs" if isinstance(value, list) else str(value),
)
async def test_auto_looks_at_the_list_for_twenty_different_ids(ids: list[Any], looks: bool) -> None:
    """Below 20 different IDs that could be ones, a fetch costs no more than it would without a list."""
    account = Account(names(50), size=50)

    result = await account.collect("auto", ids)

    assert account.pages == ([0] if looks else [])
    assert len(result) == len(ids)


class Odd(Collection[str]):
    """A collection of the caller's own making."""

    def __init__(self, ids: list[str], *, broken: bool = False) -> None:
        self._ids = ids
        self._broken = broken

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, value: object) -> bool:
        return value in self._ids

    def __iter__(self) -> Iterator[str]:
        yield from self._ids
        if self._broken:
            raise LookupError


@pytest.mark.parametrize(
    "make",
    [list, tuple, set, frozenset, dict.fromkeys, lambda ids: dict.fromkeys(ids).keys(), deque, Odd],
    ids=["list", "tuple", "set", "frozenset", "dict", "keys", "deque", "own"],
)
async def test_auto_looks_at_the_list_for_any_sized_collection(make: Callable[[list[str]], Any]) -> None:
    """Anything that has a size and can be read twice is a collection."""
    account = Account(names(30), size=50)

    result = await account.collect("auto", make(names(30)))

    assert account.pages == [0]
    assert account.gets == []
    assert set(result.tokens) == set(names(30))


async def test_auto_reads_the_list_for_a_progress_bar() -> None:
    """A source that is sized and sync is a collection, though it could be read by an async loop, too."""
    account = Account(names(30), size=50)

    result = await account.collect("auto", ProgressBar(names(30)))

    assert (account.pages, account.gets) == ([0], [])
    assert [item.token_id for item in result] == names(30)


@pytest.mark.parametrize("sized", [True, False])
async def test_a_progress_bar_around_an_async_iterable(sized: bool) -> None:
    """A source that gives nothing to a sync loop is read by an async one, though it has a length, or its class has."""
    account = Account(names(30), size=50)

    result = await account.collect("auto", ProgressBar(names(30), sized=sized, sync=False))

    assert (account.pages, account.gets) == ([], names(30))
    assert [item.token_id for item in result] == names(30)


class Unsized:
    """An iterable without a size."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)


@pytest.mark.parametrize("make", [iter, lambda ids: (i for i in ids), slowly, Unsized, lambda ids: map(str, ids)])
async def test_auto_fetches_what_has_no_size_one_by_one(make: Callable[[list[str]], Any]) -> None:
    """A generator, which could be read only once, is not looked into: nothing of it is lost, and no page is read."""
    account = Account(names(30), size=50)

    result = await account.collect("auto", make(names(30)))

    assert account.pages == []
    assert [item.token_id for item in result] == names(30)


@pytest.mark.parametrize("make", [iter, slowly, Unsized])
async def test_list_takes_any_iterable(make: Callable[[list[str]], Any]) -> None:
    """The strategy "list" does not need to know the IDs beforehand, nor does it take any before the list is read."""
    account = Account(names(30), size=50)

    result = await account.collect("list", make([*names(30), "absent"]))

    assert account.pages == [0]
    assert account.gets == ["absent"]
    assert len(result.tokens) == 30


async def test_a_collection_that_breaks_is_left_to_the_fetch() -> None:
    """What a collection raises while it is looked at is raised as it would be without a list, with what came before."""
    account = Account(names(30), size=50)

    with pytest.raises(SourceError) as caught:
        await account.collect("auto", Odd(names(10), broken=True))

    assert isinstance(caught.value.__cause__, LookupError)
    assert list(caught.value.partial.tokens) == names(10)
    assert account.pages == []


class NoLength(Sequence[str]):
    """A sequence whose length raises."""

    def __init__(self, ids: list[str], *, broken: bool = False) -> None:
        self._ids = ids
        self._broken = broken

    def __len__(self) -> int:
        raise LookupError

    def __getitem__(self, place: Any) -> Any:
        if self._broken:
            raise OSError
        return self._ids[place]


@pytest.mark.parametrize(("strategy", "pages"), [("get", []), ("auto", []), ("list", [0])])
async def test_a_length_that_raises_is_not_needed(strategy: str, pages: list[int]) -> None:
    """Such a sequence is fetched as an iterable without a length. If it cannot be read either, that is its error."""
    account = Account(names(30), size=50)

    result = await account.collect(strategy, NoLength(names(30)))

    assert [item.token_id for item in result] == names(30)
    assert account.pages == pages
    with pytest.raises(SourceError) as caught:
        await account.collect(strategy, NoLength(names(30), broken=True))
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_collection_that_breaks_late_is_left_to_the_fetch() -> None:
    """So is one that breaks only when it is looked at for what the first page did not hold."""
    account = Account(names(300))

    with pytest.raises(SourceError) as caught:
        await account.collect("auto", Odd(names(40), broken=True))

    assert list(caught.value.partial.tokens) == names(40)
    assert account.pages == [0]


@pytest.mark.parametrize(
    ("tokens", "asked", "pages", "gets"),
    [
        (20, 20, 1, 0),  # the first page holds all
        (30, 20, 1, 0),  # and all that is wanted, though there is a second page
        (40, 21, 1, 1),  # one is missing, and one page: the same by either way, so it is got
        (40, 22, 2, 0),
        (100, 24, 1, 4),  # four are missing, and four pages: got
        (100, 25, 5, 0),  # five are missing, and four pages: listed
        (2000, 20, 1, 0),
        (2000, 118, 1, 98),  # 99 pages more against 98 IDs
        (2000, 119, 1, 99),
        (2000, 120, 100, 0),
    ],
)
async def test_auto_goes_on_with_what_takes_fewer_requests(tokens: int, asked: int, pages: int, gets: int) -> None:
    """After the first page, the rest of the list is read only if more IDs are missing than there are pages left."""
    account = Account(names(tokens), size=20)

    result = await account.collect("auto", names(asked))

    assert (len(account.pages), len(account.gets)) == (pages, gets)
    assert len(result.tokens) == asked


async def test_auto_reads_one_page_of_an_empty_account() -> None:
    """Where there are no tokens, the first page says so, and each ID has its own 404."""
    account = Account([])

    result = await account.collect("auto", names(25))

    assert (len(account.pages), len(account.gets)) == (1, 25)
    assert {type(error) for error in result.errors.values()} == {NotFoundError}


async def test_auto_does_not_read_a_list_without_a_total() -> None:
    """Where the first page does not say how many there are, what it held is used, and the rest got."""
    account = Account(names(100), size=20, total=lambda *_: None)

    result = await account.collect("auto", names(90))

    assert (account.pages, len(account.gets)) == ([0], 70)
    assert len(result.tokens) == 90


@pytest.mark.parametrize(("total", "pages", "gets"), [(40, 2, 60), (41, 6, 0), (0, 6, 0)])
async def test_a_total_that_is_too_small_costs_only_requests(total: int, pages: int, gets: int) -> None:
    """Tokens that the list did not own up to are got one by one, or listed if the total is proved wrong: by more tokens
    than it says.
    """
    account = Account(names(100), size=20, total=lambda *_: total)

    result = await account.collect("list", names(100))

    assert (len(account.pages), len(account.gets)) == (pages, gets)
    assert len(result.tokens) == 100


async def test_auto_bounds_the_pages_that_it_reads() -> None:
    """A list that grows with each page is read as far as the first total says, and one page further."""
    account = Account(names(100_000), total=lambda number, _: 15 + 5 * number)

    result = await account.collect("auto", [*names(30), *names(20, 50_000)])

    assert sorted(account.pages) == [0, 1, 2, 3]
    assert len(account.gets) == 30
    assert len(result.tokens) == 50


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["list", "auto"])
@pytest.mark.parametrize("failing", [0, 1, 3])
async def test_a_list_that_is_refused_costs_only_requests(
    caplog: pytest.LogCaptureFixture, strategy: str, kind: type[DatadogError], failing: int
) -> None:
    """When a page fails with any error, the pages that came are used, the rest is fetched, and the log says why."""
    caplog.set_level("INFO", "dd_sa_tokens")
    account = Account(names(40), errors={failing: kind}, delay=lambda number: 9 - number)

    result = await account.collect(strategy, names(40))

    # A page after the one that failed may have come before it.
    assert set(names(40)[failing * 5 :][:5]) <= set(account.gets) <= set(names(40)[failing * 5 :])
    assert len(result.tokens) == 40
    (record,) = caplog.records
    assert (record.levelname, f"page {failing}" in record.getMessage()) == ("INFO", True)


async def test_what_is_no_error_of_ours_is_not_swallowed() -> None:
    """A bug in the package is raised, not hidden by a change of strategy."""

    async def read(_number: int) -> Page:
        raise ZeroDivisionError

    strategy = make_strategy("list", TokenRequests(Account([]).get, read, partial(read, 0), CONCURRENCY), ["t1"])
    with pytest.raises(ZeroDivisionError):
        await strategy.prepare()


@pytest.mark.parametrize("strategy", ["list", "auto"])
async def test_tokens_that_move_meanwhile_are_found(strategy: str) -> None:
    """A token that slips across a border between two pages is got by itself."""
    account = Account(names(60))

    def revoke(number: int) -> None:
        if number == 1 and "t2" in account.ids:
            account.ids.remove("t2")

    account.before = revoke
    result = await account.collect(strategy, names(60), 1)

    assert len(result.tokens) == 60
    assert account.gets == ["t5"]


# Random scripts

WRONG: list[Any] = ["", ".", "..", "a\nb", "x" * 257, None, 5, b"t1"]
ids_of = st.lists(
    st.one_of(
        st.integers(0, 70).map(lambda number: f"t{number}"),
        st.integers(0, 30).map(lambda number: f"absent{number}"),
        st.sampled_from(WRONG),
    ),
    max_size=60,
)


@st.composite
def wholes(draw: st.DrawFn) -> list[Any]:
    """Draw IDs, often a whole account's worth of them."""
    whole = names(draw(st.integers(0, 80))) if draw(st.booleans()) else []
    return draw(st.permutations([*whole, *draw(ids_of)])) if len(whole) < 15 else [*whole, *draw(ids_of)]


def summary(result: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return what can be compared of results: IDs, tokens, and the kinds of errors."""
    return [(item.token_id, item.token if item.ok else type(item.error)) for item in result]


def needed(ids: Iterable[Any]) -> set[str]:
    """Return the IDs for which a GET would be sent."""
    found = set()
    for token_id in ids:
        try:
            found.add(check_id("token_id", token_id, "get_token"))
        except InvalidArgumentError:
            continue
    return found


@settings(max_examples=100, deadline=None)
@given(wholes(), st.integers(0, 80), st.integers(1, 12), st.integers(1, 9))
def test_auto_is_never_much_dearer(ids: list[Any], tokens: int, size: int, concurrency: int) -> None:
    """The three strategies give the same, and "auto" takes hardly more requests than the better of the others.

    Only IDs that are absent, which no page can tell beforehand, can make it pay for the list and for them.
    """

    async def run() -> None:
        results, requests = {}, {}
        for strategy in ("get", "list", "auto"):
            account = Account(names(tokens), size=size)
            results[strategy] = summary(await account.collect(strategy, ids, concurrency))
            requests[strategy] = account.requests
        assert results["get"] == results["list"] == results["auto"]
        wanted = needed(ids)
        absent = len(wanted - set(names(tokens)))
        pages = max(1, math.ceil(tokens / size))
        assert requests["get"] == len(wanted)
        assert requests["list"] == (pages + absent if ids else 0)
        if len(wanted) < 20:
            assert requests["auto"] == len(wanted)
        else:
            assert requests["auto"] <= min(pages + absent, len(wanted) + max(1, absent))

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(wholes(), moods(), st.integers(1, 9))
def test_the_strategies_give_the_same_for_any_list(
    ids: list[Any], make: Callable[[], Account], concurrency: int
) -> None:
    """Over pages that fail, overlap, move and lie, "get", "list" and "auto" give the same, in bulk and streamed."""

    async def run() -> None:
        expected = summary(await make().collect("get", ids, concurrency))
        for strategy in ("list", "auto"):
            account = make()
            result = await account.collect(strategy, ids, concurrency)
            assert summary(result) == expected
            assert account.most_in_flight <= concurrency
            assert len(account.gets) == len(set(account.gets))
            account = make()
            streamed = [item async for item in stream(ids, account.strategy(strategy, concurrency), concurrency)]
            assert sorted(summary(streamed), key=repr) == sorted(expected, key=repr)
        assert others() == set()

    asyncio.run(run())
