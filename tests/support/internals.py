"""What tests read or change inside the package.

A rename of a private name in the package changes this file alone, and `scripted.py`, whose fake server overrides some.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from yarl import URL

from dd_sa_tokens import AccessToken, TokensClient
from dd_sa_tokens import client as client_module
from dd_sa_tokens._bulk import strategy
from dd_sa_tokens._bulk.fetcher import Fetcher
from dd_sa_tokens._bulk.worker_pool import WorkerPool
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._credentials import Credentials
from dd_sa_tokens._execution import Executor, executor
from dd_sa_tokens._protocol import codec, documents
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens._ratelimit import Permit, RateLimiter
from dd_sa_tokens._ratelimit.leased_window import LeasedWindow
from dd_sa_tokens._ratelimit.window import RateLimitWindow
from dd_sa_tokens._rotation import saga
from dd_sa_tokens.testing import FakeDatadog

# A client's requests


def in_flight(client: TokensClient) -> int:
    """Return the number of requests that the rate limiter let pass and that are not answered yet."""
    return client._limiter.in_flight


def waiting(client: TokensClient) -> int:
    """Return the number of calls that wait for the rate limiter."""
    return waiting_at(client._limiter)


def counted_in_windows(client: TokensClient) -> int:
    """Return the number of requests that the rate-limit windows count as in flight."""
    return sum(bucket.window.in_flight for bucket in client._limiter._buckets.all)


def on_the_wire(client: TokensClient) -> int:
    """Return the number of attempts that the transport is making."""
    return len(client._executor._transport._exchanges)


def is_open(client: TokensClient) -> bool:
    """Return whether the client has not been closed."""
    return not client._executor.closed


async def send(client: TokensClient, request: Request[Any]) -> Any:
    """Send a request that the client has no method for."""
    return await client._executor.send(request, client._options)


def answer_requests(client: TokensClient, answer: Callable[[Request[Any]], Any]) -> None:
    """Let a function answer a client's requests, in place of a server: for lists that are too long for sockets."""

    async def send(request: Request[Any], *_options: object) -> Any:
        await asyncio.sleep(0)
        return answer(request)

    client._executor.send = send  # type: ignore[method-assign]  # the test's own answers


def replace_transport(client: TokensClient, transport: Any) -> None:
    """Let a client send its requests through another transport."""
    client._executor._transport = transport


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Let clients that are made meanwhile take the time from a clock."""
    made, client_module.Clock = client_module.Clock, lambda: clock  # type: ignore[assignment, misc] # a class
    try:
        yield
    finally:
        client_module.Clock = made  # type: ignore[misc] # a class


def bound_of(view: TokensClient) -> int:
    """Return the number of requests in flight that count for the view's own concurrency."""
    bound = view._options.bound
    assert bound is not None
    return bound.in_flight


def expire_attempts(client: TokensClient) -> None:
    """Let the time of all attempts be up now."""
    transport = client._executor._transport
    for exchange in transport._exchanges:
        exchange.deadline = 0.0
    transport.expire()


def point_at(client: TokensClient, url: str) -> None:
    """Let a client that exists already send to another server."""
    client._executor._transport._base_url = URL(url)


def confirm_window(client: TokensClient, operation: str) -> None:
    """Let the rate limiter take the current window for confirmed, so that the next request need not wait."""
    client._limiter._routes[operation].bucket.window.confirmed = True


def stop_budget_refill(client: TokensClient) -> None:
    """Let the retry budget get nothing back as time passes."""
    client._executor._budget.per_second = 0.0


