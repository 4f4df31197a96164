"""The fake server in a thread of its own: `with FakeDatadog()`."""

from __future__ import annotations

import asyncio
import errno
import gc
import http.client
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from support.plain_client import keys
from yarl import URL

from dd_sa_tokens import TokensClient
from dd_sa_tokens.testing import FakeDatadog


@contextmanager
def connection(datadog: FakeDatadog) -> Iterator[http.client.HTTPConnection]:
    """Connect to a fake with the standard library, which needs no event loop."""
    port = URL(datadog.url).port
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        yield client
    finally:
        client.close()


def send(client: http.client.HTTPConnection, datadog: FakeDatadog, token_id: str) -> None:
    path = f"/api/v2/service_accounts/{datadog.service_account_id}/access_tokens/{token_id}"
    client.request("GET", path, headers=keys(datadog))


def status(datadog: FakeDatadog) -> int:
    """Get the first token, and return the status."""
    with connection(datadog) as client:
        send(client, datadog, datadog.token_ids[0])
        response = client.getresponse()
        response.read()
        return response.status


def until(condition: Any) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_without_an_event_loop() -> None:
    """A synchronous test talks to the fake; after the end its thread is gone and its port is closed."""
    before = threading.active_count()
    with FakeDatadog(tokens=1) as datadog:
        url = URL(datadog.url)
        assert threading.active_count() == before + 1
        assert status(datadog) == 200
        assert [(item.operation, item.status) for item in datadog.received] == [("get_token", 200)]

    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", url.port or 0))
    with pytest.raises(RuntimeError, match="`async with` or `with`"):
        _ = datadog.url


def test_clients_of_several_event_loops() -> None:
    """Clients in one event loop after another get their tokens from one fake."""

    async def fetch() -> int:
        async with datadog.client() as client:
            return len((await client.get_tokens(datadog.service_account_id, datadog.token_ids)).tokens)

    with FakeDatadog(tokens=20) as datadog:
        assert [asyncio.run(fetch()) for _ in range(3)] == [20, 20, 20]


async def test_inside_a_running_event_loop() -> None:
    """A client in the event loop in which `with` stands gets its tokens, too."""
    with FakeDatadog(tokens=20) as datadog:
        async with datadog.client() as client:
            assert len((await client.get_tokens(datadog.service_account_id, datadog.token_ids)).tokens) == 20


def test_it_can_be_started_again_and_once_at_a_time() -> None:
    """A fake can be started again, in a thread or in an event loop, but not while it runs."""

    async def once() -> None:
        async with datadog:
            with pytest.raises(RuntimeError, match="already"):
                datadog.__enter__()

    datadog = FakeDatadog(tokens=1)
    for _ in range(2):
        with datadog:
            assert status(datadog) == 200
            with pytest.raises(RuntimeError, match="already"):
                datadog.__enter__()
            assert status(datadog) == 200
        asyncio.run(once())
    assert datadog.requests == 4


def test_a_port_in_use() -> None:
    """A fake on a given port listens there; a second one on that port fails, and can be started later."""
    with FakeDatadog(tokens=1) as free:
        port = URL(free.url).port or 0
    second = FakeDatadog(tokens=1, port=port)
    with FakeDatadog(tokens=1, port=port) as first:
        assert URL(first.url).port == port
        with pytest.raises(OSError, match="in use"):
            second.__enter__()
        assert status(first) == 200
    with second:
        assert status(second) == 200


def test_a_start_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot start says why in the thread that starts it, leaves nothing, and can be started later."""

    async def fail(_site: web.SockSite) -> None:
        raise OSError(errno.ENOBUFS, "no buffers")

    async def start() -> None:
        with pytest.raises(OSError, match="no buffers"):
            await datadog.__aenter__()

    before = threading.active_count()
    datadog = FakeDatadog(tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr(web.SockSite, "start", fail)
        with pytest.raises(OSError, match="no buffers"):
            datadog.__enter__()
        asyncio.run(start())
    until(lambda: threading.active_count() == before)
    with datadog:
        assert status(datadog) == 200


@pytest.mark.parametrize("kind", ["stall", "latency", "body", "idle"])
def test_its_end_waits_for_no_request(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The end takes less than 100 ms while requests stall, are half sent, or keep their connections open.

    The shortest of a few times counts: on a busy machine any time may be long, but the end never waits by itself.
    """
    took = []
    while len(took) < 5 and (not took or took[-1] >= 0.1):
        with ExitStack() as stack:
            datadog = stack.enter_context(FakeDatadog(tokens=1, latency=60.0 if kind == "latency" else 0.0))
            leave_requests(datadog, kind, stack)
            start = time.monotonic()
            datadog.__exit__()
            took.append(time.monotonic() - start)
            datadog.__enter__()  # for the end of the context

    assert min(took) < 0.1
    assert caplog.records == []


