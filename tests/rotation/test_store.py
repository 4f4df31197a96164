"""What counts as stored: an awaitable that left nothing to do when it was awaited, or `None` from a plain function."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from support.rotations import Vault, state
from support.scripted import ScriptedDatadog

from dd_sa_tokens import CreatedToken, InvalidArgumentError, TokensClient

pytestmark = pytest.mark.usefixtures("loop_errors")

KEPT: list[CreatedToken] = []


async def async_generator(created: CreatedToken) -> AsyncIterator[None]:
    KEPT.append(created)
    yield


def generator(created: CreatedToken) -> Iterator[None]:
    KEPT.append(created)
    yield


class Store:
    """An object whose methods and call are generators."""

    async def method(self, created: CreatedToken) -> AsyncIterator[None]:
        KEPT.append(created)
        yield

    async def __call__(self, created: CreatedToken) -> AsyncIterator[None]:
        KEPT.append(created)
        yield

    @asynccontextmanager
    async def managed(self, created: CreatedToken) -> AsyncIterator[None]:
        KEPT.append(created)
        yield


SEEN_BEFORE: dict[str, Any] = {
    "an async generator": async_generator,
    "a generator": generator,
    "@asynccontextmanager": asynccontextmanager(async_generator),
    "@contextmanager": contextmanager(generator),
    "a partial of an async generator": functools.partial(async_generator),
    "a partial of a partial": functools.partial(functools.partial(asynccontextmanager(async_generator))),
    "a method": Store().method,
    "a managed method": Store().managed,
    "an object": Store(),
    "no function": 7,
}


@pytest.mark.parametrize("store", SEEN_BEFORE.values(), ids=list(SEEN_BEFORE))
async def test_a_store_that_stores_nothing_is_refused_before_the_start(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, store: Any
) -> None:
    """Where it can be seen that calling `store` runs none of its code, nothing is sent."""
    with pytest.raises(InvalidArgumentError, match="store must be"):
        await vault.rotate(client, store=store)
    assert datadog.asked == []
    vault.check_unchanged()


def in_executor(created: CreatedToken) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(KEPT.append, created)


def hidden(make: Callable[[CreatedToken], Any]) -> Callable[[CreatedToken], Any]:
    """Return a plain function, by which it cannot be seen what it returns."""

    def call(created: CreatedToken) -> Any:
        return make(created)

    return call


RETURNED: dict[str, Callable[[CreatedToken], Any]] = {
    "a future of an executor": in_executor,
    "a list": lambda created: [created.token.id],
    "False": lambda _: False,
    "True": lambda _: True,
    "0": lambda _: 0,
    "an empty text": lambda _: "",
    "an async generator": hidden(async_generator),
    "a generator": hidden(generator),
    "a context manager": hidden(asynccontextmanager(async_generator)),
    "a function": lambda created: lambda: created,
    "an async function": lambda _: async_generator,
    "a class": CreatedToken.__class__,
    "NotImplemented": lambda _: NotImplemented,
    "a list of coroutines": lambda created: [asyncio.sleep],
}


@pytest.mark.parametrize("store", RETURNED.values(), ids=list(RETURNED))
async def test_what_is_returned_and_is_no_awaitable_counts_as_not_stored(
    client: TokensClient, vault: Vault, store: Callable[[CreatedToken], Any]
) -> None:
    """The new token is revoked, the old one stays, and the error says so."""
    error = await vault.fail(client, store=store)
    assert "counts as not stored" in str(error)
    assert "Now the new token is revoked, and the old one works" in str(error)
    old_works, new_id, new_works, unknown = state(error)
    assert (old_works, new_works, unknown) == (True, False, False)
    assert new_id not in vault.live
    vault.check_unchanged()


def driven(create: Callable[[CreatedToken], AsyncIterator[None]]) -> Callable[[CreatedToken], Any]:
    """Decorate an async generator so that it runs to its end when it is awaited."""

    @functools.wraps(create)
    def call(created: CreatedToken) -> Any:
        async def run() -> None:
            async for _ in create(created):
                pass

        return run()

    return call


async def test_a_decorated_generator_that_is_driven_stores(client: TokensClient, vault: Vault) -> None:
    """A decorator may make an awaitable of a generator: what it returns decides."""

    @driven
    async def store(created: CreatedToken) -> AsyncIterator[None]:
        await vault.store(created)
        yield

    await vault.rotate(client, store=store)
    vault.check_replaced()


@pytest.mark.parametrize("given", [None, True, 0, [], "stored", object()], ids=lambda given: type(given).__name__)
async def test_what_an_awaitable_gives_counts_as_stored(client: TokensClient, vault: Vault, given: Any) -> None:
    """An async `store` has stored when it returns a value that says nothing else, such as a response."""

    async def store(created: CreatedToken) -> Any:
        await vault.store(created)
        return given

    await vault.rotate(client, store=store)
    vault.check_replaced()


async def test_a_task_that_is_done_is_not_left_to_do(client: TokensClient, vault: Vault) -> None:
    """An async `store` may return the task that it awaited; one that failed, or was cancelled, has not stored."""

    async def store(created: CreatedToken) -> Any:
        task = asyncio.create_task(vault.store(created))
        await task
        return task

    async def fail(_: CreatedToken) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(OSError())
        return future

    error = await vault.fail(client, store=fail)
    assert "gave Future when it was awaited" in str(error)
    await vault.rotate(client, store=store)
    vault.check_replaced()


class Awaitable:
    """Stores when it is awaited, as a statement of a database library."""

    def __init__(self, created: CreatedToken) -> None:
        self._created = created

    def __await__(self) -> Iterator[None]:
        yield
        KEPT.append(self._created)


async def keep(created: CreatedToken) -> None:
    KEPT.append(created)


def done_future(result: Any) -> Future[Any]:
    future = Future[Any]()
    future.set_result(result)
    return future


LEFT_TO_DO: dict[str, Callable[[CreatedToken], Any]] = {
    "a coroutine": keep,
    "an awaitable": Awaitable,
    "a future of an executor": lambda _: Future(),
    "a future with a coroutine": lambda created: done_future(keep(created)),
    "a future with False": lambda _: done_future(False),
    "a generator": generator,
    "an async generator": async_generator,
    "False": lambda _: False,
}


def of_async_function(make: Callable[[CreatedToken], Any]) -> Callable[[CreatedToken], Any]:
    async def store(created: CreatedToken) -> Any:
        return make(created)

    return store


def of_thread(make: Callable[[CreatedToken], Any]) -> Callable[[CreatedToken], Any]:
    return lambda created: asyncio.to_thread(lambda: make(created))


def of_future(make: Callable[[CreatedToken], Any]) -> Callable[[CreatedToken], Any]:
    def store(created: CreatedToken) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(make(created))
        return future

    return store


@pytest.mark.parametrize("wrap", [of_async_function, of_thread, of_future])
@pytest.mark.parametrize("what", LEFT_TO_DO)
async def test_a_forgotten_await_counts_as_not_stored(client: TokensClient, vault: Vault, what: str, wrap: Any) -> None:
    """Awaiting `store` gives work that is left to do, or `False`: the new token is revoked, and the old one stays."""
    error = await vault.fail(client, store=wrap(LEFT_TO_DO[what]))
    assert "when it was awaited, so the new token counts as not stored" in str(error)
    assert "Now the new token is revoked, and the old one works" in str(error)
    gc.collect()  # a coroutine that was never awaited would warn
    vault.check_unchanged()