def replace_retry_sleep(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Let all clients await `sleep(seconds)` between attempts, instead of sleeping."""

    async def replacement(_executor: Executor, seconds: float) -> None:
        await sleep(seconds)

    monkeypatch.setattr(Executor, "_sleep", replacement)


def replace_base_url(monkeypatch: pytest.MonkeyPatch, read: Callable[[object, object], str]) -> None:
    """Let new clients take their base URL from `read(site, base_url)`."""
    monkeypatch.setattr(client_module, "read_base_url", read)


def parts(client: TokensClient) -> list[object]:
    """Return the objects that a client is made of and that keys could show in."""
    return [client._executor, client._executor._transport, client._limiter]


def windows(client: TokensClient) -> list[object]:
    """Return what the rate limiter knows of each limit."""
    return list(client._limiter._buckets.all)


def headers_held(credentials: Credentials) -> object:
    """Return the headers as the credentials keep them."""
    return credentials._headers


# Connections


def session_of(client: TokensClient) -> aiohttp.ClientSession | None:
    """Return the session that the client uses; `None` before it has opened one."""
    return client._executor._transport._session


def connections_in_use(session: aiohttp.ClientSession) -> int:
    """Return the number of a session's connections that a request holds."""
    assert session.connector is not None
    return len(session.connector._acquired)


def connections_kept(session: aiohttp.ClientSession) -> int:
    """Return the number of a session's connections that are open and that no request holds."""
    assert session.connector is not None
    return sum(map(len, session.connector._conns.values()))


# The rate limiter


def waiting_at(limiter: RateLimiter) -> int:
    """Return the number of calls that wait for a rate limiter."""
    return sum(len(queue.waiters) for bucket in limiter._buckets.all for queue in bucket.queues.values())


def could_pass(limiter: RateLimiter) -> bool:
    """Return whether a call waits for a rate limiter although it may go."""
    queues = [(bucket.window, queue) for bucket in limiter._buckets.all for queue in bucket.queues.values()]
    return limiter.in_flight < limiter.concurrency and any(
        not queue.is_bound and window.can_send(limiter._now(), queue.reserve) for window, queue in queues
    )


def window_of(limiter: RateLimiter, operation: str) -> RateLimitWindow:
    """Return the window of an operation's limit."""
    return limiter._routes[operation].bucket.window


def replace_window(limiter: RateLimiter, operation: str, window: Any) -> None:
    """Let a limiter ask another object for an operation's window."""
    limiter._routes[operation].bucket.window = window


def by_headers(limiter: RateLimiter) -> bool:
    """Return whether a limiter uses the headers of its own answers only."""
    return all(window._leases.by_headers for window in _leased_windows(limiter))


def unspent(limiter: RateLimiter) -> int:
    """Return the number of permits that a limiter has leased and not used."""
    return sum(window._leases.unspent for window in _leased_windows(limiter))


def _leased_windows(limiter: RateLimiter) -> list[LeasedWindow]:
    return [bucket.window for bucket in limiter._buckets.all if isinstance(bucket.window, LeasedWindow)]


def probe_of(window: RateLimitWindow) -> Permit | None:
    """Return the permit of the request that a window waits for, before it lets others pass."""
    return window.probe.permit


# Bulk


def pool_sizes(pool: WorkerPool) -> dict[str, int]:
    """Return the size of each thing that a worker pool keeps."""
    return {
        "workers": len(pool._workers),
        "in flight": len(pool._fetcher._in_flight),
        "ready": len(pool._ready),
        "idle": len(pool._idle),
        "outstanding": pool._outstanding,
    }


def duplicates_kept(fetcher: Fetcher) -> int:
    """Return the number of IDs whose duplicates wait for an answer."""
    return len(fetcher._in_flight._duplicates)


def look_at_lists_for(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the strategy "auto" look at the list for so many IDs, instead of 20."""
    monkeypatch.setattr(strategy, "FEWEST_LISTED", count)


def look_at_lists_within(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the look at a list take so many seconds at most, instead of 1."""
    monkeypatch.setattr(executor, "_QUICK", seconds)


# Decoding and rotation


def json_loads_strictly(content: bytes) -> Any:
    """Parse JSON with the standard library, as the package does where orjson is not installed."""
    return documents._loads_strictly(content)


def decode_with(monkeypatch: pytest.MonkeyPatch, loads: Callable[[bytes], Any]) -> None:
    """Let all bodies be parsed by `loads`."""
    monkeypatch.setattr(documents, "_loads", loads)


def structure_by_cattrs(resource: Any, leaks: Any) -> AccessToken:
    """Make a token of a resource without the fast path."""
    return codec._structure_any(resource, leaks)


def without_cattrs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a resource fail that does not take the fast path."""
    monkeypatch.delattr(codec, "_structure_any")


def undo_within(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let a cancelled rotation give up revoking the new token after so many seconds."""
    monkeypatch.setattr(saga, "_UNDO_WITHIN", seconds)


# The fake server


def forget_faults(datadog: FakeDatadog) -> None:
    """Drop the faults that a fake server has not applied yet."""
    datadog.clear_faults()


def set_latency(datadog: FakeDatadog, seconds: float) -> None:
    """Change the time that a fake server takes for each answer."""
    datadog._service._latency = seconds


def texts_of(datadog: FakeDatadog) -> str:
    """Return the reprs of a fake and of all that it holds."""
    accounts = datadog._accounts
    records = [record for account in accounts._accounts.values() for record in account.values()]
    service = datadog._service
    return f"{datadog!r} {accounts!r} {records!r} {datadog.tokens!r} {datadog.received!r} {vars(service)!r}"


# Python


def base_python() -> str:
    """Return the Python that the running virtual environment was made from."""
    return sys._base_executable


class LoopPasses:
    """Counts the passes of the running event loop: one that spins makes thousands in the time of a few.

    Attributes:
        count: The passes so far.
    """

    def __init__(self) -> None:
        self.count = 0
        loop: Any = asyncio.get_running_loop()
        run_once = loop._run_once

        def counted() -> None:
            self.count += 1
            run_once()

        loop._run_once = counted
