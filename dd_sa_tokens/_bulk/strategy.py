"""How a bulk fetch spends as few requests as possible; the answers are the same.

A page of 100 tokens costs one request, as much as a single token. So a fetch of many IDs reads the service account's
list first where that takes fewer requests, and gets only what no page held.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import attrs

from dd_sa_tokens._pagination import ReadPage, read_pages
from dd_sa_tokens._protocol.documents import Page
from dd_sa_tokens._validation import LARGEST_PAGE, Strategy, canonical_id, check_id
from dd_sa_tokens.errors import DatadogError, InvalidArgumentError
from dd_sa_tokens.models import AccessToken

from .fetcher import FetchToken
from .ids import SLICE, as_text

_logger = logging.getLogger("dd_sa_tokens")

FEWEST_LISTED = 20
"""Different IDs below which the strategy "auto" does not look at the list."""


class FetchStrategy(Protocol):
    """A way to fetch many tokens.

    Attributes:
        confirm: As for `TokenRequests`.
    """

    confirm: FetchToken | None

    async def prepare(self) -> None:
        """Do what comes before the first token; called once."""
        ...

    @property
    def fetch(self) -> FetchToken:
        """Fetches the token of one ID."""
        ...

    @property
    def known(self) -> Mapping[str, AccessToken]:
        """The tokens that need no request, once prepared, by their IDs in the canonical form."""
        ...


@attrs.frozen
class TokenRequests:
    """The requests that a strategy can make.

    Attributes:
        get: Fetches one token by a request of its own.
        read_page: Reads a page of the service account's list, and repeats what fails.
        try_first_page: Reads the list's first page, if that costs no time; tries once.
        concurrency: Most pages read at a time.
        confirm: Fetches a token once more after a 401, without asking for keys again; `None` if functions do not give
            the keys. Then `get` does the same.
    """

    get: FetchToken
    read_page: ReadPage[AccessToken]
    try_first_page: Callable[[], Awaitable[Page[AccessToken]]]
    concurrency: int
    confirm: FetchToken | None = None


def make_strategy(name: Strategy, requests: TokenRequests, ids: Collection[object] | None) -> FetchStrategy:
    """Return the strategy of a name.

    Args:
        name: Which one.
        requests: The requests that it can make.
        ids: The IDs that will be fetched, if they may be read before.
    """
    length = None if ids is None else _length(ids)
    if name == "list" and length != 0:
        return ListFirst(requests)
    if name == "auto" and ids is not None and length is not None and length >= FEWEST_LISTED:
        return ListIfCheaper(requests, ids)
    return GetEach(requests)


def _length(ids: Collection[object]) -> int | None:
    try:
        return len(ids)
    except Exception:  # noqa: BLE001 - the user's collection: if it cannot be read either, the fetch says so
        return None


class GetEach:
    """One request for each ID."""

    def __init__(self, requests: TokenRequests) -> None:
        self.fetch = requests.get
        self.known: Mapping[str, AccessToken] = {}
        self.confirm = requests.confirm

    async def prepare(self) -> None:
        """Do nothing."""


class ListFirst:
    """Reads the whole list first; one request for each ID that no page held."""

    def __init__(self, requests: TokenRequests) -> None:
        self._requests = requests
        self.confirm = requests.confirm
        self.known: dict[str, AccessToken] = {}

    async def prepare(self) -> None:
        """Read the list, as far as it can be read."""
        try:
            await self._read_list()
        except DatadogError as error:
            # What no page held is asked for by itself. If that fails, too, its error is the answer for its ID.
            _logger.info("the list of tokens could not be read, so they are fetched one by one: %s", error)

    async def _read_list(self, first: Page[AccessToken] | None = None, most: int = sys.maxsize) -> None:
        # What the total leaves out is asked for by itself, so the total may be trusted.
        concurrency = self._requests.concurrency
        pages = read_pages(self._read_page, concurrency, size=LARGEST_PAGE, trust_total=True, first=first, most=most)
        async with aclosing(pages):
            async for _ in pages:
                pass

    async def _read_page(self, number: int) -> Page[AccessToken]:
        """Read a page, and keep its tokens even if the pages before it do not come in time."""
        page = await self._requests.read_page(number)
        self._keep(page)
        return page

    def _keep(self, page: Page[AccessToken]) -> None:
        self.known |= {canonical_id(token.id): token for token in page.items}

    async def fetch(self, token_id: Any) -> AccessToken:
        """Return the token from the list, or get it."""
        token = self.known.get(canonical_id(token_id))
        return token if token is not None else await self._requests.get(token_id)


class ListIfCheaper(ListFirst):
    """Looks at the list's first page, and goes on with whichever needs fewer requests.

    That page is asked for once, for 1 s at most. If it does not come, the IDs are fetched one by one.
    """

    def __init__(self, requests: TokenRequests, ids: Collection[object]) -> None:
        super().__init__(requests)
        self._ids = ids

    async def prepare(self) -> None:
        """Look at the first page, and read the others if that saves requests."""
        if await self._count_missing(FEWEST_LISTED) < FEWEST_LISTED:
            return
        try:
            page = await self._requests.try_first_page()
            self._keep(page)
            if page.total is None or not page.items:
                return
            more_pages = -(-page.total // len(page.items)) - 1
            if more_pages > 0 and await self._count_missing(more_pages + 1) > more_pages:
                await self._read_list(page, 1 + more_pages + 1)  # one more, if tokens are created meanwhile
        except DatadogError as error:
            _logger.info("the list of tokens was not used, so they are fetched one by one: %s", error)

    async def _count_missing(self, most: int) -> int:
        """Count the different IDs that are not found yet and cost a request each; stop at `most`."""
        missing: set[str] = set()
        try:
            for number, value in enumerate(self._ids, 1):
                token_id = as_text(value)
                if isinstance(token_id, str) and _costs_a_request(token_id):
                    key = canonical_id(token_id)
                    if key not in self.known:
                        missing.add(key)
                        if len(missing) >= most:
                            break
                if number % SLICE == 0:
                    await asyncio.sleep(0)
        except Exception:  # noqa: BLE001 - the user's iterable: the fetch that follows raises it again
            return 0
        return len(missing)


def _costs_a_request(token_id: str) -> bool:
    try:
        check_id("token_id", token_id, "get_token")
    except InvalidArgumentError:  # refused at its position, without a request
        return False
    return True
