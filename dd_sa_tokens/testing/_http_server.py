"""An HTTP server on a loopback port, in the running event loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from aiohttp import web

_HOST = "127.0.0.1"
_BACKLOG = 1024
_PASSES_TO_OPEN = 5
_SHUTDOWN_TIMEOUT = 0.01  # seconds; aiohttp takes 0 for "no limit"


class Pauses:
    """The requests that sleep. The end of the server cancels them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, in the task of a request."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._tasks.discard(task)

    async def end(self) -> None:
        """Cancel the requests that sleep, and wait for their end."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class HttpServer:
    """A server in the running event loop.

    Args:
        handler: Answers a request.
        pauses: The requests that sleep.
        port: The port to listen on; 0 for a free one.

    Attributes:
        url: Its address, without a trailing slash.

    Raises:
        OSError: The port is in use.
    """

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], pauses: Pauses, port: int
    ) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # elsewhere the option lets two servers share a port
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((_HOST, port))
        except BaseException:
            self._socket.close()
            raise
        self.url = f"http://{_HOST}:{self._socket.getsockname()[1]}"
        self._handler = handler
        self._pauses = pauses
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Accept connections."""
        # Without a router: aiohttp's does not find IDs with braces in them, and costs time.
        server = web.Server(self._handler, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket, backlog=_BACKLOG).start()

    async def stop(self) -> None:
        """Stop accepting, end all requests and close all connections."""
        with suppress(NotImplementedError):  # Windows' proactor has no readers
            asyncio.get_running_loop().remove_reader(self._socket)
        # asyncio opens a connection some passes of the loop after it has accepted it. Without these passes the
        # connections that were accepted last would not be closed, and their clients would wait forever.
        for _ in range(_PASSES_TO_OPEN):
            await asyncio.sleep(0)
        await self._pauses.end()
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.close()

    def disown(self) -> None:
        """Release the sockets that a fork has copied into this process.

        Otherwise connections would stay open, and the port taken, for as long as the child lives. The file descriptors
        are redirected instead of closed: Python's socket objects still own the numbers.
        """
        server = self._runner.server if self._runner is not None else None
        transports = [connection.transport for connection in server.connections] if server is not None else []
        sockets = [self._socket, *(transport.get_extra_info("socket") for transport in transports if transport)]
        nowhere = os.open(os.devnull, os.O_RDWR)
        for each in sockets:
            if each is not None and each.fileno() >= 0:
                os.dup2(nowhere, each.fileno(), inheritable=False)
        os.close(nowhere)


class ServerThread:
    """A thread with an event loop of its own, in which a server runs.

    The thread is a daemon: it does not keep the interpreter from ending.

    Args:
        server: The server, not started yet.
    """

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._started: Future[None] = Future()
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="FakeDatadog", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until the server accepts connections."""
        self._thread.start()
        self._started.result()

    def stop(self) -> None:
        """Stop the server, and wait until the thread has ended."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        # A plain loop also where the program has set another policy, so that the server behaves the same.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self._server.start()
        except Exception as error:  # noqa: BLE001 - start() raises it in the caller's thread
            self._started.set_exception(error)
            await self._server.stop()
            return
        self._started.set_result(None)
        await self._end.wait()
        await self._server.stop()
