"""The private parts of dd_sa_tokens that the benchmarks and the simulation use; `virtual_store` has those of the fleet.

No other file of the benchmarks imports a private name, so a change of one changes these two alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from aiohttp import web

from dd_sa_tokens import AccessToken, TokensClient
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._protocol import documents
from dd_sa_tokens._protocol.codec import decode_token, decode_tokens
from dd_sa_tokens._protocol.documents import Page
from dd_sa_tokens._protocol.headers import parse_rate_limit
from dd_sa_tokens._protocol.responses import Response
from dd_sa_tokens._ratelimit import RateLimiter, RateLimitStore, share_limits
from dd_sa_tokens.testing import FakeDatadog, FixedWindow

__all__ = (
    "Clock", "FixedWindow", "ObservedDatadog", "RateLimitStore", "Response", "decode_page", "decode_token",
    "json_module", "make_limiter", "make_response", "replace_transport", "without_orjson",
)  # fmt: skip


def decode_page(body: bytes) -> Page[AccessToken]:
    """Decode a page of a list."""
    return decode_tokens(body, 0.0)


def make_response(status: int, headers: Mapping[str, str], body: bytes, received: float) -> Response:
    """Make a response as the transport would, its rate-limit headers parsed."""
    return Response(status, headers, body, parse_rate_limit(headers, received, str), received)


def json_module() -> str:
    """Return the name of the JSON library that the package has found: "orjson" or "json"."""
    return "orjson" if documents._loads.__module__.partition(".")[0] == "orjson" else "json"


def without_orjson() -> AbstractContextManager[Any]:
    """Let the package decode with the standard library's JSON, as if orjson were not installed."""
    from unittest import mock

    return mock.patch.object(documents, "_loads", documents._loads_strictly)


def replace_transport(client: TokensClient, transport: Any) -> None:
    """Let a client send its requests through a transport without sockets."""
    client._executor._transport = transport


def make_limiter(concurrency: int, clock: Clock = Clock(), store: RateLimitStore | None = None) -> RateLimiter:
    """Make the package's own rate limiter; with a store, one that shares the limit."""
    return RateLimiter(concurrency, clock=clock, shared=share_limits(store, "https://api.test"))


class _CountingWindow(FixedWindow):
    """Counts the requests that it admits, and can leave the reset out."""

    def __init__(self, window: FixedWindow, used: int, *, has_reset: bool) -> None:
        super().__init__(window.limit, window.period, window.rounding, used, window.name)
        self.admitted: Counter[float] = Counter()
        self._has_reset = has_reset

    def spend(self, now: float) -> tuple[bool, dict[str, str]]:
        admitted, headers = super().spend(now)
        self.admitted[now // self.period] += admitted
        if not self._has_reset:
            del headers["X-RateLimit-Reset"]
        return admitted, headers


class ObservedDatadog(FakeDatadog):
    """A fake Datadog server that counts what it admits in each window, and what faults it injects.

    Args:
        used: Requests that others have spent of the first window.
        has_reset: Whether responses have `X-RateLimit-Reset`.
        failures: Requests that get a 503, from the first one on.
        fault: Returns the fault for a request by its number, from 1, as a name and the arguments of `fail_next`.
        options: The other arguments of `FakeDatadog`; `rate_limit` is required.
    """

    def __init__(
        self,
        *,
        used: int = 0,
        has_reset: bool = True,
        failures: int = 0,
        fault: Callable[[int], tuple[str, dict[str, Any]] | None] = lambda _: None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        windows = self._service.windows
        self._windows = {name: _CountingWindow(windows[name], used, has_reset=has_reset) for name in windows}
        windows.update(self._windows)
        self._fault = fault
        if failures:
            self.fail_next(failures, status=503)
        self.faults: Counter[str] = Counter()

    @property
    def admitted(self) -> list[int]:
        """Requests admitted in each window, in order."""
        admitted: Counter[float] = sum((window.admitted for window in self._windows.values()), Counter())
        return [count for _, count in sorted(admitted.items())]

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        fault = self._fault(self.requests)
        if fault is not None:
            name, options = fault
            self.fail_next(**options)
            self.faults[name] += 1
        return await super()._serve(request)
