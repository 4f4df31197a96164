"""A client whose requests never reach a socket: a server in memory answers them, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import attrs

from dd_sa_tokens import TokensClient
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens._protocol.responses import Response

from .internals import replace_transport, use_clock
from .keys import KEYS
from .payloads import resource
from .virtual_time import CountingServer, now, wall

ROUND_TRIP = 0.1  # seconds


@attrs.define(eq=False)
class MemoryTransport:
    """Answers each request with its token, half a round trip after it was counted.

    Attributes:
        server: Counts the requests.
        round_trip: Gives the seconds that a request and its answer take.
        in_flight: Requests that are not answered.
        most_in_flight: The largest number of these.
        sent: The IDs that were asked for, in order.
    """

    server: CountingServer
    round_trip: Callable[[], float] = lambda: ROUND_TRIP
    in_flight: int = 0
    most_in_flight: int = 0
    sent: list[str] = attrs.field(factory=list[str])

    def open(self) -> None:
        """Do nothing: there is no session."""

    async def close(self) -> None:
        """Do nothing: there is no session."""

    async def send(self, request: Request[Any], timeout: float) -> Response:  # noqa: ASYNC109 - as the real one
        """Make one attempt."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        token_id, seconds = request.path.rsplit("/", 1)[1], self.round_trip()
        self.sent.append(token_id)
        try:
            await asyncio.sleep(seconds / 2)
            rate, status = self.server.spend()
            await asyncio.sleep(seconds / 2)
        finally:
            self.in_flight -= 1
        body = {"data": resource(token_id)} if status == 200 else {"errors": ["too many requests"]}
        return Response(status, {}, json.dumps(body).encode(), rate, wall())


def client_of(transport: MemoryTransport, **options: Any) -> TokensClient:
    """Return a client in virtual time that sends its requests through a transport."""
    with use_clock(Clock(now, wall)):
        client = TokensClient(**KEYS, base_url="http://127.0.0.1:1", **options)
    replace_transport(client, transport)
    return client
