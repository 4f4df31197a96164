"""A server that is faster than any client, in a process of its own: nginx where there is one, else a few lines here."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import attrs

from . import machine
from .answers import BODY, CONTENT_TYPE, LIMITS, PATH, SIGNED, reset, token_id

_HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in LIMITS.items())
_NGINX = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    map $time_iso8601 $second { "~:(?<found>[0-9][0-9])[-+]" $found; }
    map $second $reset { %(resets)s }
    server {
        listen 127.0.0.1:%(port)d backlog=1024;
        location ~ "^/api/v2/service_accounts/[^/]+/access_tokens/(?<token>[^/]+)$" {
            default_type %(type)s;
            %(headers)s
            add_header X-RateLimit-Reset $reset;
            return 200 '%(body)s';
        }
    }
}
"""


@attrs.frozen
class Server:
    """A server that runs.

    Attributes:
        url: Where.
        name: What it is, and where it runs.
        pid: Its process.
    """

    url: str
    name: str
    pid: int


@contextmanager
def fast_server() -> Iterator[Server]:
    """Run the server on the last core and this process on the others, where there are two."""
    with machine.one_core_apart() as core, ExitStack() as stack:
        server = _start_nginx(core, stack) or _start_own(core, stack)
        where = "shares its core with the client" if core is None else "has a core of its own"
        yield attrs.evolve(server, name=f"{server.name}, one process, {where}")


def _start_nginx(core: int | None, stack: ExitStack) -> Server | None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        return None
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    port = _free_port()
    settings = {
        "resets": " ".join(f"{second:02d} {60 - second};" for second in range(60)),
        "port": port,
        "type": CONTENT_TYPE,
        "headers": " ".join(f"add_header {name} {value};" for name, value in LIMITS.items()),
        "body": BODY.replace("<id>", "$token"),
    }
    (Path(folder) / "nginx.conf").write_text(_NGINX % settings)
    process = subprocess.Popen([nginx, "-p", folder, "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
    stack.callback(_stop, process)
    if not _answers(process, port):
        return None
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False).stderr
    return Server(f"http://127.0.0.1:{port}", said.strip().rpartition(": ")[2].replace("/", " "), process.pid)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast("int", probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        time.sleep(0.02)
    return False


class _Answers(asyncio.Protocol):
    """Answers each request on a connection with the token whose ID ends its path; parses nothing but that."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1].decode()
            body = BODY.replace("<id>", path.rpartition("/")[2])
            head = f"{_HEAD}X-RateLimit-Reset: {reset(time.time())}\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write((head + body).encode())


def _start_own(core: int | None, stack: ExitStack) -> Server:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, core), daemon=True)
    process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)
    assert process.pid is not None
    port, loop = ours.recv()
    return Server(f"http://127.0.0.1:{port}", f"a server of our own on {loop}", process.pid)


def _serve(ready: Connection, core: int | None) -> None:
    machine.stay_on(core)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Answers, "127.0.0.1", 0, backlog=1024)
        ready.send((server.sockets[0].getsockname()[1], type(loop).__module__))
        await server.serve_forever()

    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


def capacity(server: Server, width: int, seconds: float) -> float:
    """Return how many requests a second it answers to who reads nothing of the answers: more than to any client."""
    signed = "".join(f"{name}: {value}\r\n" for name, value in SIGNED.items())
    request = f"GET {PATH}{token_id(0)} HTTP/1.1\r\nHost: localhost\r\n{signed}\r\n".encode()
    answered = 0

    class Pump(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = cast("asyncio.Transport", transport)
            self._transport.write(request)

        def data_received(self, data: bytes) -> None:
            nonlocal answered
            whole = data.count(b"HTTP/1.1 200")
            answered += whole
            self._transport.write(request * whole)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        port = int(server.url.rpartition(":")[2])
        pumps = [await loop.create_connection(Pump, "127.0.0.1", port) for _ in range(width)]
        begun = time.perf_counter()
        await asyncio.sleep(seconds)
        speed = answered / (time.perf_counter() - begun)
        for transport, _ in pumps:
            transport.abort()
        return speed

    return asyncio.run(run())
