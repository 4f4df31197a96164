"""A server that is faster than any client: it parses nothing but the path, and runs in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import cast

SERVICE_ACCOUNT_ID = "3f0c5a52-7f3e-4c6b-9a51-1d2f0e6b8c77"

_BODY = (
    b'{"data":{"id":"%b","type":"service_access_tokens","attributes":{"created_at":"2026-05-28T14:36:47.296135Z",'
    b'"expires_at":"2027-05-28T14:36:47Z","last_used_at":null,"name":"deploy pipeline",'
    b'"public_portion":"ddsat_0KHCgRdjSyb8EMXtz1E5Cp","scopes":["dashboards_read","monitors_read"]},'
    b'"relationships":{"owned_by":{"data":{"id":"' + SERVICE_ACCOUNT_ID.encode() + b'","type":"service_account"}}}}}'
)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.api+json\r\nX-RateLimit-Limit: 100000000\r\n"
    b"X-RateLimit-Period: 60\r\nX-RateLimit-Remaining: 99000000\r\nX-RateLimit-Reset: 42\r\n"
    b"X-RateLimit-Name: service_account_access_tokens\r\nContent-Length: %d\r\n\r\n"
)


class _Answers(asyncio.Protocol):
    """Answers each request on a connection with the token whose ID ends its path."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1]
            body = _BODY % path.rpartition(b"/")[2]
            self._transport.write(_HEAD % len(body) + body)


def _serve(ready: Connection, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - where there is one
    except ImportError:
        from asyncio import new_event_loop  # noqa: PLC0415
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


@contextmanager
def fast_server() -> Iterator[str]:
    """Run the server on the last core and this process on the others, where there are two; give its URL."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    apart = len(cores) > 1
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, cores[-1] if apart else None), daemon=True
    )
    process.start()
    if apart:
        os.sched_setaffinity(0, set(cores[:-1]))
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        if apart:
            os.sched_setaffinity(0, set(cores))
        process.terminate()
        process.join()
