"""The pages of a list over plain coroutine functions: no sockets, and time counted in turns of the event loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pages import CONCURRENCY, SIZE, Account, listed, moods, page, read_all
from support.payloads import names
from support.waiting import HANG, others, turns

from dd_sa_tokens import (
    DatadogError,
    ForbiddenError,
    ServerError,
)
from dd_sa_tokens._pagination import list_all, read_pages
from dd_sa_tokens._protocol.documents import Page

pytestmark = pytest.mark.usefixtures("nothing_left")


async def up_to_error(account: Account, concurrency: int, kind: type[DatadogError]) -> tuple[list[str], str]:
    """List an account up to the error that it has to meet; return what came before, and the error's words."""
    found: list[str] = []

    async def consume() -> None:
        async with asyncio.timeout(HANG), aclosing(list_all(account.read, concurrency, size=SIZE)) as tokens:
            async for token in tokens:
                found.append(token.id)  # noqa: PERF401 - those before the error are wanted

    with pytest.raises(kind) as caught:
        await consume()
    return found, str(caught.value)


# Pages


@pytest.mark.parametrize("concurrency", [1, 2, 5, 50])
async def test_pages_come_in_their_order(concurrency: int) -> None:
    """However pages overtake one another, they are given in order, each once, and none that is not there is read."""
    account = Account(names(48), delay=lambda number: -number % 7)

    assert await read_all(account, concurrency) == [account.ids[start : start + 5] for start in range(0, 48, 5)]
    assert sorted(account.pages) == list(range(10))


@pytest.mark.parametrize("count", [0, 1, 4])
async def test_a_list_of_one_page_costs_one_request(count: int) -> None:
    """An account whose tokens do not fill a page, or that has none, is read with one request."""
    account = Account(names(count))

    assert await read_all(account) == [names(count)]
    assert account.pages == [0]


@pytest.mark.parametrize(("trusted", "pages"), [(False, [0, 1, 2]), (True, [0, 1])])
async def test_a_full_last_page_is_the_last_one_for_who_trusts_the_total(trusted: bool, pages: list[int]) -> None:
    """Two full pages are followed by a third request, since totals may lie; a bulk fetch, which would notice a token
    that is missing, saves it.
    """
    account = Account(names(10))
    async with aclosing(read_pages(account.read, CONCURRENCY, size=SIZE, trust_total=trusted)) as read:
        found = [token.id async for page, _ in read for token in page.items]
    assert found == names(10)
    assert account.pages == pages


async def test_nothing_is_read_ahead_of_the_first_page() -> None:
    """Until the consumer has done with the first page, no other one is asked for."""
    account = Account(names(500))

    async with aclosing(read_pages(account.read, 50, size=SIZE)) as pages:
        await anext(pages)
        await turns(20)
        assert account.pages == [0]


@pytest.mark.parametrize("concurrency", [1, 2, 3, 8, 30])
async def test_more_is_read_ahead_with_each_page(concurrency: int) -> None:
    """Two pages are in flight for the second one, then 4, 8, 16, and never more than `concurrency`."""
    account = Account(names(500), delay=lambda number: 1 + number % 3)
    started = []

    async with aclosing(read_pages(account.read, concurrency, size=SIZE)) as pages:
        for _ in range(7):
            await anext(pages)
            await turns(10)
            started.append(len(account.pages))

    # Those that were consumed before, and those that are under way, with the one that was waited for.
    assert started == [consumed + min(concurrency, 2**consumed) for consumed in range(7)]
    assert account.most_in_flight <= concurrency


async def test_a_slow_consumer_has_few_pages_read_ahead() -> None:
    """Unread pages count as in flight: a consumer that stops has at most `concurrency` of them waiting."""
    account = Account(names(5000), delay=0)

    async with aclosing(read_pages(account.read, 6, size=SIZE)) as pages:
        for _ in range(10):
            await anext(pages)
        await turns(100)
        assert len(account.pages) <= 10 + 6


async def test_without_a_total_pages_are_read_up_to_an_empty_one() -> None:
    """Where the answers do not say how many there are, one page after the other is read until one is shorter than the
    first, or empty.
    """
    account = Account(names(23), total=lambda *_: None)

    assert await read_all(account, 50) == [names(23)[start : start + 5] for start in range(0, 25, 5)]
    assert account.pages == [0, 1, 2, 3, 4]
    assert account.most_in_flight == 1


