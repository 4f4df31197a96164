"""The pages of a list over plain coroutine functions: no sockets, and time counted in turns of the event loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dd_sa_tokens import (
    AccessToken,
    BadRequestError,
    BulkResult,
    ClientClosedError,
    ConfigurationError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    SourceError,
    TransportError,
    UnauthorizedError,
)
from dd_sa_tokens._arguments import check_id
from dd_sa_tokens._bulk import collect, stream
from dd_sa_tokens._codec import Page
from dd_sa_tokens._listing import choose, list_all, read_pages

WIDTH = 4
SIZE = 5
HANG = 2.0  # seconds, after which something that should end is taken for hung

KINDS: list[type[DatadogError]] = [
    BadRequestError,
    UnauthorizedError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    ServerError,
    TransportError,
    RequestTimeoutError,
    InvalidResponseError,
    ConfigurationError,
    ClientClosedError,
]


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    """Give the tasks beside this one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """See that no task is left, and that the loop has nothing to complain about, such as an exception nobody saw."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    await turns(3)
    assert others() == set()
    assert complaints == []


def names(count: int, first: int = 0) -> list[str]:
    return [f"t{number}" for number in range(first, first + count)]


def page(ids: Iterable[str], total: int | None) -> Page:
    return Page(tuple(AccessToken(id=token_id) for token_id in ids), total)


@attrs.define(eq=False)
class Account:
    """A service account that serves pages and tokens, and keeps the books.

    Attributes:
        ids: Its tokens, as they are now.
        size: Tokens on a page.
        delay: Turns of the loop that a page takes, for all or by number.
        total: What the pages say, by their number and what is true.
        errors: What pages fail with, by number.
        before: Called with a page's number before it is answered.
    """

    ids: list[str]
    size: int = SIZE
    delay: int | Callable[[int], int] = 1
    total: Callable[[int, int], int | None] = lambda _number, true: true
    errors: dict[int, type[DatadogError]] = attrs.field(factory=dict)
    before: Callable[[int], None] = lambda _number: None
    pages: list[int] = attrs.field(factory=list)
    gets: list[str] = attrs.field(factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def requests(self) -> int:
        """How many it has received."""
        return len(self.pages) + len(self.gets)

    async def read(self, number: int) -> Page:
        """Serve a page."""
        self.pages.append(number)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await turns(self.delay if isinstance(self.delay, int) else self.delay(number))
        finally:
            self.in_flight -= 1
        self.before(number)
        if number in self.errors:
            raise self.errors[number](f"page {number}")
        return page(self.ids[number * self.size : (number + 1) * self.size], self.total(number, len(self.ids)))

    async def get(self, token_id: Any) -> AccessToken:
        """Serve a token."""
        check_id("token_id", token_id, "get_token")
        self.gets.append(token_id)
        await turns(1)
        if token_id not in self.ids:
            raise NotFoundError(token_id=token_id)
        return AccessToken(id=token_id)

    def choose(self, strategy: Any, token_ids: Any, width: int = WIDTH) -> Any:
        return choose(strategy, token_ids, self.get, self.read, width)

    async def collect(self, strategy: Any, token_ids: Any, width: int = WIDTH) -> BulkResult:
        async with asyncio.timeout(HANG):
            return await collect(token_ids, partial(self.choose, strategy, token_ids, width), width)


async def read_all(account: Account, width: int = WIDTH) -> list[list[str]]:
    async with asyncio.timeout(HANG):
        return [[token.id for token in page.tokens] async for page in read_pages(account.read, width)]


async def listed(account: Account, width: int = WIDTH) -> list[str]:
    async with asyncio.timeout(HANG):
        return [token.id async for token in list_all(account.read, width)]


async def up_to_error(account: Account, width: int, kind: type[DatadogError]) -> tuple[list[str], str]:
    """List an account up to the error that it has to meet; return what came before, and the error's words."""
    found: list[str] = []

    async def consume() -> None:
        async with asyncio.timeout(HANG), aclosing(list_all(account.read, width)) as tokens:
            async for token in tokens:
                found.append(token.id)  # noqa: PERF401 - those before the error are wanted

    with pytest.raises(kind) as caught:
        await consume()
    return found, str(caught.value)


# Pages


@pytest.mark.parametrize("width", [1, 2, 5, 50])
async def test_pages_come_in_their_order(width: int) -> None:
    """However pages overtake one another, they are given in order, each once, and none that is not there is read."""
    account = Account(names(48), delay=lambda number: -number % 7)

    assert await read_all(account, width) == [account.ids[start : start + 5] for start in range(0, 48, 5)]
    assert sorted(account.pages) == list(range(10))


