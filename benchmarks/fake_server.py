"""A fake Datadog server in a process of its own, and the clients that fetch from it in theirs."""

from __future__ import annotations

import asyncio
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any
from zlib import crc32

import attrs

from dd_sa_tokens import AccessToken

from .internals import ObservedDatadog
from .payloads import Target
from .processes import Child, start


@attrs.frozen
class Account:
    """A server, and a fingerprint of each token that it holds, by ID."""

    target: Target
    fingerprints: dict[str, int]


@attrs.frozen
class ServerLog:
    """What a fake server saw: requests received, 429s sent, requests admitted by window, faults injected by name."""

    requests: int
    rejected: int
    admitted: list[int]
    faults: Counter[str]


def fingerprint(token: AccessToken) -> int:
    """Return a number that changes if any value of a token does."""
    return crc32(repr(token).encode())


def start_fake(options: dict[str, Any], core: int | None = None) -> Child:
    """Start an `ObservedDatadog` with these arguments; the child's first value is an `Account`."""
    return start(_serve, options, core=core)


def stop_fake(server: Child) -> ServerLog:
    """Stop the server, and return what it saw."""
    server.pipe.send(None)
    return server.pipe.recv()


def _serve(pipe: Connection, options: dict[str, Any]) -> None:
    async def run() -> None:
        async with ObservedDatadog(**options) as datadog:
            keys = {"api_key": datadog.api_key, "app_key": datadog.app_key}
            fingerprints = {token.id: fingerprint(token) for token in datadog.tokens}
            pipe.send(Account(Target(datadog.url, keys, datadog.service_account_id), fingerprints))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            pipe.send(ServerLog(datadog.requests, datadog.rejected, datadog.admitted, datadog.faults))

    asyncio.run(run())
