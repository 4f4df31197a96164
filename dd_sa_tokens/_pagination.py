"""The pages of a list: read ahead of the consumer, no item twice, none missed while others move.

The rule: pages are asked for while the last one was as long as asked for, or fewer items have come than the largest
total seen. A page without a new item ends the list, and so does a refusal of a page past the last total. So T items
take at most T / size + 1 requests.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import attrs

from ._protocol.documents import Page
from .errors import APIError

_logger = logging.getLogger("dd_sa_tokens")

_NO_SUCH_PAGE = frozenset({400, 404, 416, 422})
"""What a server may answer to a page past the end of a list."""


class Item(Protocol):
    """An item of a list."""

    @property
    def id(self) -> str:
        """Its ID, by which it is recognised."""
        ...

    @property
    def created_at(self) -> datetime | None:
        """When it was made; `None` if that is not known."""
        ...


T = TypeVar("T", bound=Item)

ReadPage = Callable[[int], Awaitable[Page[T]]]
"""Reads a page by its number, counted from 0."""


@attrs.define
class _Progress:
    """How far a list has been read, and whether there is more.

    Attributes:
        size: Items asked for in a page.
        trust_total: Whether the total says where the list ends.
        rows: Items that have come.
        total: The largest total seen; `None` while no page has one.
        moved: Whether items may have moved from page to page meanwhile.
        is_repeat: Whether the last page repeats another one after all had come: that is no sign of a move.
    """

    size: int
    trust_total: bool
    rows: int = 0
    total: int | None = None
    moved: bool = False
    is_repeat: bool = False
    _last_total: int | None = None
    _first_length: int = 0
    _seen: set[str] = attrs.field(factory=set[str])
    _was_stale: bool = False
    _ended: bool = False

    def take(self, page: Page[T], number: int) -> None:
        """Record page number `number`."""
        length = len(page.items)
        if number == 0:
            self._last_total, self._first_length = page.total, length
        # For a number past the end a server may repeat any page: that must not go on for ever. But if the total has
        # just changed, a page's worth of new items may have moved those of one page to the next one.
        known = len(self._seen)
        self._seen.update(item.id for item in page.items)
        is_stale, is_moving = len(self._seen) == known, page.total != self._last_total
        repeats = is_stale and (self._was_stale or not is_moving)
        self._was_stale, self._last_total = is_stale, page.total
        self.moved = self.moved or is_moving
        self.is_repeat = repeats and self.rows >= (self.total or 0)
        self.rows += length
        if page.total is not None:
            self.total = max(page.total, self.total or 0)
        promised = page.total if self.trust_total else self.total
        self._ended = not length or repeats or (self.rows >= (promised or 0) and not self._may_go_on(length))

    def _may_go_on(self, length: int) -> bool:
        """Return whether a page of this length may be followed by another one although the total is reached."""
        if len(self._seen) > (self.total or 0):  # no total, or a wrong one: only the pages say how long a full one is
            return length >= self._first_length
        return not self.trust_total and length >= self.size

    @property
    def has_all(self) -> bool:
        """Whether as many items have come as the last page said that there are."""
        return self._last_total is not None and self.rows >= self._last_total

    def warn_if_short(self) -> None:
        """Log it if the list ended although its last page said that there are more."""
        if self._last_total is not None and self.rows < self._last_total:
            text = "a list ended after %d items, but its last page says that there are %d: some may be missing"
            _logger.warning(text, self.rows, self._last_total)

    def pages_known(self, number: int) -> int:
        """Return how many pages there are for certain, once page number `number` was recorded: at least one more."""
        if self._ended:
            return 0
        promised = 0 if self.total is None or not self._first_length else -(-self.total // self._first_length)
        return max(promised, number + 2)


async def read_pages(
    read: ReadPage[T],
    concurrency: int,
    *,
    size: int,
    trust_total: bool = False,
    first: Page[T] | None = None,
    most: int = sys.maxsize,
) -> AsyncGenerator[tuple[Page[T], _Progress], None]:
    """Yield the pages in order, each with what is known of the list by then.

    Nothing is read ahead of the first page: only then is it known what there is, and whether the consumer wants more.
    After that two pages are in flight, and twice as many with each page that is consumed, at most `concurrency`. There
    is a pass of the event loop between two pages.

    Args:
        read: Reads a page.
        concurrency: Most pages in flight.
        size: Items asked for in a page.
        trust_total: Whether to end where the total says, for a caller that notices if something is missing.
        first: The first page, if it was read already.
        most: Most pages that are read.
    """
    progress = _Progress(size, trust_total)
    in_flight: deque[asyncio.Task[Page[T]]] = deque()
    page, number = first or await read(0), 0
    started = 1
    try:
        while True:
            progress.take(page, number)
            yield page, progress
            if in_flight and in_flight[0].done():
                await asyncio.sleep(0)  # several pages may have come at once
            pages = min(progress.pages_known(number), most)
            while started < pages and len(in_flight) < min(concurrency, 2 ** min(number + 1, 10)):
                in_flight.append(asyncio.ensure_future(read(started)))
                started += 1
            if not in_flight or not pages:
                return
            try:
                page, number = await in_flight.popleft(), number + 1
            except APIError as error:
                if progress.has_all and error.status in _NO_SUCH_PAGE:
                    return
                raise
    finally:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


async def list_all(
    read: ReadPage[T], concurrency: int, *, size: int, seen: set[str] | None = None
) -> AsyncGenerator[T, None]:
    """Yield each item of a list once.

    An item that is made or removed meanwhile moves others across the pages' borders, and some could be missed. Signs of
    that are a total that changes, an item that comes twice, or one that was made or updated after the first page was
    read. The list is then read once more for what was missed.

    Args:
        read: Reads a page.
        concurrency: Most pages in flight.
        size: Items asked for in a page.
        seen: The IDs that were yielded already, for a list that is read in several parts; they are added to.
    """
    known: set[str] = set() if seen is None else seen
    for last_pass in (False, True):
        moved, began, more_than_one, progress = False, None, False, None
        async with aclosing(read_pages(read, concurrency, size=size)) as pages:
            async for page, progress in pages:
                more_than_one = began is not None
                began = datetime.fromtimestamp(page.date, UTC) if began is None else began
                moved = moved or progress.moved
                if progress.is_repeat:
                    continue
                for item in page.items:
                    if item.id in known:
                        moved = True
                        continue
                    known.add(item.id)
                    moved = moved or _has_changed(item, began)
                    yield item
        if last_pass or not moved or not more_than_one:
            if progress is not None:
                progress.warn_if_short()
            return


def _has_changed(item: Item, since: datetime) -> bool:
    """Return whether an item was made or updated after a page was read. An update may move it into a filter.

    A page's `Date` is in whole seconds, so an item of the same second may be newer, too.
    """
    created, modified = item.created_at, getattr(item, "modified_at", None)  # not every item has the second
    return (created is not None and created > since) or (modified is not None and modified > since)