def leave_requests(datadog: FakeDatadog, kind: str, stack: ExitStack) -> None:
    """Leave ten requests or connections behind."""
    if kind == "stall":
        datadog.fail_next(10, stall=60.0)
    for number in range(1, 11):
        client = stack.enter_context(connection(datadog))
        if kind == "body":
            client.putrequest("POST", f"/api/v2/service_accounts/{datadog.service_account_id}/access_tokens")
            for name, value in {**keys(datadog), "Content-Length": "100"}.items():
                client.putheader(name, value)
            client.endheaders(b"{")
        else:
            send(client, datadog, datadog.token_ids[0])
        if kind == "idle":
            client.getresponse().read()
        until(lambda count=number: datadog.requests == count)


def test_connections_at_the_moment_of_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Connections that arrive while the server ends are closed like the others, and nothing complains later."""
    for _ in range(30):
        with ExitStack() as stack:
            with FakeDatadog(tokens=1) as datadog:
                port = URL(datadog.url).port or 0
                clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
            for client in clients:
                with suppress(ConnectionResetError):  # it was not accepted
                    assert client.recv(1) == b""
    gc.collect()

    assert caplog.records == []


def test_two_at_once() -> None:
    """Two fakes at the same time have threads, ports, faults and counts of their own."""
    with FakeDatadog(tokens=1, seed=1) as one, FakeDatadog(tokens=1, seed=2) as other:
        one.fail_next(2, stall=60.0)
        with connection(one) as first:
            send(first, one, one.token_ids[0])
            until(lambda: one.requests == 1)
            assert status(other) == 200
            assert (one.pending_faults, other.pending_faults, other.requests) == (1, 0, 1)
        assert one.url != other.url


def test_attributes_and_methods_in_many_threads() -> None:
    """Threads that create, fail, list and read at the same time get whole answers, and no request is lost."""
    errors: list[BaseException] = []
    with FakeDatadog(tokens=50, accounts=2, rate_limit=None) as datadog, ThreadPoolExecutor(8) as pool:
        ended = threading.Event()

        def read() -> None:
            while not ended.is_set():
                assert len(datadog.tokens) >= 100
                assert len(datadog.token_ids) >= 50
                assert len(datadog.received) <= datadog.requests
                assert datadog.pending_faults >= 0
                datadog.fail_next(stall=0.0, token_id="no such token")
                assert datadog.leaks
                datadog.clear_faults()

        async def create(client: TokensClient, number: int) -> None:
            await client.create_token(datadog.service_account_id, name=f"n{number}", scopes=["a_read"])
            assert [token async for token in client.list_tokens(datadog.service_account_id, filter=f"n{number}")]

        async def use(first: int) -> None:
            async with datadog.client() as client:
                await asyncio.gather(*(create(client, first + number) for number in range(40)))

        readers = [pool.submit(read) for _ in range(3)]
        users = [pool.submit(asyncio.run, use(first)) for first in (1000, 2000, 3000)]
        errors += [error for future in users if (error := future.exception()) is not None]
        ended.set()
        errors += [error for future in readers if (error := future.exception()) is not None]

    assert errors == []
    assert len(datadog.tokens) == 220
    assert datadog.requests == len(datadog.received) == 240


# ---- Forks and the end of the interpreter


def in_child(datadog: FakeDatadog, results: Any) -> None:
    """Use the parent's fake in a child process, and leave its context, too."""
    results.send((status(datadog), len(datadog.tokens)))
    datadog.__exit__()
    results.recv()  # live on until the parent says so
    results.send("done")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork() -> None:
    """A forked child can ask its parent's fake but neither ends it nor keeps its port and connections open."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with FakeDatadog(tokens=1) as datadog, connection(datadog) as client:
        url = URL(datadog.url)
        send(client, datadog, datadog.token_ids[0])
        client.getresponse().read()
        child = context.Process(target=in_child, args=(datadog, theirs), daemon=True)
        child.start()
        assert ours.poll(10)
        assert ours.recv() == (200, 1)
        assert status(datadog) == 200
        assert datadog.requests == 3
        datadog.__exit__()
        assert client.sock.recv(1) == b""  # the connection is closed, although the child lives
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", url.port or 0))
        ours.send("end")
        assert ours.poll(10)
        assert ours.recv() == "done"
        child.join(10)
        assert child.exitcode == 0
        datadog.__enter__()  # for the end of the context


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError('the end')"])
def test_the_end_of_the_interpreter(end: str) -> None:
    """An interpreter that ends while a fake runs, and a request stalls, ends at once and without a complaint."""
    code = f"""
import socket, sys, time
from dd_sa_tokens.testing import FakeDatadog
datadog = FakeDatadog(tokens=1, latency=60.0)
datadog.__enter__()
client = socket.create_connection(("127.0.0.1", int(datadog.url.rpartition(":")[2])))
client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
while not datadog.requests:
    time.sleep(0.001)
print("running", flush=True)
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)

    assert done.stdout == "running\n"
    assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(end, 1)
    assert done.stderr.splitlines()[-1:] == (["ValueError: the end"] if "raise" in end else [])
