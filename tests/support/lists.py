"""Lists of a server whose pages are scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.calls import FAST
from support.payloads import resource
from support.replies import ReceivedRequest, Responder, reply

from dd_sa_tokens import (
    TokensClient,
)
from dd_sa_tokens.testing import FakeDatadog


def connected(datadog: FakeDatadog, **options: Any) -> TokensClient:
    """Make a client of the fake."""
    keys = {"base_url": datadog.url, "api_key": datadog.api_key, "app_key": datadog.app_key}
    return TokensClient(**({"retry": FAST} | keys | options))


class Served:
    """A service account on a raw server.

    Attributes:
        ids: Its tokens, as they are now.
        before: Called with a page's number before it is answered; may give something else to do.
        pages: The numbers of the pages that were asked for.
        gets: The tokens that were asked for.
    """

    def __init__(self, ids: list[str], before: Callable[[int], Responder | None] = lambda _number: None) -> None:
        self.ids = ids
        self.before = before
        self.pages: list[int] = []
        self.gets: list[str] = []

    async def __call__(self, request: ReceivedRequest) -> None:
        """Answer a request."""
        parts = urlsplit(request.target)
        if not parts.path.endswith("/access_tokens"):
            self.gets.append(request.token_id)
            await reply(200 if request.token_id in self.ids else 404)(request)
            return
        query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        size, number = query["page[size]"], query["page[number]"]
        self.pages.append(number)
        act = self.before(number)
        data = [resource(token_id) for token_id in self.ids[number * size : (number + 1) * size]]
        meta = {"page": {"total_filtered_count": len(self.ids)}}
        await (act or reply(200, {"data": data, "meta": meta}))(request)
