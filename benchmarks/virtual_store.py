"""A rate-limit store in virtual time: the script of `RedisStore`, on a real Redis server with a clock that is given."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from dd_sa_tokens.fleet import Lease, LeaseRequest, redis_store

if TYPE_CHECKING:
    import redis

_SERVER_TIME = """local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_GIVEN_TIME = "local now = tonumber(table.remove(ARGV))\n"
_numbers = itertools.count()


class Script:
    """The script, told what time it is.

    Args:
        connection: A connection to a Redis server. Each `Script` has records of its own there.
        clock: Returns seconds since the epoch.
    """

    def __init__(self, connection: redis.Redis, clock: Callable[[], float]) -> None:
        assert _SERVER_TIME in redis_store._SCRIPT
        self._run = connection.register_script(redis_store._SCRIPT.replace(_SERVER_TIME, _GIVEN_TIME))
        self._clock = clock
        self._prefix = f"script{next(_numbers)}:"

    def lease(self, request: LeaseRequest) -> Lease:
        """Carry out one report and lease."""
        keys = [f"{self._prefix}{request.scope}:{name}" for name in (request.record, request.operation)]
        arguments = redis_store._arguments(request)
        return redis_store._read(self._run(keys, [*arguments, round(self._clock() * 1000)]))


@attrs.define
class VirtualStore:
    """A store at the other end of a line of some length."""

    script: Script
    latency: float = 0.001  # seconds of a round trip
    away: bool = False  # whether it gives no answer
    requests: list[LeaseRequest] = attrs.Factory(list[LeaseRequest])  # what it was asked

    def check(self) -> None:
        """Be usable always."""

    async def lease(self, request: LeaseRequest) -> Lease | None:
        """Answer after half the way there and half the way back."""
        self.requests.append(request)
        await asyncio.sleep(self.latency / 2)
        lease = None if self.away else self.script.lease(request)
        await asyncio.sleep(self.latency / 2)
        return lease