async def test_a_total_that_is_too_large_ends_at_an_empty_page() -> None:
    """A server that promises a million tokens and has twelve costs a few requests too many, and not 200,000."""
    account = Account(names(12), total=lambda *_: 1_000_000)

    assert [token for page in await read_all(account, 50) for token in page] == names(12)
    assert len(account.pages) <= 11


@pytest.mark.parametrize("total", [10**400, 2**64], ids=["10**400", "2**64"])
async def test_a_huge_total_ends_at_an_empty_page(total: int) -> None:
    """Nor does a total that no floating-point number can hold end in anything but the tokens."""
    account = Account(names(12), total=lambda *_: total)

    assert await listed(account) == names(12)


@pytest.mark.parametrize("total", [0, 1, 5, 11, 29, None])
@pytest.mark.parametrize("count", [30, 33])
async def test_a_total_that_is_too_small_is_not_believed(total: int | None, count: int) -> None:
    """As long as pages are full, the list goes on, whatever its total says; at most one request is in vain."""
    account = Account(names(count), total=lambda *_: total)

    assert await listed(account) == names(count)
    assert sorted(account.pages) == list(range(7))


async def test_without_a_total_the_first_page_says_how_long_a_page_is() -> None:
    """A server that puts fewer tokens on a page than it was asked for, and has no total, is read to its end."""
    account = Account(names(23), total=lambda *_: None)

    assert await listed(account, size=100) == names(23)


async def test_a_server_that_puts_fewer_tokens_on_a_page_than_it_was_asked_for() -> None:
    """The number of pages follows from the size of the first one, not from the size that was asked for."""
    account = Account(names(250), size=50)

    assert await listed(account, 8, size=100) == names(250)
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
    """Of the pages that a smaller total no longer makes, one is asked for: it is empty."""
    account = Account(names(500))

    def shrink(number: int) -> None:
        if number == 1:
            del account.ids[20:]

    account.before = shrink
    assert [token for page in await read_all(account, 2) for token in page] == names(20)
    assert max(account.pages) == 4


@pytest.mark.parametrize("total", [None, 12, 1_000_000])
async def test_a_server_that_does_not_count_pages_is_no_endless_list(total: int | None) -> None:
    """A server that ignores the page number is not asked for ever: its tokens come once."""
    numbers = []

    async def read(number: int) -> Page:
        numbers.append(number)
        await turns(1)
        return page(names(5), total)

    async with asyncio.timeout(HANG):
        assert [token.id async for token in list_all(read, CONCURRENCY, size=SIZE)] == names(5)
    assert len(numbers) <= 2 * (1 + 2 + 4)  # it shows with the third page, when more are under way


BEYOND: dict[str, Callable[[int, int], int]] = {
    "the last page": min,
    "the page before it": lambda number, last: min(number, last - 1),
    "all pages again": lambda number, last: number % (last + 1),
    "all pages backwards": lambda number, last: number if number <= last else -number % (last + 1),
}
COUNTS: dict[str, Callable[[int, int], int | None]] = {
    "right": lambda _, true: true,
    "absent": lambda *_: None,
    "too large": lambda *_: 10**9,
    "too small": lambda *_: 3,
    "larger on the second page": lambda number, true: true - (number == 0),
    "growing": lambda number, true: true + number,
    "alternating": lambda number, true: true + number % 2,
}


@pytest.mark.parametrize("count", [10, 15, 18])
@pytest.mark.parametrize("total", COUNTS)
@pytest.mark.parametrize("beyond", BEYOND)
async def test_a_server_that_repeats_a_page_is_no_endless_list(beyond: str, total: str, count: int) -> None:
    """Page numbers past the end give a page that came before, with any total: the list ends, with all its tokens."""
    account = Account(names(count), total=COUNTS[total])
    last = (count - 1) // SIZE
    numbers: list[int] = []

    async def read(number: int) -> Page:
        numbers.append(number)
        if number <= last:
            return await account.read(number)
        repeated = await account.read(BEYOND[beyond](number, last))
        return attrs.evolve(repeated, total=COUNTS[total](number, count))

    async with asyncio.timeout(HANG):
        assert [token.id async for token in list_all(read, 1, size=SIZE)] == names(count)
    assert len(numbers) <= 2 * (last + 3)


