"""Turns on the event loop: one task at a time, each in a pass of its own."""

from __future__ import annotations

import asyncio

from dd_sa_tokens._http.turns import Turns

COUNT = 50


async def go_on(turns: Turns, done: list[int], number: int) -> None:
    """Wait for a turn, and note it."""
    await turns.wait()
    done.append(number)


async def passes_of(tasks: list[asyncio.Task[None]], done: list[int]) -> list[int]:
    """Return how many tasks went on in each pass of the loop, until all have ended."""
    counts: list[int] = []
    while not all(task.done() for task in tasks):
        before = len(done)
        await asyncio.sleep(0)
        counts.append(len(done) - before)
    return counts


async def test_each_task_has_a_pass_of_its_own() -> None:
    """Of fifty tasks that wait at once, one goes on in a pass of the loop, in the order in which they came."""
    turns, done = Turns(), list[int]()
    tasks = [asyncio.create_task(go_on(turns, done, number)) for number in range(COUNT)]
    counts = await passes_of(tasks, done)
    assert max(counts) == 1
    assert len(counts) <= 3 * COUNT
    assert done == list(range(COUNT))


async def test_a_cancelled_task_passes_its_turn_on() -> None:
    """Tasks that are cancelled while they wait, the first one and others, hold nothing up."""
    turns, done = Turns(), list[int]()
    tasks = [asyncio.create_task(go_on(turns, done, number)) for number in range(COUNT)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await passes_of(tasks, done)
    assert done == list(range(1, COUNT, 2))
    assert [task.cancelled() for task in tasks] == [True, False] * (COUNT // 2)
