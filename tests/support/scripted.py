"""A fake Datadog server that records the methods of requests, and fails by method."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any

from aiohttp import web

from dd_sa_tokens import TokensClient
from dd_sa_tokens.testing import FakeDatadog

PLENTY = (1_000_000, 10.0)


class ScriptedDatadog(FakeDatadog):
    """A fake server with faults for each method. It remembers the keys of all tokens that were created.

    Attributes:
        asked: The methods of the requests, in the order in which they came.
        keys: The key of each token that was created, also of revoked ones, by the ID of the token.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **({"rate_limit": PLENTY} | options))
        self.asked: list[str] = []
        self.keys: dict[str, str] = {}
        self._planned: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)

    def fail(self, method: str, count: int = 1, **fault: Any) -> None:
        """Script a fault of `fail_next` for the next requests of a method; without a fault they pass."""
        self._planned[method].extend([fault or {"stall": 0.0}] * count)

    def calm_down(self) -> None:
        """Forget the faults that are still pending."""
        self._planned.clear()
        self.clear_faults()

    def works(self, token_id: str) -> bool:
        """Return whether the key of a token that was created here is valid."""
        return self._accounts.admits(self.keys[token_id], time.time())

    def signed_with(self, token_id: str, **options: Any) -> TokensClient:
        """Return a client that signs with the key of a token that was created here."""
        return TokensClient(**({"base_url": self.url, "access_token": self.keys[token_id]} | options))

    def secrets(self) -> list[str]:
        """Return the secret parts of the keys; the part before them is the public portion."""
        return [key.rpartition("_")[2] for key in self.keys.values()]

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(request.method)
        planned = self._planned[request.method]
        if planned:
            self.fail_next(**planned.popleft())
        try:
            return await super()._serve(request)
        finally:
            self.keys |= {record.token.id: key for key, record in self._accounts._keyed.items()}
