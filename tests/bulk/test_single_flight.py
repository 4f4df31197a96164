"""Duplicates in flight share one request: who gets the answer, and what a cancelled one changes."""

from __future__ import annotations

import asyncio

from support.internals import duplicates_kept
from support.manual_fetch import ManualFetch

from dd_sa_tokens import ForbiddenError


async def test_what_is_no_id_is_answered_at_once(fetcher: ManualFetch) -> None:
    """A position that holds no str gets its error without a request, even where it is not hashable."""
    asking = await fetcher.ask(["t1"])

    assert "not list" in str((await asking).error)
    assert fetcher.asked == []


async def test_duplicates_share_a_request_but_not_an_exception(fetcher: ManualFetch) -> None:
    """Two who ask for the same ID at the same time get one answer, and an exception each."""
    first, second = await fetcher.ask("t1"), await fetcher.ask("t1")
    await fetcher.give("t1", ForbiddenError())
    results = await first, await second

    assert fetcher.asked == ["t1"]
    assert [type(result.error) for result in results] == [ForbiddenError, ForbiddenError]
    assert results[0].error is not results[1].error


async def test_busy_until_the_last_duplicate_has_its_answer(fetcher: ManualFetch) -> None:
    """It is busy until each duplicate has its answer; then nothing of the ID is kept."""
    first, second = await fetcher.ask("t1"), await fetcher.ask("t1")
    seen: list[tuple[bool, bool, bool]] = []
    fetcher.answers["t1"].add_done_callback(
        lambda _: seen.append((first.done(), second.done(), fetcher.fetcher.is_busy))
    )
    await fetcher.give("t1")

    assert seen == [(True, False, True)]  # right after the first one got it
    assert (await second).ok
    assert not fetcher.fetcher.is_busy
    assert duplicates_kept(fetcher.fetcher) == 0


async def test_a_duplicate_that_is_cancelled_leaves_the_others_alone(fetcher: ManualFetch) -> None:
    """The others get their answer."""
    first, second, third = [await fetcher.ask("t1") for _ in range(3)]
    second.cancel()
    await asyncio.sleep(0)
    await fetcher.give("t1")

    assert (await first).ok
    assert (await third).ok
    assert second.cancelled()
    assert fetcher.asked == ["t1"]
