"""Cancelling a call wherever it is suspended, and looking for what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import attrs
from support.waiting import HANG, others

from dd_sa_tokens import TokensClient
from dd_sa_tokens.testing import FakeDatadog

from .internals import connections_in_use, counted_in_windows, in_flight, on_the_wire, session_of, waiting


def our_tasks() -> set[asyncio.Task[Any]]:
    """Return the other tasks, without those in which the servers accept and serve connections."""
    servers = ("BaseSelectorEventLoop._accept_connection2", "RequestHandler.", "RawServer.")
    return {task for task in others() if not getattr(task.get_coro(), "__qualname__", "").startswith(servers)}


def check_nothing_left(client: TokensClient) -> None:
    """See that no task, no permit, no waiter, no attempt and no connection is left of a call."""
    assert our_tasks() == set()
    assert in_flight(client) == 0
    assert waiting(client) == 0
    assert counted_in_windows(client) == 0
    assert on_the_wire(client) == 0
    session = session_of(client)
    assert session is None or session.closed or connections_in_use(session) == 0


@contextmanager
def no_abandoned_generator() -> Iterator[None]:
    """See that no async generator of the package is left to the event loop's finalizer.

    To be used inside of the test: each run of an event loop sets its own hooks.
    """
    abandoned: list[str] = []
    hooks = sys.get_asyncgen_hooks()

    def finalize(generator: AsyncGenerator[Any, Any]) -> None:
        if "dd_sa_tokens" in Path(generator.ag_code.co_filename).parts:
            abandoned.append(generator.ag_code.co_qualname)
        assert hooks.finalizer is not None
        hooks.finalizer(generator)

    sys.set_asyncgen_hooks(finalizer=finalize)
    try:
        yield
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert abandoned == []


async def check_still_works(client: TokensClient, datadog: FakeDatadog) -> None:
    """See that a client does its work as if nothing had happened, then close it."""
    async with asyncio.timeout(HANG), client:
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids[:3])
        assert [item.unwrap().id for item in result] == list(datadog.token_ids[:3])
        check_nothing_left(client)


@attrs.define(eq=False)
class _Watch:
    """Counts how often a call is suspended, in its own task or in one that it made, and cancels it at some points."""

    points: tuple[int, ...]
    task: asyncio.Task[Any] | None = None
    suspended: int = 0
    cancelled: bool = False

    def count(self) -> None:
        self.suspended += 1
        if self.suspended in self.points:
            asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        assert self.task is not None
        self.cancelled |= self.task.cancel()


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine whose suspensions are counted."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], watch: _Watch) -> None:
        self._coroutine = coroutine
        self._watch = watch

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coroutine.__await__())

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        awaited = step(*given)
        self._watch.count()
        return awaited


def _watched_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    watch = _watch.get()
    return asyncio.Task(coroutine if watch is None else _Watched(coroutine, watch), loop=loop, **options)


@contextmanager
def _watching(watch: _Watch, coroutine: Coroutine[Any, Any, Any]) -> Iterator[asyncio.Task[Any]]:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(_watched_task)
    token = _watch.set(watch)  # the tasks that this one makes inherit it
    watch.task = asyncio.create_task(coroutine)
    _watch.reset(token)
    try:
        yield watch.task
    finally:
        loop.set_task_factory(before)


@attrs.frozen
class Ending:
    """How a call ended that was cancelled on its way.

    Attributes:
        value: What it returned, if it did.
        error: What it raised, if it did: a cancellation, if it was cancelled before it was done, and only then.
        suspended: How often it was suspended.
    """

    value: Any
    error: BaseException | None
    suspended: int


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], *points: int) -> Ending:
    """Cancel a call at its nth suspension, and again at later ones; those of the tasks that it makes count, too."""
    watch = _Watch(points)
    with _watching(watch, coroutine) as task:
        async with asyncio.timeout(HANG):
            await asyncio.wait([task])
    value, error = await how_it_ended(task)
    assert isinstance(error, asyncio.CancelledError) == watch.cancelled
    return Ending(value, error, watch.suspended)


async def how_it_ended(task: asyncio.Future[Any]) -> tuple[Any, BaseException | None]:
    """Give a task's value and its error: its own one, while `gather` makes a new cancellation, without its notes."""
    try:
        async with asyncio.timeout(HANG):
            return await task, None
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the caller looks at it
        return None, error


async def cancelled_when_suspended(coroutine: Coroutine[Any, Any, Any], at: int) -> bool:
    """Cancel a coroutine at its nth suspension; return whether it got there."""
    ending = await cancelled_at(coroutine, at)
    assert ending.error is None or isinstance(ending.error, asyncio.CancelledError)
    return ending.suspended >= at
