"""Organizations of a server whose pages are scripted: service tokens, personal tokens and users."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens._protocol.responses import Response

from .payloads import resource
from .replies import ReceivedRequest, Responder, reply

Row = dict[str, Any]

NOW = 1_800_000_000.0  # seconds since the epoch: all rows are older


def ids(count: int, kind: int = 0) -> list[str]:
    """Return the IDs of tokens, in the API's form; each kind has its own."""
    return [token_id_of(number, kind) for number in range(count)]


def token_id_of(number: int, kind: int = 0) -> str:
    """Return the ID of a token by its number."""
    return f"c0ffee{kind:02x}-0000-4000-8000-{number:012x}"


def personal(token_id: str, **attributes: Any) -> Row:
    """Return a personal token, with the hundreds of scopes that such a token can have."""
    scopes = [f"scope_{number}_read" for number in range(300)]
    row = resource(token_id, scopes=scopes, **attributes)
    owner = {"owned_by": {"data": {"id": "a user", "type": "users"}}}
    return row | {"type": "personal_access_tokens", "relationships": owner}


def owned(token_id: str, account_id: str) -> Row:
    """Return a token of a service account."""
    return resource(token_id) | {"relationships": {"owned_by": {"data": {"id": account_id, "type": "service_account"}}}}


def user(user_id: str, **attributes: Any) -> Row:
    """Return a user, who is a service account unless the attributes say otherwise."""
    known = {
        "name": f"name of {user_id}",
        "handle": user_id,
        "created_at": "2025-05-12T09:53:43.305109+00:00",
        "email": "robots@example.com",
        "service_account": True,
        "disabled": False,
        "status": "Active",
    }
    return {"id": user_id, "type": "users", "attributes": known | attributes}


class ServedRows:
    """A list on a raw server, of the organization's tokens or of its users.

    Attributes:
        rows: The rows, as they are now.
        before: Called with a page's number before it is answered; may give something else to do.
        date: The `Date` header of the answers, if any.
        pages: The numbers of the pages that were asked for.
        queries: The queries that came, as pairs.
    """

    def __init__(
        self, rows: Iterable[Row], before: Callable[[int], Responder | None] = lambda _number: None, date: str = ""
    ) -> None:
        self.rows = list(rows)
        self.before = before
        self.date = date
        self.pages: list[int] = []
        self.queries: list[list[tuple[str, str]]] = []

    async def __call__(self, request: ReceivedRequest) -> None:
        """Answer a request."""
        query = urlsplit(request.target).query
        self.queries.append(parse_qsl(query))
        values = parse_qs(query)
        size, number = int(values["page[size]"][0]), int(values["page[number]"][0])
        self.pages.append(number)
        act = self.before(number)
        owners = values.get("filter[owned_by]")
        rows = [row for row in self.rows if owners is None or _owner(row) in owners]
        data, meta = rows[number * size : (number + 1) * size], {"page": {"total_filtered_count": len(rows)}}
        headers = {"Date": self.date} if self.date else {}
        await (act or reply(200, {"data": data, "meta": meta}, headers))(request)

    @property
    def owners(self) -> list[list[str]]:
        """The owners that each request named."""
        return [[value for name, value in query if name == "filter[owned_by]"] for query in self.queries]


def page_number(request: Request[Any]) -> int:
    """Return the number of the page that a request asks for."""
    return int(parse_qs(urlsplit(request.path).query)["page[number]"][0])


def decode_page_of(request: Request[Any], rows: Iterable[Row], total: int) -> Any:
    """Return what a request makes of an answer with these rows, without a server."""
    document = {
        "data": list(rows),
        "meta": {"page": {"total_filtered_count": total}},
        "included": [{"id": "role"}] * 50,
    }
    return request.operation.decode(request, Response(200, {}, json.dumps(document).encode(), None, NOW))


def _owner(row: Row) -> str:
    return str(row["relationships"]["owned_by"]["data"]["id"])
