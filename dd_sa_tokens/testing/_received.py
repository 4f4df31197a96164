"""What a server remembers of the requests that it has received."""

from __future__ import annotations

from collections import deque

import attrs

from ._routes import Route

MAX_RECEIVED = 100_000


@attrs.frozen
class Received:
    """A request that the server has received. It holds no key."""

    operation: str
    """The client's method that sends such a request: `get_token`, `list_tokens`, `create_token`, `update_token`,
    `revoke_token`, `list_organization_tokens`, `list_service_accounts` or `get_service_account`; `unknown` for any
    other request.
    """

    service_account_id: str | None
    """The service account in the request's path; `None` if there is none."""

    token_id: str | None
    """The token in the request's path; `None` if there is none."""

    status: int | None
    """The status of the answer; `None` if there was no answer, or not yet."""


@attrs.define(eq=False)
class Entry:
    """A request whose answer may still be to come."""

    route: Route
    status: int | None = None


class RequestLog:
    """The requests in the order in which they came: the last 100,000, so that memory is bounded."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MAX_RECEIVED)

    def add(self, route: Route) -> Entry:
        """Add a request that has just come."""
        entry = Entry(route)
        self._entries.append(entry)
        return entry

    def received(self) -> tuple[Received, ...]:
        """Return the requests."""
        return tuple(
            Received(entry.route.operation.name, entry.route.service_account_id, entry.route.token_id, entry.status)
            for entry in self._entries
        )
