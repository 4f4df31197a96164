"""A proxy on loopback, as a script of a `RawServer`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from .replies import ReceivedRequest


def forward(seen: list[str]) -> Callable[[ReceivedRequest], Coroutine[Any, Any, None]]:
    """Do as a proxy does: pass a request on to where its line says, or a whole connection (CONNECT)."""

    async def act(request: ReceivedRequest) -> None:
        seen.append(request.head.decode())
        method, target, _ = request.line.split(" ")
        tunnel = method == "CONNECT"
        address = urlsplit(f"//{target}" if tunnel else target)
        host = f"{address.scheme}://{address.netloc}".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        if tunnel:
            request.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            writer.write(request.head.replace(host, b"", 1) + b"\r\n\r\n" + request.body)
        await asyncio.gather(_pump(request.reader, writer, host), _pump(reader, request.writer))

    return act


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dropped: bytes = b"") -> None:
    while data := await reader.read(65536):
        writer.write(data.replace(dropped, b"", 1))
    writer.close()