@pytest.mark.parametrize("count", [0, 1, 4, 5])
async def test_a_list_of_one_page_costs_one_request(count: int) -> None:
    """An account whose tokens fit on a page, or that has none, is read with one request."""
    account = Account(names(count))

    assert await read_all(account) == [names(count)]
    assert account.pages == [0]


async def test_a_full_last_page_is_the_last_one() -> None:
    """Two pages' worth of tokens are two requests: the total says that there is no third page."""
    account = Account(names(10))

    assert len(await read_all(account)) == 2
    assert account.pages == [0, 1]


async def test_nothing_is_read_ahead_of_the_first_page() -> None:
    """Until the consumer has done with the first page, no other one is asked for."""
    account = Account(names(500))

    async with aclosing(read_pages(account.read, 50)) as pages:
        await anext(pages)
        await turns(20)
        assert account.pages == [0]


@pytest.mark.parametrize("width", [1, 2, 3, 8, 30])
async def test_more_is_read_ahead_with_each_page(width: int) -> None:
    """Two pages are under way for the second one, then 4, 8, 16, and never more than the width."""
    account = Account(names(500), delay=lambda number: 1 + number % 3)
    started = []

    async with aclosing(read_pages(account.read, width)) as pages:
        for _ in range(7):
            await anext(pages)
            await turns(10)
            started.append(len(account.pages))

    # Those that were consumed before, and those that are under way, with the one that was waited for.
    assert started == [consumed + min(width, 2**consumed) for consumed in range(7)]
    assert account.most_in_flight <= width


async def test_a_slow_consumer_has_few_pages_read_ahead() -> None:
    """What was read and not consumed counts as under way: a consumer that stops has at most the width waiting."""
    account = Account(names(5000), delay=0)

    async with aclosing(read_pages(account.read, 6)) as pages:
        for _ in range(10):
            await anext(pages)
        await turns(100)
        assert len(account.pages) <= 10 + 6


async def test_without_a_total_pages_are_read_up_to_an_empty_one() -> None:
    """Where the answers do not say how many there are, one page after the other is read until one is empty."""
    account = Account(names(23), total=lambda *_: None)

    assert await read_all(account, 50) == [names(23)[start : start + 5] for start in range(0, 25, 5)] + [[]]
    assert account.pages == [0, 1, 2, 3, 4, 5]
    assert account.most_in_flight == 1


async def test_a_total_that_is_too_large_ends_at_an_empty_page() -> None:
    """A server that promises a million tokens and has twelve costs a few requests too many, and not 200,000."""
    account = Account(names(12), total=lambda *_: 1_000_000)

    assert [token for page in await read_all(account, 50) for token in page] == names(12)
    assert len(account.pages) <= 11


@pytest.mark.parametrize("total", [10**400, 2**64], ids=["10**400", "2**64"])
async def test_a_total_beyond_all_measure_is_no_riddle(total: int) -> None:
    """Nor does a total that no floating-point number can hold end in anything but the tokens."""
    account = Account(names(12), total=lambda *_: total)

    assert await listed(account) == names(12)


async def test_a_total_that_is_too_small_is_believed() -> None:
    """No more pages are read than the total makes."""
    account = Account(names(30), total=lambda *_: 11)

    assert len(await read_all(account)) == 3
    assert account.pages == [0, 1, 2]


async def test_a_server_that_puts_fewer_tokens_on_a_page_than_it_was_asked_for() -> None:
    """The number of pages follows from the size of the first one, not from the size that was asked for."""
    account = Account(names(250), size=50)

    assert await listed(account, 8) == names(250)
    assert sorted(account.pages) == [0, 1, 2, 3, 4]


async def test_a_list_that_grows_is_read_to_its_new_end() -> None:
    """A page whose total is larger than the first one's makes for more pages."""
    account = Account(names(10))

    def grow(number: int) -> None:
        if number == 1:
            account.ids += names(13, 10)

    account.before = grow
    assert [token for page in await read_all(account) for token in page] == names(23)
    assert account.pages[:5] == [0, 1, 2, 3, 4]


async def test_a_list_that_shrinks_is_not_read_beyond_its_new_end() -> None:
    """Pages that a smaller total no longer makes are not asked for."""
    account = Account(names(500))

    def shrink(number: int) -> None:
        if number == 1:
            del account.ids[20:]

    account.before = shrink
    assert [token for page in await read_all(account, 2) for token in page] == names(20)
    assert max(account.pages) == 3


