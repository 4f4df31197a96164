"""What the tests share: a clean environment, keys to look for, and a server that can be as rude as real ones."""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import inspect
import json
import os
import pickle
import socket
import ssl
import struct
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock
from urllib.parse import unquote

import aiohttp
import aioresponses.core
import attrs
import pytest
from aioresponses import aioresponses as _Aioresponses

from dd_sa_tokens import CreatedToken, DatadogError, RetryPolicy, TokensClient

HERE = str(Path(__file__).parent)

ACCOUNT = "3f1c0d5e-0000-4000-8000-00000000acc0"
API_KEY = "canary0apikey9f3b1c7d5e2a4068b1d"
APP_KEY = "canary1appkey7c2e9a4f6b8d0135e7a9c2b4d6f"
ACCESS_TOKEN = "ddsat_canary2token5B8dF2hJ6kL9nP3rT7vX1zC4"
CREATED_KEY = "ddsat_canary3created1QwErTyUiOpAsDf_GhJkLzXcVbNm2468"
KEYS = {"api_key": API_KEY, "app_key": APP_KEY}

FAST = RetryPolicy(initial_backoff=0.002, max_backoff=0.01)
ONCE = RetryPolicy(max_attempts=1)


class _MockedResponse(aiohttp.ClientResponse):
    """aiohttp's response with the argument that aioresponses 0.7.9 does not know about."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters:
    aioresponses.core.ClientResponse = _MockedResponse


@pytest.fixture(autouse=True)
def _no_datadog_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the keys and the site of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("DD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain session."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def mocked() -> Iterator[_Aioresponses]:
    """Answer in aiohttp's place; no socket is opened."""
    with _Aioresponses() as mock:
        yield mock


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """Collect what the loop complains about (a task's exception that nobody looked at, say): there must be nothing."""
    complaints: list[dict[str, Any]] = []
    gc.freeze()  # what was there before is none of this test's garbage, and takes long to look through
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield complaints
    gc.collect()
    gc.unfreeze()
    for _ in range(2):
        await asyncio.sleep(0)
    assert complaints == []


def resource(token_id: str = "t1", **attributes: Any) -> dict[str, Any]:
    """Return a token as the API describes it."""
    return {
        "id": token_id,
        "type": "service_access_tokens",
        "attributes": {
            "name": f"name of {token_id}",
            "created_at": "2026-05-28T14:36:47.296135Z",
            "expires_at": None,
            "last_used_at": None,
            "public_portion": "ddsat_0KHCgRdjSyb8EMXtz1E5Cp",
            "scopes": ["dashboards_read"],
        }
        | attributes,
        "relationships": {"owned_by": {"data": {"id": ACCOUNT, "type": "service_account"}}},
    }


def quota(limit: int, remaining: int, reset: object, period: object = 10, **more: str) -> dict[str, str]:
    """Return rate-limit headers."""
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Period": str(period),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(reset),
    } | more


@attrs.frozen(eq=False)
class Exchange:
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


Act = Callable[[Exchange], Awaitable[None]]


def reply(status: int = 200, body: object = None, headers: Mapping[str, str] | None = None, **named: str) -> Act:
    """Answer: by default with the token that was asked for, or with the documented shape of an error."""

    async def act(exchange: Exchange) -> None:
        if body is None and status == 200:
            content = json.dumps({"data": resource(exchange.token_id)}).encode()
        elif body is None:
            content = b"" if status == 204 else json.dumps({"errors": [f"words about {status}"]}).encode()
        else:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
        await _send(exchange, head(status, {"Content-Length": str(len(content))} | dict(headers or {}) | named))
        await _send(exchange, content)

    return act


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send(exchange: Exchange, data: bytes) -> None:
    exchange.writer.write(data)
    await exchange.writer.drain()


def raw(data: bytes) -> Act:
    """Write these bytes and close the connection."""

    async def act(exchange: Exchange) -> None:
        await _send(exchange, data)
        exchange.writer.close()

    return act


def hang_up() -> Act:
    """Close the connection without an answer."""
    return raw(b"")


def reset(data: bytes = b"") -> Act:
    """Write these bytes and break the connection off (RST)."""

    async def act(exchange: Exchange) -> None:
        await _send(exchange, data)
        if data:
            await asyncio.sleep(0.02)  # a reset overtakes what the other side has not read yet
        sock = exchange.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.writer.transport.abort()

    return act


def stall(data: bytes = b"") -> Act:
    """Write these bytes, and then nothing until the client has gone."""

    async def act(exchange: Exchange) -> None:
        await _send(exchange, data)
        await exchange.reader.read()
        exchange.writer.close()

    return act


def drip(data: bytes, every: float, step: int = 1) -> Act:
    """Write a few bytes at a time, slowly."""

    async def act(exchange: Exchange) -> None:
        for start in range(0, len(data), step):
            await _send(exchange, data[start : start + step])
            await asyncio.sleep(every)

    return act


def endless(start: bytes, chunk: bytes) -> Act:
    """Write until the client has had enough."""

    async def act(exchange: Exchange) -> None:
        await _send(exchange, start)
        while not exchange.writer.is_closing():
            await _send(exchange, chunk)
            await asyncio.sleep(0)

    return act


def later(event: asyncio.Event, act: Act) -> Act:
    """Do something once the event has come."""

    async def wait(exchange: Exchange) -> None:
        await event.wait()
        await act(exchange)

    return wait


