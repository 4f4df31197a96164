"""A list over plain coroutine functions, whose pages the test makes slow, wrong or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
from hypothesis import strategies as st
from support.payloads import names
from support.waiting import HANG, turns

from dd_sa_tokens import (
    AccessToken,
    BadRequestError,
    BulkResult,
    ClientClosedError,
    ConfigurationError,
    DatadogError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
    UnauthorizedError,
)
from dd_sa_tokens._bulk import MakeStrategy, TokenRequests, collect, make_strategy
from dd_sa_tokens._bulk.ids import is_rereadable
from dd_sa_tokens._pagination import list_all, read_pages
from dd_sa_tokens._protocol.documents import Page
from dd_sa_tokens._validation import check_id

CONCURRENCY = 4
SIZE = 5

KINDS: list[type[DatadogError]] = [
    BadRequestError,
    UnauthorizedError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    ServerError,
    TransportError,
    RequestTimeoutError,
    InvalidResponseError,
    ConfigurationError,
    ClientClosedError,
]


def page(ids: Iterable[str], total: int | None) -> Page[AccessToken]:
    return Page(tuple(AccessToken(id=token_id) for token_id in ids), total)


@attrs.define(eq=False)
class Account:
    """A service account that serves pages and tokens, and counts requests.

    Attributes:
        ids: Its tokens, as they are now.
        size: Tokens on a page.
        delay: Turns of the loop that a page takes, for all or by number.
        total: What the pages say, by their number and what is true.
        errors: What pages fail with, by number.
        before: Called with a page's number before it is answered.
    """

    ids: list[str]
    size: int = SIZE
    delay: int | Callable[[int], int] = 1
    total: Callable[[int, int], int | None] = lambda _number, true: true
    errors: dict[int, type[DatadogError]] = attrs.field(factory=dict)
    before: Callable[[int], None] = lambda _number: None
    pages: list[int] = attrs.field(factory=list)
    gets: list[str] = attrs.field(factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def requests(self) -> int:
        """How many it has received."""
        return len(self.pages) + len(self.gets)

    async def read(self, number: int) -> Page[AccessToken]:
        """Serve a page."""
        self.pages.append(number)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await turns(self.delay if isinstance(self.delay, int) else self.delay(number))
        finally:
            self.in_flight -= 1
        self.before(number)
        if number in self.errors:
            raise self.errors[number](f"page {number}")
        return page(self.ids[number * self.size : (number + 1) * self.size], self.total(number, len(self.ids)))

    async def get(self, token_id: Any) -> AccessToken:
        """Serve a token."""
        check_id("token_id", token_id, "get_token")
        self.gets.append(token_id)
        await turns(1)
        if token_id not in self.ids:
            raise NotFoundError(token_id=token_id)
        return AccessToken(id=token_id)

    async def choose(self, strategy: Any, token_ids: Any, concurrency: int = CONCURRENCY) -> Any:
        """Prepare a strategy, and return what it fetches with."""
        made = self.strategy(strategy, concurrency)(token_ids if is_rereadable(token_ids) else None)
        await made.prepare()
        return made.fetch

    def strategy(self, name: Any, concurrency: int = CONCURRENCY) -> MakeStrategy:
        """Return what makes a strategy."""
        return partial(make_strategy, name, TokenRequests(self.get, self.read, partial(self.read, 0), concurrency))

    async def collect(self, strategy: Any, token_ids: Any, concurrency: int = CONCURRENCY) -> BulkResult:
        async with asyncio.timeout(HANG):
            return await collect(token_ids, self.strategy(strategy, concurrency), concurrency)


async def read_all(account: Account, concurrency: int = CONCURRENCY) -> list[list[str]]:
    async with asyncio.timeout(HANG):
        return [
            [token.id for token in page.items]
            async for page, _ in read_pages(account.read, concurrency, size=account.size)
        ]


async def listed(account: Account, concurrency: int = CONCURRENCY, size: int | None = None) -> list[str]:
    async with asyncio.timeout(HANG):
        return [token.id async for token in list_all(account.read, concurrency, size=size or account.size)]


@st.composite
def moods(draw: st.DrawFn) -> Callable[[], Account]:
    """Draw a server whose pages fail, overlap, move, or lie about the total."""
    tokens, size = draw(st.integers(0, 80)), draw(st.integers(1, 12))
    errors = draw(st.dictionaries(st.integers(0, 12), st.sampled_from(KINDS), max_size=3))
    lies = draw(st.lists(st.sampled_from([0, 0, 0, 1, -1, 7, -30, 10**6, None]), min_size=1, max_size=5))
    shifts = draw(st.lists(st.integers(-3, 3), min_size=1, max_size=5))
    delays = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))

    def total(number: int, true: int) -> int | None:
        lie = lies[number % len(lies)]
        return None if lie is None else max(0, true + lie)

    def make() -> Account:
        return Shifting(
            names(tokens), size=size, errors=errors, total=total, delay=lambda number: delays[number % len(delays)]
        ).by(shifts)

    return make


class Shifting(Account):
    """An account whose pages begin a little before or after where they should."""

    def by(self, shifts: list[int]) -> Shifting:
        self.shifts = shifts
        return self

    async def read(self, number: int) -> Page[AccessToken]:
        honest = await super().read(number)
        start = max(0, number * self.size + self.shifts[number % len(self.shifts)])
        return page(self.ids[start : start + self.size], honest.total)
