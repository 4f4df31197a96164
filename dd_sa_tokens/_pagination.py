"""The pages of a list: read ahead of the consumer, no item twice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from ._protocol.documents import Page


class HasId(Protocol):
    """An item of a list."""

    @property
    def id(self) -> str:
        """Its ID, by which it is recognised."""
        ...


T = TypeVar("T", bound=HasId)

ReadPage = Callable[[int], Awaitable[Page[T]]]
"""Reads a page by its number, counted from 0."""


async def read_pages(read: ReadPage[T], concurrency: int) -> AsyncGenerator[Page[T], None]:
    """Yield the pages in order, as many as their totals promise, or up to an empty one.

    Nothing is read ahead of the first page: only then is it known what there is, and whether the consumer wants more.
    After that two pages are under way, and twice as many with each page that is consumed, at most `concurrency`.
    """
    under_way: deque[asyncio.Task[Page[T]]] = deque()
    page, number = await read(0), 0
    first = page
    started = 1
    try:
        while True:
            yield page
            pages = page_count(page, number, first)
            while started < pages and len(under_way) < min(concurrency, 2 ** min(number + 1, 10)):
                under_way.append(asyncio.ensure_future(read(started)))
                started += 1
            if not under_way:
                return
            page, number = await under_way.popleft(), number + 1
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def page_count(page: Page[T], number: int, first: Page[T]) -> int:
    """Return how many pages there are, judging by page number `number` and by the size of the first one."""
    # A server that does not know page numbers gives the first page for each: that must not go on for ever. (Once it
    # may come again by itself: when as many tokens as fit a page are made meanwhile, and the newest come first.)
    if not page.items or (number > 1 and page.items[0].id == first.items[0].id):
        return 0
    return number + 2 if page.total is None else -(-page.total // len(first.items))


async def list_all(read: ReadPage[T], concurrency: int) -> AsyncGenerator[T, None]:
    """Yield each item of a list once.

    An item that is made or removed meanwhile moves others across the pages' borders, and some could be missed. So where
    that shows, by a total that changes or by an item that comes twice, the list is read once more for what is new.
    """
    seen: set[str] = set()
    for last_pass in (False, True):
        moved, total = False, None
        async with aclosing(read_pages(read, concurrency)) as pages:
            async for page in pages:
                total = page.total if total is None else total
                moved = moved or page.total != total
                for item in page.items:
                    if item.id in seen:
                        moved = True
                    else:
                        seen.add(item.id)
                        yield item
        if last_pass or not moved:
            return