@pytest.mark.parametrize("total", [None, 12, 1_000_000])
async def test_a_server_that_does_not_count_pages_is_no_endless_list(total: int | None) -> None:
    """A server that gives the first page whatever the number is not asked for ever: its tokens come once."""
    numbers = []

    async def read(number: int) -> Page:
        numbers.append(number)
        await turns(1)
        return page(names(5), total)

    async with asyncio.timeout(HANG):
        assert [token.id async for token in list_all(read, WIDTH)] == names(5)
    assert len(numbers) <= 2 * (1 + 2 + 4)  # it shows with the third page, when more are under way


async def test_a_page_of_new_tokens_does_not_end_a_list() -> None:
    """As many new tokens as fit a page put the first page's tokens on the second one: the list goes on all the same."""
    account = Account(names(60))

    def grow(number: int) -> None:
        if number == 1:  # in both passes
            account.ids[:0] = [f"new{len(account.ids)}-{place}" for place in range(5)]

    account.before = grow
    assert set(names(60)) <= set(await listed(account, 1))


# Tokens


@pytest.mark.parametrize("width", [1, 4, 50])
async def test_each_token_once_in_one_pass(width: int) -> None:
    """A list that stays as it is gives each token once, in order, and each page is read once."""
    account = Account(names(101), delay=lambda number: -number % 5)

    assert await listed(account, width) == names(101)
    assert sorted(account.pages) == list(range(21))


async def test_no_token_twice_though_pages_overlap() -> None:
    """A token that was made at the front pushes another across the border: that one comes once, the new one last."""
    account = Account(names(20))

    def push(number: int) -> None:
        if number == 1 and "new" not in account.ids:
            account.ids.insert(0, "new")

    account.before = push
    assert await listed(account) == [*names(20), "new"]


async def test_a_token_that_slips_across_a_border_is_not_missed() -> None:
    """When a token of the first page is revoked meanwhile, another slips onto that page, and comes nevertheless."""
    account = Account(names(20))

    def revoke(number: int) -> None:
        if number == 1 and "t2" in account.ids:
            account.ids.remove("t2")

    account.before = revoke
    found = await listed(account)
    assert found == [token_id for token_id in names(20) if token_id != "t5"] + ["t5"]


async def test_a_token_replaced_by_another_is_seen_by_the_one_that_comes_twice() -> None:
    """With one revoked at the end and one made at the front the total stays, and the doublet tells that all moved."""
    account = Account(names(20))

    def replace(number: int) -> None:
        if number == 1 and "new" not in account.ids:
            account.ids[:] = ["new", *account.ids[:-1]]

    account.before = replace
    assert set(await listed(account)) >= {*names(19), "new"}


@pytest.mark.parametrize("moves", [lambda ids: ids.insert(0, f"n{len(ids)}"), lambda ids: ids.pop(0)])
async def test_two_passes_are_the_most(moves: Callable[[list[str]], Any]) -> None:
    """An account that changes with every page is read twice, and not for ever."""
    account = Account(names(100))
    account.before = lambda _number: moves(account.ids)

    found = await listed(account)

    assert len(found) == len(set(found))
    assert account.pages.count(0) == 2


async def test_the_second_pass_may_move_too() -> None:
    """A total that is another one in each pass, but stays during each, asks for no third one."""
    account = Account(names(10))
    reads = itertools.count()
    account.before = lambda _number: account.ids.append(f"n{next(reads)}")

    await listed(account)

    assert account.pages.count(0) == 2


async def test_a_token_made_twice_on_one_page_comes_once() -> None:
    """A server that names a token twice on a page does not make two of it."""
    account = Account(["a", "b", "a", "c"])

    assert await listed(account) == ["a", "b", "c"]


# Failures, and leaving early


@pytest.mark.parametrize("failing", [[0], [1], [2], [3, 4, 5], [1, 2, 3, 4, 5]])
@pytest.mark.parametrize("width", [1, 8])
async def test_a_page_that_fails_ends_the_list(failing: list[int], width: int) -> None:
    """The tokens of the pages before come first, then that page's own error; what was read ahead is dropped."""
    account = Account(names(60), errors=dict.fromkeys(failing, ServerError), delay=lambda number: 9 - number)

    assert await up_to_error(account, width, ServerError) == (names(failing[0] * 5), f"page {failing[0]}")
    assert account.in_flight == 0
    assert others() == set()


