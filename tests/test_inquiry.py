"""One inquiry by itself: who shares an answer, when it stops, and whose cancellation is whose."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.internals import duplicates_kept

from dd_sa_tokens import AccessToken, DatadogError, ForbiddenError, TokenResult, UnauthorizedError
from dd_sa_tokens._inquiry import MANY_FORBIDDEN, Inquiry


class Desk:
    """Answers when told to, and counts what it is asked and how often the inquiry says that something changed."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.changes = 0
        self.answers: dict[str, asyncio.Future[AccessToken]] = {}
        self.inquiry = Inquiry(self._fetch, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def _fetch(self, token_id: Any) -> AccessToken:
        self.asked.append(token_id)
        self.answers[token_id] = asyncio.get_running_loop().create_future()
        return await self.answers[token_id]

    async def ask(self, token_id: object) -> asyncio.Task[TokenResult]:
        """Ask in a task of its own, and return once the question is out."""

        async def answer() -> TokenResult:
            task = asyncio.current_task()
            assert task is not None
            return await self.inquiry.answer(task, token_id)

        asking = asyncio.ensure_future(answer())
        await asyncio.sleep(0)
        return asking

    async def give(self, token_id: str, error: DatadogError | None = None) -> None:
        """Answer, and return once that has arrived."""
        if error is None:
            self.answers[token_id].set_result(AccessToken(id=token_id))
        else:
            self.answers[token_id].set_exception(error)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def refuse(desk: Desk) -> None:
    """Answer a question with a 401, and the second try, too."""
    asking = await desk.ask("refused")
    await desk.give("refused", UnauthorizedError())
    await desk.give("refused", UnauthorizedError())
    assert isinstance((await asking).error, UnauthorizedError)


async def test_what_is_no_id_is_answered_at_once(desk: Desk) -> None:
    """A position that holds no str gets its error without a request, even where it is not hashable."""
    asking = await desk.ask(["t1"])

    assert "not list" in str((await asking).error)
    assert desk.asked == []


async def test_twins_share_a_request_but_not_an_exception(desk: Desk) -> None:
    """Two who ask for the same ID at the same time get one answer, and an exception each."""
    first, second = await desk.ask("t1"), await desk.ask("t1")
    await desk.give("t1", ForbiddenError())
    results = await first, await second

    assert desk.asked == ["t1"]
    assert [type(result.error) for result in results] == [ForbiddenError, ForbiddenError]
    assert results[0].error is not results[1].error


async def test_an_inquiry_is_busy_until_the_last_twin_has_its_answer(desk: Desk) -> None:
    """Who waits for another's answer is waited for, too; then nothing is kept of it."""
    first, second = await desk.ask("t1"), await desk.ask("t1")
    seen: list[tuple[bool, bool, bool]] = []
    desk.answers["t1"].add_done_callback(lambda _: seen.append((first.done(), second.done(), desk.inquiry.busy)))
    await desk.give("t1")

    assert seen == [(True, False, True)]  # right after the first one got it
    assert (await second).ok
    assert not desk.inquiry.busy
    assert duplicates_kept(desk.inquiry) == 0


async def test_a_twin_that_is_cancelled_disturbs_nobody(desk: Desk) -> None:
    """The others get their answer."""
    first, second, third = [await desk.ask("t1") for _ in range(3)]
    second.cancel()
    await asyncio.sleep(0)
    await desk.give("t1")

    assert (await first).ok
    assert (await third).ok
    assert second.cancelled()
    assert desk.asked == ["t1"]


async def test_after_a_stop_nothing_is_asked(desk: Desk) -> None:
    """A 401 that a second try confirms is told once, and is the answer for all that comes after."""
    await refuse(desk)
    later = await (await desk.ask("t2"))

    assert isinstance(later.error, UnauthorizedError)
    assert later.error.token_id == "t2"
    assert desk.asked == ["refused", "refused"]
    assert desk.changes == 1


async def test_a_stop_ends_what_is_under_way_as_a_result(desk: Desk) -> None:
    """Who waits for an answer when all is stopped gets the reason as a result, and is no cancelled task."""
    waiting = await desk.ask("slow")
    await refuse(desk)

    assert isinstance((await waiting).error, UnauthorizedError)
    assert not desk.inquiry.busy


async def test_a_task_that_is_cancelled_when_all_is_stopped_is_cancelled(desk: Desk) -> None:
    """A stop cancels who waits; if the consumer cancels the same task in the same moment, that one counts."""
    waiting = await desk.ask("slow")
    asking = await desk.ask("refused")
    await desk.give("refused", UnauthorizedError())
    desk.answers["refused"].add_done_callback(lambda _: waiting.cancel())  # right after the stop
    await desk.give("refused", UnauthorizedError())
    await asyncio.wait([asking, waiting])

    assert desk.inquiry.stopped is not None
    assert waiting.cancelled()
    assert waiting.cancelling() == 1


async def test_many_403s_are_suspicious_until_something_else_comes(desk: Desk) -> None:
    """Ten 403s hold back what comes next while something is under way; a success lets it go on, and says so."""
    slow = await desk.ask("slow")
    for number in range(MANY_FORBIDDEN):
        assert not desk.inquiry.suspicious
        await desk.ask(f"t{number}")
        await desk.give(f"t{number}", ForbiddenError())
    assert desk.inquiry.suspicious
    assert desk.inquiry.stopped is None

    await desk.give("slow")

    assert (await slow).ok
    assert not desk.inquiry.suspicious
    assert desk.inquiry.stopped is None
    assert desk.changes == 1


async def test_many_403s_and_nothing_under_way_is_a_stop(desk: Desk) -> None:
    """Ten 403s with nothing left that could show otherwise mean that no other ID can succeed."""
    for number in range(MANY_FORBIDDEN):
        await desk.ask(f"t{number}")
        await desk.give(f"t{number}", ForbiddenError())

    assert isinstance(desk.inquiry.stopped, ForbiddenError)
    assert desk.changes == 1
