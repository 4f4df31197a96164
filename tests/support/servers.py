"""A server on loopback that answers each request as its script says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs

from .replies import ReceivedRequest, Responder, reply


class RawServer:
    """A server on loopback that does to each request what its script says.

    Attributes:
        requests: What came, in order.
        connections: How many were accepted.
        open: Connections that are open.
        silent: Accept connections, and never read from them.
        greeting: Sent to each connection at once, which is closed then.
        url: Where it is.
    """

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.silent = False
        self.greeting: bytes | None = None
        self.url = ""
        self.port = 0
        self._script: deque[Responder] = deque()
        self._otherwise: Responder = reply()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._arrived = asyncio.Event()

    def script(self, *acts: Responder, otherwise: Responder | None = None) -> None:
        """Say what happens to the next requests, one each, and to those after them."""
        self._script.extend(acts)
        if otherwise is not None:
            self._otherwise = otherwise

    async def arrival(self, count: int = 1) -> None:
        """Wait until that many requests have come."""
        async with asyncio.timeout(5):
            while len(self.requests) < count:
                self._arrived.clear()
                await self._arrived.wait()

    async def emptied(self) -> None:
        """Wait until the server has seen all connections go."""
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110 - the peer's socket says nothing else
                await asyncio.sleep(0.001)

    async def start(
        self,
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        sock: socket.socket | None = None,
    ) -> None:
        """Listen, on a socket that listens already if one is given."""
        if sock is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context, backlog=1000)
        else:
            self._server = await asyncio.start_server(self._serve, sock=sock, ssl=context, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'http' if context is None else 'https'}://{host}:{self.port}"

    async def stop(self) -> None:
        """Stop listening and end all connections."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open.add(writer)
        number, self.connections = self.connections, self.connections + 1
        try:
            if self.silent:
                await asyncio.Event().wait()
            if self.greeting is not None:
                writer.write(self.greeting)
                writer.close()
            while not writer.is_closing():
                received = await reader.readuntil(b"\r\n\r\n")
                request = ReceivedRequest(received[:-4], number, time.monotonic(), reader, writer)
                length = int(request.headers.get("content-length", 0))
                request = attrs.evolve(request, body=await reader.readexactly(length))
                self.requests.append(request)
                self._arrived.set()
                await (self._script.popleft() if self._script else self._otherwise)(request)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            self._tasks.discard(task)
            self.open.discard(writer)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


StartServer = Callable[..., Awaitable[RawServer]]
