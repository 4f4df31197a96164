"""Lists that change while they are read, and totals that are wrong, over real sockets: no token is missed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.calls import Connect
from support.keys import ACCOUNT
from support.payloads import resource
from support.replies import ReceivedRequest, reply
from support.servers import RawServer

from dd_sa_tokens import APIError, NotFoundError

COUNT = 250
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


class MovingList:
    """A list of tokens that a script changes before it answers a page.

    Attributes:
        rows: The tokens' attributes by their IDs, in the order of the list.
        changes: What happens before a page is answered, by its number; each happens once.
        total: Makes the total that the pages give of the true one.
        dated: Whether answers have a `Date`.
        beyond: The status of a page past the end.
        pages: The numbers of the pages that were asked for.
    """

    def __init__(self, count: int = COUNT) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.changes: dict[int, Callable[[], None]] = {}
        self.total: Callable[[int], object] = lambda true: true
        self.dated = True
        self.beyond = 200
        self.pages: list[int] = []
        for number in range(count):
            self.create(f"t{number}", LONG_AGO)

    def create(self, token_id: str, at: datetime | None = None) -> None:
        """Add a token at the end."""
        self.rows[token_id] = {"created_at": (at or now()).isoformat()}

    def revoke(self, token_id: str) -> None:
        """Remove a token."""
        del self.rows[token_id]

    def update(self, token_id: str, *, listed_before: bool = True) -> None:
        """Change a token. If it was not listed before (a filter), it is now the last one."""
        if not listed_before:
            self.create(token_id, LONG_AGO)
        self.rows[token_id]["modified_at"] = now().isoformat()

    def move_to_the_end(self, token_id: str) -> None:
        """Let another value, by which the list is sorted, make a token the last one."""
        self.rows[token_id] = self.rows.pop(token_id)

    async def __call__(self, request: ReceivedRequest) -> None:
        """Answer a page, or a single token."""
        parts = urlsplit(request.target)
        if not parts.query.startswith("page"):
            await reply(200 if request.token_id in self.rows else 404)(request)
            return
        query = parse_qs(parts.query)
        size, number = int(query["page[size]"][0]), int(query["page[number]"][0])
        self.pages.append(number)
        if self.beyond != 200 and number * size >= len(self.rows):
            await reply(self.beyond)(request)
            return
        self.changes.pop(number, lambda: None)()
        ids = list(self.rows)[number * size : (number + 1) * size]
        document = {
            "data": [resource(token_id, **self.rows[token_id]) for token_id in ids],
            "meta": {"page": {"total_filtered_count": self.total(len(self.rows))}},
        }
        dated = {"Date": formatdate(time.time(), usegmt=True)} if self.dated else {}
        await reply(200, json.dumps(document).encode(), dated)(request)


@pytest.fixture
def moving(server: RawServer) -> MovingList:
    """A list of 250 tokens, on a server."""
    moving = MovingList()
    server.script(otherwise=moving)
    return moving


async def listed(connect: Connect, **options: Any) -> list[str]:
    return [token.id async for token in connect(concurrency=1).list_tokens(ACCOUNT, **options)]


def replace(moving: MovingList, gone: str) -> None:
    moving.revoke(gone)
    moving.create("new")


def join_a_filter(moving: MovingList) -> None:
    moving.revoke("t5")
    moving.update("joined", listed_before=False)


CHANGES: dict[str, dict[int, Callable[[MovingList], None]]] = {
    "one of the first page is replaced": {1: lambda moving: replace(moving, "t5")},
    "one of the second page is replaced": {2: lambda moving: replace(moving, "t150")},
    "one is replaced, then one is revoked": {
        1: lambda moving: replace(moving, "t5"),
        2: lambda moving: moving.revoke("t7"),
    },
    "one is revoked": {1: lambda moving: moving.revoke("t5")},
    "one is created": {2: lambda moving: moving.create("new")},
    "one moves to the end": {1: lambda moving: moving.move_to_the_end("t5")},
    "one is revoked, and one moves into the filter": {1: join_a_filter},
    "two are replaced": {1: lambda moving: (replace(moving, "t5"), moving.revoke("t6"), moving.create("new2"))[0]},
}


@pytest.mark.parametrize("dated", [True, False], ids=["dated", "no Date"])
@pytest.mark.parametrize("name", CHANGES)
async def test_a_token_that_exists_throughout_is_listed(
    moving: MovingList, connect: Connect, name: str, dated: bool
) -> None:
    """Rows move while a list is read once: each token that was there all the time is given, and none twice."""
    moving.dated = dated
    before = set(moving.rows)
    moving.changes = {number: lambda change=change: change(moving) for number, change in CHANGES[name].items()}
    found = await listed(connect)
    assert before & set(moving.rows) <= set(found)
    assert len(found) == len(set(found))
    assert len(moving.pages) <= 2 * (COUNT // 100 + 2)


async def test_a_list_that_does_not_move_is_read_once(moving: MovingList, connect: Connect) -> None:
    """250 tokens take three requests, also if one of them was made shortly before, and if another one is updated."""
    moving.rows["t249"]["created_at"] = (now() - timedelta(seconds=2)).isoformat()
    moving.rows["t3"]["modified_at"] = (now() - timedelta(seconds=2)).isoformat()
    assert await listed(connect) == list(moving.rows)
    assert moving.pages == [0, 1, 2]


TOTALS: dict[str, Callable[[int], object]] = {
    "100": lambda _: 100,
    "1": lambda _: 1,
    "0": lambda _: 0,
    "99": lambda _: 99,
    "249": lambda _: 249,
    "251": lambda _: 251,
    "10,000": lambda _: 10_000,
    "none": lambda _: None,
}


@pytest.mark.parametrize("size", [100, 50, 7])
@pytest.mark.parametrize("total", TOTALS.values(), ids=list(TOTALS))
async def test_a_wrong_total_hides_no_token(
    moving: MovingList, connect: Connect, total: Callable[[int], object], size: int
) -> None:
    """All 250 tokens are listed with any total, in few more requests than their pages."""
    moving.total = total
    assert await listed(connect, page_size=size) == list(moving.rows)
    assert max(moving.pages) <= COUNT // size + 2


@pytest.mark.parametrize("strategy", ["list", "auto"])
@pytest.mark.parametrize("total", TOTALS.values(), ids=list(TOTALS))
async def test_a_wrong_total_hides_no_token_from_a_fetch(
    moving: MovingList, connect: Connect, total: Callable[[int], object], strategy: Any
) -> None:
    """A bulk fetch gives all 250, too."""
    moving.total = total
    ids = list(moving.rows)
    result = await connect().get_tokens(ACCOUNT, ids, strategy=strategy)
    assert [item.unwrap().id for item in result] == ids


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("strategy", ["list", "auto"])
async def test_a_fetch_of_a_moving_list_has_every_token(
    moving: MovingList, connect: Connect, name: str, strategy: Any
) -> None:
    """A bulk fetch asks by itself for what slipped through the pages, so nothing that exists is a 404."""
    ids = list(moving.rows)
    moving.changes = {number: lambda change=change: change(moving) for number, change in CHANGES[name].items()}
    result = await connect(concurrency=1).get_tokens(ACCOUNT, ids, strategy=strategy)
    assert {item.token_id for item in result if not item.ok} <= set(ids) - set(moving.rows)


@pytest.mark.parametrize("status", [400, 404, 416, 422])
async def test_a_server_that_refuses_a_page_past_the_end(moving: MovingList, connect: Connect, status: int) -> None:
    """A list whose last page is full ends there, if all have come and the next page is refused as none of its pages."""
    moving.rows = dict(list(moving.rows.items())[:200])
    moving.beyond = status
    assert len(await listed(connect)) == 200
    assert moving.pages == [0, 1, 2]


@pytest.mark.parametrize("status", [401, 403])
async def test_other_errors_of_a_page_past_the_end(moving: MovingList, connect: Connect, status: int) -> None:
    """An error that says nothing about the page is raised."""
    moving.rows = dict(list(moving.rows.items())[:200])
    moving.beyond = status
    with pytest.raises(APIError) as caught:
        await listed(connect)
    assert caught.value.status == status


async def test_a_page_that_is_refused_before_all_have_come(moving: MovingList, connect: Connect) -> None:
    """As long as the total promises more, a refused page is an error."""
    moving.rows = dict(list(moving.rows.items())[:200])
    moving.total, moving.beyond = lambda true: true + 1, 404
    with pytest.raises(NotFoundError):
        await listed(connect)


@pytest.mark.parametrize(("total", "said"), [(250, False), (240, False), (350, True)])
async def test_a_list_that_ends_before_its_total_is_reached(
    moving: MovingList, connect: Connect, caplog: pytest.LogCaptureFixture, total: int, said: bool
) -> None:
    """It is logged, with both numbers, that tokens may be missing."""
    moving.total = lambda _true: total
    assert len(await listed(connect)) == 250
    assert ("a list ended after 250 items, but its last page says that there are 350" in caplog.text) == said
