"""How a bulk fetch spends as few requests as possible; the answers are the same.

A page of 100 tokens costs one request, as much as a single token. So a fetch of many IDs reads the service account's
list first where that takes fewer requests, and gets only what no page held.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Collection, Iterable
from contextlib import aclosing
from typing import Any, Protocol, cast

from dd_sa_tokens._pagination import ReadPage, page_count, read_pages
from dd_sa_tokens._validation import Strategy, check_id
from dd_sa_tokens.errors import DatadogError, InvalidArgumentError
from dd_sa_tokens.models import AccessToken

from .fetcher import FetchToken

_logger = logging.getLogger("dd_sa_tokens")

FEWEST_LISTED = 20
"""Different IDs below which the strategy "auto" does not look at the list."""


class FetchStrategy(Protocol):
    """A way to fetch many tokens."""

    async def prepare(self) -> None:
        """Do what comes before the first token; called once."""
        ...

    @property
    def fetch(self) -> FetchToken:
        """Fetches the token of one ID."""
        ...


def make_strategy(
    name: Strategy,
    token_ids: Iterable[str] | AsyncIterable[str],
    get: FetchToken,
    read: ReadPage[AccessToken],
    concurrency: int,
) -> FetchStrategy:
    """Return the strategy of a name.

    Args:
        name: Which one.
        token_ids: The IDs that will be fetched.
        get: Fetches one token by a request of its own.
        read: Reads a page of the service account's list.
        concurrency: Most pages read at a time.
    """
    ids = cast("Collection[object]", token_ids) if isinstance(token_ids, Collection) else None
    if name == "list" and (ids is None or ids):
        return ListFirst(get, read, concurrency)
    if name == "auto" and ids is not None and count_missing(ids, (), FEWEST_LISTED) == FEWEST_LISTED:
        return ListIfCheaper(get, read, concurrency, ids)
    return GetEach(get)


class GetEach:
    """One request for each ID."""

    def __init__(self, get: FetchToken) -> None:
        self.fetch = get

    async def prepare(self) -> None:
        """Do nothing."""


class ListFirst:
    """Reads the whole list first; one request for each ID that no page held."""

    def __init__(self, get: FetchToken, read: ReadPage[AccessToken], concurrency: int) -> None:
        self._get = get
        self._read = read
        self._concurrency = concurrency
        self._found: dict[str, AccessToken] = {}

    async def prepare(self) -> None:
        """Read the list, as far as it can be read."""
        try:
            async with aclosing(read_pages(self._read, self._concurrency)) as pages:
                async for page in pages:
                    is_first = not self._found
                    self._found |= {token.id: token for token in page.items}
                    if is_first and not self._is_worthwhile(page_count(page, 0, page) - 1, page.total):
                        break
        except DatadogError as error:
            # What no page held is asked for by itself. If that fails, too, its error is the answer for its ID.
            _logger.info("the list of tokens could not be read, so they are fetched one by one: %s", error)

    async def fetch(self, token_id: Any) -> AccessToken:
        """Return the token from the list, or get it."""
        token = self._found.get(token_id)
        return token if token is not None else await self._get(token_id)

    def _is_worthwhile(self, more_pages: int, total: int | None) -> bool:  # noqa: ARG002 - a subclass asks
        return True


class ListIfCheaper(ListFirst):
    """Looks at the list's first page, and goes on with whichever needs fewer requests."""

    def __init__(
        self, get: FetchToken, read: ReadPage[AccessToken], concurrency: int, token_ids: Collection[object]
    ) -> None:
        super().__init__(get, read, concurrency)
        self._token_ids = token_ids

    def _is_worthwhile(self, more_pages: int, total: int | None) -> bool:
        return total is not None and count_missing(self._token_ids, self._found, more_pages + 1) > more_pages


def count_missing(token_ids: Collection[object], found: Collection[str], most: int) -> int:
    """Count the different IDs that are not found yet and cost a request each; stop at `most`."""
    missing: set[str] = set()
    try:
        for token_id in token_ids:
            if isinstance(token_id, str) and token_id not in found and _costs_a_request(token_id):
                missing.add(token_id)
                if len(missing) >= most:
                    break
    except Exception:  # noqa: BLE001 - it is the caller's iterable: the fetch that follows meets this again, and says so
        return 0
    return len(missing)


def _costs_a_request(token_id: str) -> bool:
    try:
        check_id("token_id", token_id, "get_token")
    except InvalidArgumentError:  # refused at its position, without a request
        return False
    return True