@pytest.mark.parametrize("count", [5, 10, 15])
async def test_a_repeated_page_past_the_end_is_no_second_reading(count: int) -> None:
    """A list of full pages that stands still is read once, also where the server gives its last page past the end."""
    account = Account(names(count))
    last = (count - 1) // SIZE
    assert [token.id async for token in list_all(lambda n: account.read(min(n, last)), 1, size=SIZE)] == names(count)
    assert len(account.pages) == last + 2


@pytest.mark.parametrize("total", [0, 1, 4, None])
async def test_a_total_that_the_pages_prove_wrong_says_nothing(total: int | None) -> None:
    """More tokens than the total: then the first page says how long one is, also if the server puts fewer on it."""
    account = Account(names(23), total=lambda *_: total)

    assert await listed(account, size=100) == names(23)
    assert sorted(account.pages) == [0, 1, 2, 3, 4]


async def test_a_page_of_new_tokens_does_not_end_a_list() -> None:
    """As many new tokens as fit a page put the first page's tokens on the second one: the list goes on all the same."""
    account = Account(names(60))

    def grow(number: int) -> None:
        if number == 1:  # in both passes
            account.ids[:0] = [f"new{len(account.ids)}-{place}" for place in range(5)]

    account.before = grow
    assert set(names(60)) <= set(await listed(account, 1))


# Tokens


@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_each_token_once_in_one_pass(concurrency: int) -> None:
    """A list that stays as it is gives each token once, in order, and each page is read once."""
    account = Account(names(101), delay=lambda number: -number % 5)

    assert await listed(account, concurrency) == names(101)
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
@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_page_that_fails_ends_the_list(failing: list[int], concurrency: int) -> None:
    """The tokens of the pages before come first, then that page's own error; what was read ahead is dropped."""
    account = Account(names(60), errors=dict.fromkeys(failing, ServerError), delay=lambda number: 9 - number)

    assert await up_to_error(account, concurrency, ServerError) == (names(failing[0] * 5), f"page {failing[0]}")
    assert account.in_flight == 0
    assert others() == set()


async def test_pages_read_ahead_that_failed_unseen_are_no_complaint() -> None:
    """A consumer that leaves before a failed page sees nothing of that failure."""
    account = Account(names(60), errors=dict.fromkeys(range(2, 12), ServerError), delay=0)

    async with aclosing(list_all(account.read, 8, size=SIZE)) as tokens:
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
        tokens = list_all(account.read, 8, size=SIZE)
        for _ in range(consumed):
            await anext(tokens)
        await turns(3)
        await tokens.aclose()

    assert account.in_flight == 0
    assert others() == set()


async def test_a_list_that_is_dropped_leaves_nothing() -> None:
    """A list left with a plain `break` and dropped is cleaned up by the loop within a few turns."""
    account = Account(names(200), delay=lambda number: 10_000 if number > 1 else 0)

    async for token in list_all(account.read, 8, size=SIZE):
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
                async with aclosing(list_all(account.read, CONCURRENCY, size=SIZE)) as tokens:
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
        async with aclosing(list_all(account.read, CONCURRENCY, size=SIZE)) as tokens:
            async for token in tokens:
                if token.id == "t5":
                    raise LookupError

    with pytest.raises(LookupError):
        await consume()
    assert others() == set()


@settings(max_examples=100, deadline=None)
@given(moods(), st.integers(1, 9), st.integers(0, 60))
def test_a_list_under_random_scripts(make: Callable[[], Account], concurrency: int, leave: int) -> None:
    """Over such pages, a list gives no token twice, ends, and leaves nothing, also when it is left early."""

    async def run() -> None:
        account = make()
        found: list[str] = []
        async with asyncio.timeout(HANG), aclosing(list_all(account.read, concurrency, size=SIZE)) as tokens:
            with suppress(*account.errors.values()):
                async for token in tokens:
                    found.append(token.id)
                    if len(found) == leave:
                        break
        assert len(found) == len(set(found))
        assert set(found) <= set(account.ids)
        assert account.most_in_flight <= concurrency
        assert account.in_flight == 0
        assert others() == set()

    asyncio.run(run())
