"""What a server does with a request: answers in all their forms, and broken connections."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from urllib.parse import unquote

import attrs

from .keys import CREATED_KEY
from .payloads import resource


@attrs.frozen(eq=False)
class ReceivedRequest:
    """A request that came, and the connection to answer it on.

    Attributes:
        head: The request line and headers, as they came.
        connection: The number of the connection.
        at: When it came, on the monotonic clock.
        body: Its body, if its length was declared.
    """

    head: bytes
    connection: int
    at: float
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytes = b""

    @property
    def line(self) -> str:
        """The request line."""
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def target(self) -> str:
        """The target as it came, not decoded."""
        return self.line.split(" ")[1]

    @property
    def token_id(self) -> str:
        """The last segment of the path, decoded."""
        return unquote(self.target.rsplit("/", 1)[1])

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with names in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


Responder = Callable[[ReceivedRequest], Awaitable[None]]


def reply(status: int = 200, body: object = None, headers: Mapping[str, str] | None = None, **named: str) -> Responder:
    """Answer: by default with the token that was asked for, or with the documented shape of an error."""

    async def act(request: ReceivedRequest) -> None:
        if body is None and status == 200:
            content = json.dumps({"data": resource(request.token_id)}).encode()
        elif body is None:
            content = b"" if status == 204 else json.dumps({"errors": [f"words about {status}"]}).encode()
        else:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
        await _send(request, head(status, {"Content-Length": str(len(content))} | dict(headers or {}) | named))
        await _send(request, content)

    return act


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send(request: ReceivedRequest, data: bytes) -> None:
    request.writer.write(data)
    await request.writer.drain()


def raw(data: bytes) -> Responder:
    """Write these bytes and close the connection."""

    async def act(request: ReceivedRequest) -> None:
        await _send(request, data)
        request.writer.close()

    return act


def hang_up() -> Responder:
    """Close the connection without an answer."""
    return raw(b"")


def reset(data: bytes = b"") -> Responder:
    """Write these bytes and break the connection off (RST)."""

    async def act(request: ReceivedRequest) -> None:
        await _send(request, data)
        if data:
            await asyncio.sleep(0.02)  # a reset overtakes what the other side has not read yet
        sock = request.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.writer.transport.abort()

    return act


def stall(data: bytes = b"") -> Responder:
    """Write these bytes, and then nothing until the client has gone."""

    async def act(request: ReceivedRequest) -> None:
        await _send(request, data)
        await request.reader.read()
        request.writer.close()

    return act


def drip(data: bytes, every: float, step: int = 1) -> Responder:
    """Write a few bytes at a time, slowly."""

    async def act(request: ReceivedRequest) -> None:
        for start in range(0, len(data), step):
            await _send(request, data[start : start + step])
            await asyncio.sleep(every)

    return act


def endless(start: bytes, chunk: bytes) -> Responder:
    """Write until the client has had enough."""

    async def act(request: ReceivedRequest) -> None:
        await _send(request, start)
        while not request.writer.is_closing():
            await _send(request, chunk)
            await asyncio.sleep(0)

    return act


def later(event: asyncio.Event, act: Responder) -> Responder:
    """Do something once the event has come."""

    async def wait(request: ReceivedRequest) -> None:
        await event.wait()
        await act(request)

    return wait


@cache
def bomb(mebibytes: int = 64) -> bytes:
    """Return a small gzip stream that becomes a large body."""
    return gzip.compress(bytes(mebibytes * 1024 * 1024), compresslevel=1)


def any_answer(delay: float = 0.0) -> Responder:
    """Answer each operation as the API does, after a while."""

    async def act(request: ReceivedRequest) -> None:
        await asyncio.sleep(delay)
        if request.line.startswith("POST"):
            answer = reply(201, {"data": resource("new", key=CREATED_KEY)})
        elif request.line.startswith("DELETE"):
            answer = reply(204)
        elif "?" in request.target:
            answer = reply(200, {"data": [resource()], "meta": {"page": {"total_filtered_count": 1}}})
        else:
            answer = reply()
        await answer(request)

    return act
