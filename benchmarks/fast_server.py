"""A server that is faster than any client, in a process and, where there are two, on a core of its own."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import cast

import attrs

from .machine import event_loops
from .payloads import CONTENT_TYPE, RATE_LIMIT_HEADERS, Target, page_body, reset, token_body
from .processes import reserved_core, start

_HEADERS = {"Content-Type": CONTENT_TYPE} | RATE_LIMIT_HEADERS
_HEAD = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
_PAGE_NUMBER = re.compile(r"page(?:\[|%5B)number(?:\]|%5D)=(\d+)")


@attrs.frozen
class Server:
    """A server that runs: what to ask it for, what it is and where it runs, and its process ID."""

    target: Target
    description: str
    pid: int


@contextmanager
def fast_server(account_size: int = 0) -> Iterator[Server]:
    """Run the server on the last core and this process on the others, where there are two.

    The account's list has `account_size` tokens. A get finds every ID.
    """
    with reserved_core() as core:
        child = start(_serve, account_size, core=core)
        place = "shares its core with the client" if core is None else "has a core of its own"
        description = f"a minimal server, one process, {place}"
        try:
            yield Server(Target(f"http://127.0.0.1:{child.first}"), description, child.pid)
        finally:
            child.pipe.send(None)


class _Responder(asyncio.Protocol):
    """Responds with the token whose ID ends the path, or with a page of the list; parses nothing else."""

    def __init__(self, account_size: int) -> None:
        self._account_size = account_size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for request in requests:
            path, _, query = request.split(b" ", 2)[1].decode().partition("?")
            token = path.rpartition("/")[2]
            if token == "access_tokens":
                page = _PAGE_NUMBER.search(query)
                body = page_body(int(page[1]) if page else 0, self._account_size)
            else:
                body = token_body(token)
            head = f"{_HEAD}X-RateLimit-Reset: {reset(time.time())}\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)


def _serve(pipe: Connection, account_size: int) -> None:
    """Serve until a message comes."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Responder(account_size), "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.recv)
        server.close()

    fastest = list(event_loops().values())[-1]
    with suppress(KeyboardInterrupt, EOFError), asyncio.Runner(loop_factory=fastest) as runner:
        runner.run(run())