async def test_pages_read_ahead_that_failed_unseen_are_no_complaint() -> None:
    """Whoever leaves before it comes to a page that failed meanwhile hears nothing of it."""
    account = Account(names(60), errors=dict.fromkeys(range(2, 12), ServerError), delay=0)

    async with aclosing(list_all(account.read, 8)) as tokens:
        async for token in tokens:
            if token.id == "t7":
                await turns(20)
                break

    assert others() == set()


async def test_an_error_in_the_second_pass_comes_after_all_tokens_of_the_first() -> None:
    """If the list cannot be read once more, what may be missing is not kept quiet about."""
    account = Account(names(20))

    def grow(number: int) -> None:
        if number == 3:
            account.ids.append("new")
            account.errors = {0: ForbiddenError}

    account.before = grow
    assert (await up_to_error(account, 1, ForbiddenError))[0] == [*names(20), "new"]


@pytest.mark.parametrize("consumed", [0, 1, 5, 6, 11, 30])
@pytest.mark.parametrize("delay", [0, 1, 10_000])
async def test_a_list_that_is_closed_early_leaves_nothing(consumed: int, delay: int) -> None:
    """Once `aclose()` has returned, no page is under way any more."""
    account = Account(names(200), delay=lambda number: delay if number > consumed // 5 else 0)

    async with asyncio.timeout(HANG):
        tokens = list_all(account.read, 8)
        for _ in range(consumed):
            await anext(tokens)
        await turns(3)
        await tokens.aclose()

    assert account.in_flight == 0
    assert others() == set()


async def test_a_list_that_is_dropped_leaves_nothing() -> None:
    """A list left with a plain `break` and dropped is cleaned up by the loop within a few turns."""
    account = Account(names(200), delay=lambda number: 10_000 if number > 1 else 0)

    async for token in list_all(account.read, 8):
        if token.id == "t7":
            break
    gc.collect()
    await turns(5)

    assert account.in_flight == 0
    assert others() == set()


@pytest.mark.parametrize("errors", [{}, {3: ServerError}, dict.fromkeys(range(2, 20), ServerError)], ids=len)
@pytest.mark.parametrize("way", ["list_all", "choose"])
async def test_cancelling_at_any_moment_leaves_nothing(way: str, errors: dict[int, type[DatadogError]]) -> None:
    """Cancelled after any number of turns, reading a list ends cancelled, at once, and leaves no page under way."""
    for after in itertools.count():
        account = Account(names(60), errors=errors, delay=lambda number: 1 + number % 3)

        async def run(account: Account = account) -> None:
            if way == "choose":
                await account.choose("list", ["t1"])
            else:
                async with aclosing(list_all(account.read, WIDTH)) as tokens:
                    async for _ in tokens:
                        await turns(1)

        task = asyncio.create_task(run())
        await turns(after)
        finished = task.done()
        task.cancel()
        async with asyncio.timeout(HANG):
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
        await turns(2)
        assert account.in_flight == 0
        assert others() == set(), f"cancelled after {after} turns"
        if finished:
            break
        assert isinstance(outcome, asyncio.CancelledError)
    assert after > 5


async def test_an_exception_of_the_consumer_comes_through() -> None:
    """What the consumer raises amid a list is what it gets."""
    account = Account(names(60), delay=3)

    async def consume() -> None:
        async with aclosing(list_all(account.read, WIDTH)) as tokens:
            async for token in tokens:
                if token.id == "t5":
                    raise LookupError

    with pytest.raises(LookupError):
        await consume()
    assert others() == set()


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
    """Whatever can be read twice and has a size is a collection."""
    account = Account(names(30), size=50)

    result = await account.collect("auto", make(names(30)))

    assert account.pages == [0]
    assert account.gets == []
    assert set(result.tokens) == set(names(30))


async def slowly(ids: list[str]) -> AsyncIterator[str]:
    for token_id in ids:
        yield token_id


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


async def test_a_total_that_is_too_small_costs_only_requests() -> None:
    """Tokens that the list did not own up to are got one by one."""
    account = Account(names(100), size=20, total=lambda *_: 41)

    result = await account.collect("list", names(100))

    assert (len(account.pages), len(account.gets)) == (3, 40)
    assert len(result.tokens) == 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["list", "auto"])
