"""Refused keys: when no other ID is asked for any more, and what happens to what is in flight."""

from __future__ import annotations

import asyncio

from support.manual_fetch import ManualFetch

from dd_sa_tokens import ForbiddenError, UnauthorizedError
from dd_sa_tokens._bulk.credential_breaker import MANY_FORBIDDEN


async def refuse(fetcher: ManualFetch) -> None:
    """Answer a question with a 401, and the second try, too."""
    asking = await fetcher.ask("refused")
    await fetcher.give("refused", UnauthorizedError())
    await fetcher.give("refused", UnauthorizedError())
    assert isinstance((await asking).error, UnauthorizedError)


async def test_after_a_stop_nothing_is_asked(fetcher: ManualFetch) -> None:
    """A 401 that a second request confirms is reported once, and is the answer to all later IDs."""
    await refuse(fetcher)
    later = await (await fetcher.ask("t2"))

    assert isinstance(later.error, UnauthorizedError)
    assert later.error.token_id == "t2"
    assert fetcher.asked == ["refused", "refused"]
    assert fetcher.changes == 1


async def test_a_stop_ends_what_is_under_way_as_a_result(fetcher: ManualFetch) -> None:
    """A request in flight when the breaker opens ends with the reason as its result, not as a cancelled task."""
    waiting = await fetcher.ask("slow")
    await refuse(fetcher)

    assert isinstance((await waiting).error, UnauthorizedError)
    assert not fetcher.fetcher.is_busy


async def test_a_task_that_is_cancelled_when_all_is_stopped_is_cancelled(fetcher: ManualFetch) -> None:
    """A stop cancels who waits; if the consumer cancels the same task in the same moment, that one counts."""
    waiting = await fetcher.ask("slow")
    asking = await fetcher.ask("refused")
    await fetcher.give("refused", UnauthorizedError())
    fetcher.answers["refused"].add_done_callback(lambda _: waiting.cancel())  # right after the stop
    await fetcher.give("refused", UnauthorizedError())
    await asyncio.wait([asking, waiting])

    assert fetcher.fetcher.breaker.open_reason is not None
    assert waiting.cancelled()
    assert waiting.cancelling() == 1


async def test_many_403s_are_suspicious_until_something_else_comes(fetcher: ManualFetch) -> None:
    """Ten 403s hold back what comes next while something is under way; a success lets it go on, and says so."""
    slow = await fetcher.ask("slow")
    for number in range(MANY_FORBIDDEN):
        assert not fetcher.fetcher.breaker.half_open
        await fetcher.ask(f"t{number}")
        await fetcher.give(f"t{number}", ForbiddenError())
    assert fetcher.fetcher.breaker.half_open
    assert fetcher.fetcher.breaker.open_reason is None

    await fetcher.give("slow")

    assert (await slow).ok
    assert not fetcher.fetcher.breaker.half_open
    assert fetcher.fetcher.breaker.open_reason is None
    assert fetcher.changes == 1


async def test_many_403s_and_nothing_under_way_is_a_stop(fetcher: ManualFetch) -> None:
    """Ten 403s with nothing left that could show otherwise mean that no other ID can succeed."""
    for number in range(MANY_FORBIDDEN):
        await fetcher.ask(f"t{number}")
        await fetcher.give(f"t{number}", ForbiddenError())

    assert isinstance(fetcher.fetcher.breaker.open_reason, ForbiddenError)
    assert fetcher.changes == 1
