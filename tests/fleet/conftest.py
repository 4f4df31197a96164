"""Fixtures: a Redis server that the tests of a file share, and one of its own for a test that hurts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from benchmarks.redis_server import RedisServer, find_redis_server

BINARY = find_redis_server()


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    """A server that the tests of a file share: each uses keys of its own."""
    if BINARY is None:
        pytest.skip("there is no redis-server")
    server = RedisServer(BINARY)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connection(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    """A connection to the shared server."""
    with shared_redis.connect() as connection:
        yield connection


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start servers that end with the test."""
    if BINARY is None:
        pytest.skip("there is no redis-server")
    binary = BINARY
    with ExitStack() as stack:

        def start(*options: str) -> RedisServer:
            server = RedisServer(binary, *options)
            stack.callback(server.stop)
            server.start()
            return server

        yield start
