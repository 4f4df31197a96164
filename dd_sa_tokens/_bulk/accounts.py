"""Finding service accounts by their IDs with few requests: among the pages of the users, or one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from itertools import islice

import attrs

from dd_sa_tokens._pagination import ReadPage, list_all
from dd_sa_tokens._protocol.documents import Page
from dd_sa_tokens._protocol.organization import OtherRow
from dd_sa_tokens._validation import LARGEST_PAGE, canonical_id
from dd_sa_tokens.errors import NotFoundError
from dd_sa_tokens.models import ServiceAccount

User = ServiceAccount | OtherRow
"""A user: a service account or a person."""


@attrs.frozen
class UserRequests:
    """The requests that find users.

    Attributes:
        read_page: Reads a page of the users by its number.
        get: Gets a user by the ID; `None` if only the pages say which users match.
        concurrency: Most requests in flight.
    """

    read_page: ReadPage[User]
    get: Callable[[str], Awaitable[User]] | None
    concurrency: int


async def find_accounts(account_ids: Sequence[str], requests: UserRequests) -> AsyncGenerator[ServiceAccount, None]:
    """Yield the service accounts that have these IDs, each once. IDs without a service account are skipped.

    The first page of users says how many there are. The accounts that it does not hold come with whichever needs fewer
    requests: a get for each of them, or the further pages.
    """
    missing = {canonical_id(account_id): account_id for account_id in account_ids}
    first = await requests.read_page(0)
    for account in _take(first.items, missing):
        yield account
    if requests.get is None or not _prefers_gets(len(missing), first):
        found = _read_on(first, missing, requests)
    else:
        found = _get_each([*missing.values()], requests.get, requests.concurrency)
    async with aclosing(found):
        async for account in found:
            yield account


def _prefers_gets(missing: int, first: Page[User]) -> bool:
    if first.total is None:  # then the number of pages is unknown, and that of gets is not
        return True
    return missing <= -(-first.total // LARGEST_PAGE) - 1


def _take(users: Iterable[User], missing: dict[str, str]) -> list[ServiceAccount]:
    """Return the users that were missing, and remove them there. A person is no longer missing, either."""
    wanted = [user for user in users if missing.pop(canonical_id(user.id), None) is not None]
    return [user for user in wanted if isinstance(user, ServiceAccount)]


async def _read_on(
    first: Page[User], missing: dict[str, str], requests: UserRequests
) -> AsyncGenerator[ServiceAccount, None]:
    """Read the pages after the first one until no account is missing."""
    unread: list[Page[User]] = [first]

    async def read(number: int) -> Page[User]:
        # A second pass over the list reads the first page again.
        return unread.pop() if number == 0 and unread else await requests.read_page(number)

    users = list_all(read, requests.concurrency, size=LARGEST_PAGE)
    async with aclosing(users):
        while missing and (user := await anext(users, None)) is not None:
            for account in _take([user], missing):
                yield account


async def _get_each(
    account_ids: Iterable[str], get: Callable[[str], Awaitable[User]], concurrency: int
) -> AsyncGenerator[ServiceAccount, None]:
    """Get each account by itself, in order."""
    waiting = iter(account_ids)
    in_flight: deque[asyncio.Future[User]] = deque()
    try:
        while True:
            in_flight.extend(map(asyncio.ensure_future, map(get, islice(waiting, concurrency - len(in_flight)))))
            if not in_flight:
                return
            try:
                user = await in_flight.popleft()
            except NotFoundError:
                continue
            if isinstance(user, ServiceAccount):
                yield user
    finally:
        for request in in_flight:
            request.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
