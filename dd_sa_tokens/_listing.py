"""A service account's list: its pages read ahead, no token twice; and what it saves a bulk fetch.

A page of 100 tokens costs one request, as much as one token by itself. So a fetch of many IDs looks into the list
first where that takes fewer requests, and gets only what no page held: the answers are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing
from typing import Any, cast

from ._arguments import Strategy, check_id
from ._codec import Page
from .errors import DatadogError, InvalidArgumentError
from .models import AccessToken

_logger = logging.getLogger("dd_sa_tokens")

FEWEST_LISTED = 20
"""IDs below which the strategy "auto" does not look at the list."""

Get = Callable[[Any], Awaitable[AccessToken]]
ReadPage = Callable[[int], Awaitable[Page]]


async def read_pages(read: ReadPage, width: int) -> AsyncGenerator[Page, None]:
    """Yield the pages in order, as many as their totals promise, or up to an empty one.

    Nothing is read ahead of the first page: only then is it known what there is, and whether the consumer wants more.
    After that two pages are under way, and twice as many with each page that is consumed, at most `width`.
    """
    under_way: deque[asyncio.Task[Page]] = deque()
    page, number = await read(0), 0
    first = page
    started = 1
    try:
        while True:
            yield page
            pages = _page_count(page, number, first)
            while started < pages and len(under_way) < min(width, 2 ** min(number + 1, 10)):
                under_way.append(asyncio.ensure_future(read(started)))
                started += 1
            if not under_way:
                return
            page, number = await under_way.popleft(), number + 1
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def _page_count(page: Page, number: int, first: Page) -> int:
    """Return how many pages there are, judging by page number `number` and by the size of the first one."""
    # A server that does not know page numbers gives the first page for each: that must not go on for ever. (Once it
    # may come again by itself: when as many tokens as fit a page are made meanwhile, and the newest come first.)
    if not page.tokens or (number > 1 and page.tokens[0].id == first.tokens[0].id):
        return 0
    return number + 2 if page.total is None else -(-page.total // len(first.tokens))


async def list_all(read: ReadPage, width: int) -> AsyncGenerator[AccessToken, None]:
    """Yield each token of a list once.

    A token that is made or revoked meanwhile moves others across the pages' borders, and some could be missed. So where
    that shows, by a total that changes or by a token that comes twice, the list is read once more for what is new.
    """
    seen: set[str] = set()
    for last_pass in (False, True):
        moved, total = False, None
        async with aclosing(read_pages(read, width)) as pages:
            async for page in pages:
                total = page.total if total is None else total
                moved = moved or page.total != total
                for token in page.tokens:
                    if token.id in seen:
                        moved = True
                    else:
                        seen.add(token.id)
                        yield token
        if last_pass or not moved:
            return


async def choose(
    strategy: Strategy, token_ids: Iterable[str] | AsyncIterable[str], get: Get, read: ReadPage, width: int
) -> Get:
    """Return what fetches a token: a look at what the list held, where it was read, and `get` for the rest."""
    found = await _look(strategy, token_ids, read, width)
    if not found:
        return get

    async def fetch(token_id: Any) -> AccessToken:
        token = found.get(token_id)
        return token if token is not None else await get(token_id)

    return fetch


async def _look(
    strategy: Strategy, token_ids: Iterable[str] | AsyncIterable[str], read: ReadPage, width: int
) -> dict[str, AccessToken]:
    """Read the list if it is worth it, as far as it can be read."""
    found: dict[str, AccessToken] = {}
    if strategy == "get" or (strategy == "auto" and not _more_missing(token_ids, found, FEWEST_LISTED - 1)):
        return found
    if isinstance(token_ids, Collection) and not token_ids:
        return found
    try:
        async with aclosing(read_pages(read, width)) as pages:
            async for page in pages:
                is_first = not found
                found |= {token.id: token for token in page.tokens}
                if strategy == "auto" and is_first:
                    rest = _page_count(page, 0, page) - 1
                    if page.total is None or not _more_missing(token_ids, found, rest):
                        break
    except DatadogError as error:
        # What no page gave is asked for by itself, and whatever is wrong with that is then the answer for its ID.
        _logger.info("the list of tokens could not be read, so they are fetched one by one: %s", error)
    return found


def _more_missing(token_ids: object, found: Collection[str], number: int) -> bool:
    """Tell whether more than so many different IDs are not found yet; of a collection only, which can be read twice."""
    if not isinstance(token_ids, Collection):
        return False
    missing: set[str] = set()
    try:
        for token_id in cast("Collection[object]", token_ids):
            if isinstance(token_id, str) and token_id not in found and _costs_a_get(token_id):
                missing.add(token_id)
                if len(missing) > number:
                    return True
    except Exception:  # noqa: BLE001 - it is the caller's iterable: the fetch that follows meets this again, and says so
        return False
    return False


def _costs_a_get(token_id: str) -> bool:
    try:
        check_id("token_id", token_id, "get_token")
    except InvalidArgumentError:  # refused at its position, without a request
        return False
    return True
