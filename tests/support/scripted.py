"""A fake Datadog that writes down what it is asked for, and fails by method."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any

from aiohttp import web

from dd_sa_tokens import TokensClient
from dd_sa_tokens.testing import FakeDatadog

PLENTY = (1_000_000, 10.0)


class ScriptedDatadog(FakeDatadog):
    """A fake with faults for each method of its own; it remembers all keys that it ever gave away.

    Attributes:
        asked: The methods of the requests that came, in order.
        keys: The key of each token that was made here, by its ID; of revoked ones, too.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **({"rate_limit": PLENTY} | options))
        self.asked: list[str] = []
        self.keys: dict[str, str] = {}
        self._planned: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)

    def fail(self, method: str, count: int = 1, **fault: Any) -> None:
        """Script a fault of `fail_next` for the next requests of a method; without one they pass."""
        self._planned[method].extend([fault or {"stall": 0.0}] * count)

    def calm_down(self) -> None:
        """Forget the faults that have not come yet."""
        self._planned.clear()
        self.clear_faults()

    def works(self, token_id: str) -> bool:
        """Tell whether a token that was made here can be used."""
        return self._accounts.admits(self.keys[token_id], time.time())

    def signed_with(self, token_id: str, **options: Any) -> TokensClient:
        """Make a client that signs with a token that was made here."""
        return TokensClient(**({"base_url": self.url, "access_token": self.keys[token_id]} | options))

    def secrets(self) -> list[str]:
        """Return the parts of the keys that nobody may see: what comes before them is the public portion."""
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