@pytest.mark.parametrize("failing", [0, 1, 3])
async def test_a_list_that_is_refused_costs_only_requests(
    caplog: pytest.LogCaptureFixture, strategy: str, kind: type[DatadogError], failing: int
) -> None:
    """Whatever a page fails with, the pages before it keep their value, the rest is got, and the log says why."""
    caplog.set_level("INFO", "dd_sa_tokens")
    account = Account(names(40), errors={failing: kind}, delay=lambda number: 9 - number)

    result = await account.collect(strategy, names(40))

    assert sorted(account.gets) == sorted(names(40)[failing * 5 :])
    assert len(result.tokens) == 40
    (record,) = caplog.records
    assert (record.levelname, f"page {failing}" in record.getMessage()) == ("INFO", True)


async def test_what_is_no_error_of_ours_is_not_swallowed() -> None:
    """A mistake in the house itself is no reason to go another way quietly."""

    async def read(_number: int) -> Page:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await choose("list", ["t1"], Account([]).get, read, WIDTH)


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


# Whatever happens

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
def test_auto_is_never_much_dearer(ids: list[Any], tokens: int, size: int, width: int) -> None:
    """The three strategies give the same, and "auto" takes hardly more requests than the better of the others.

    Only IDs that are absent, which no page can tell beforehand, can make it pay for the list and for them.
    """

    async def run() -> None:
        results, requests = {}, {}
        for strategy in ("get", "list", "auto"):
            account = Account(names(tokens), size=size)
            results[strategy] = summary(await account.collect(strategy, ids, width))
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


@st.composite
def moods(draw: st.DrawFn) -> Callable[[], Account]:
    """Draw a server whose pages fail, overlap, move, or lie about the total."""
    tokens, size = draw(st.integers(0, 80)), draw(st.integers(1, 12))
    errors = draw(st.dictionaries(st.integers(0, 12), st.sampled_from(KINDS), max_size=3))
    lies = draw(st.lists(st.sampled_from([0, 0, 0, 1, -1, 7, -30, 10**6, None]), min_size=1, max_size=5))
    shifts = draw(st.lists(st.integers(-3, 3), min_size=1, max_size=5))
    delays = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))

    def total(number: int, true: int) -> int | None:
        lie = lies[number % len(lies)]
        return None if lie is None else max(0, true + lie)

    def make() -> Account:
        return Shifting(
            names(tokens), size=size, errors=errors, total=total, delay=lambda number: delays[number % len(delays)]
        ).by(shifts)

    return make


class Shifting(Account):
    """An account whose pages begin a little before or after where they should."""

    def by(self, shifts: list[int]) -> Shifting:
        self.shifts = shifts
        return self

    async def read(self, number: int) -> Page:
        honest = await super().read(number)
        start = max(0, number * self.size + self.shifts[number % len(self.shifts)])
        return page(self.ids[start : start + self.size], honest.total)


@settings(max_examples=100, deadline=None)
@given(wholes(), moods(), st.integers(1, 9))
def test_the_strategies_give_the_same_whatever_the_list_does(
    ids: list[Any], make: Callable[[], Account], width: int
) -> None:
    """Over pages that fail, overlap, move and lie, "get", "list" and "auto" give the same, in bulk and streamed."""

    async def run() -> None:
        expected = summary(await make().collect("get", ids, width))
        for strategy in ("list", "auto"):
            account = make()
            result = await account.collect(strategy, ids, width)
            assert summary(result) == expected
            assert account.most_in_flight <= width
            assert len(account.gets) == len(set(account.gets))
            account = make()
            plan = partial(account.choose, strategy, ids, width)
            streamed = [item async for item in stream(ids, plan, width)]
            assert sorted(summary(streamed), key=repr) == sorted(expected, key=repr)
        assert others() == set()

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(moods(), st.integers(1, 9), st.integers(0, 60))
def test_a_list_whatever_happens(make: Callable[[], Account], width: int, leave: int) -> None:
    """Over such pages, a list gives no token twice, ends, and leaves nothing, also when it is left early."""

    async def run() -> None:
        account = make()
        found: list[str] = []
        async with asyncio.timeout(HANG), aclosing(list_all(account.read, width)) as tokens:
            with suppress(*account.errors.values()):
                async for token in tokens:
                    found.append(token.id)
                    if len(found) == leave:
                        break
        assert len(found) == len(set(found))
        assert set(found) <= set(account.ids)
        assert account.most_in_flight <= width
        assert account.in_flight == 0
        assert others() == set()

    asyncio.run(run())