@cache
def bomb(mebibytes: int = 64) -> bytes:
    """Return a small gzip stream that becomes a large body."""
    return gzip.compress(bytes(mebibytes * 1024 * 1024), compresslevel=1)


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
        self.requests: list[Exchange] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.silent = False
        self.greeting: bytes | None = None
        self.url = ""
        self.port = 0
        self._script: deque[Act] = deque()
        self._otherwise: Act = reply()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._arrived = asyncio.Event()

    def script(self, *acts: Act, otherwise: Act | None = None) -> None:
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

    async def start(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context, backlog=1000)
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
                exchange = Exchange(received[:-4], number, time.monotonic(), reader, writer)
                length = int(exchange.headers.get("content-length", 0))
                exchange = attrs.evolve(exchange, body=await reader.readexactly(length))
                self.requests.append(exchange)
                self._arrived.set()
                await (self._script.popleft() if self._script else self._otherwise)(exchange)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            self._tasks.discard(task)
            self.open.discard(writer)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


StartServer = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Start servers; they end with the test."""
    async with AsyncExitStack() as stack:

        async def start(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> RawServer:
            server = RawServer()
            await server.start(context, host)
            stack.push_async_callback(server.stop)
            return server

        yield start


@pytest.fixture
async def server(start_server: StartServer) -> RawServer:
    """A server that answers each request with its token, unless told otherwise."""
    return await start_server()


@pytest.fixture
async def connect(server: RawServer) -> AsyncIterator[Callable[..., TokensClient]]:
    """Make clients of the server; they are closed with the test."""
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> TokensClient:
            client = TokensClient(**({"base_url": server.url, "retry": FAST} | KEYS | options))
            stack.push_async_callback(client.close)
            return client

        yield make


Connect = Callable[..., TokensClient]


def any_answer(delay: float = 0.0) -> Act:
    """Answer each operation as the API does, after a while."""

    async def act(exchange: Exchange) -> None:
        await asyncio.sleep(delay)
        if exchange.line.startswith("POST"):
            answer = reply(201, {"data": resource("new", key=CREATED_KEY)})
        elif exchange.line.startswith("DELETE"):
            answer = reply(204)
        elif "?" in exchange.target:
            answer = reply(200, {"data": [resource()], "meta": {"page": {"total_filtered_count": 1}}})
        else:
            answer = reply()
        await answer(exchange)

    return act


async def _store(created: CreatedToken) -> None:
    assert created.key.reveal() == CREATED_KEY


# Each call of the client about one token of an account; each gives its value or raises its error.
CALLS: dict[str, Callable[[TokensClient, str, str], Coroutine[Any, Any, Any]]] = {}


def _call(call: Callable[[TokensClient, str, str], Coroutine[Any, Any, Any]]) -> None:
    CALLS[call.__name__.strip("_")] = call


@_call
async def _get(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.get_token(account, token_id)


@_call
async def _get_many(client: TokensClient, account: str, token_id: str) -> Any:
    return [item.unwrap() for item in await client.get_tokens(account, [token_id])]


@_call
async def _stream(client: TokensClient, account: str, token_id: str) -> Any:
    async with aclosing(client.stream_tokens(account, [token_id])) as results:  # unwrap() raises inside the loop
        return [item.unwrap() async for item in results]


@_call
async def _list(client: TokensClient, account: str, _: str) -> Any:
    return [token async for token in client.list_tokens(account)]


@_call
async def _create(client: TokensClient, account: str, _: str) -> Any:
    return await client.create_token(account, name="n", scopes=["a"])


@_call
async def _update(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.update_token(account, token_id, name="n")


@_call
async def _revoke(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.revoke_token(account, token_id)


@_call
async def _rotate(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.rotate_token(account, token_id, store=_store)


def leaks(text: str, *more: str) -> list[str]:
    """Return the pieces of the keys, and of more secrets, 12 characters long, that are to be seen in a text."""
    blocks, pieces = _pieces(API_KEY, APP_KEY, ACCESS_TOKEN, CREATED_KEY, *more)
    return [piece for piece in pieces if piece in text] if any(block in text for block in blocks) else []


@cache
def _pieces(*keys: str) -> tuple[list[str], list[str]]:
    """Return the keys cut into blocks of 6 characters, one of which is in each piece of 12, and all those pieces."""
    blocks = [key[i : i + 6] for key in keys for i in range(0, len(key) - 5, 6)]
    return blocks, [key[i : i + 12] for key in keys for i in range(len(key) - 11)]


def remains(error: BaseException, seen: set[int] | None = None) -> Iterator[tuple[str, str]]:
    """Yield each text that an exception leaves behind, by where it was found; our tests' own frames aside."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return
    seen.add(id(error))
    name = type(error).__name__
    yield f"repr of {name}", repr(error)
    yield f"str of {name}", str(error)
    yield f"args of {name}", repr(error.args)
    yield f"attributes of {name}", repr(vars(error))
    yield f"notes of {name}", repr(getattr(error, "__notes__", []))
    yield f"log of {name}", "".join(traceback.format_exception(error))
    if isinstance(error, DatadogError):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            yield f"pickle of {name}", pickle.dumps(error, protocol).decode("latin-1")
        yield f"copy of {name}", repr(vars(copy.copy(error)))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield from _locals_of(frame)
    related = [error.__cause__, error.__context__]
    related += error.exceptions if isinstance(error, BaseExceptionGroup) else []
    for other in related:
        if other is not None:
            yield from remains(other, seen)


def _locals_of(frame: FrameType) -> Iterator[tuple[str, str]]:
    if frame.f_code.co_filename.startswith(HERE):
        return
    for name, value in frame.f_locals.items():
        where = f"{name} in {frame.f_code.co_qualname} of {frame.f_code.co_filename}"
        yield where, repr(value)
        yield f"str of {where}", str(value)
