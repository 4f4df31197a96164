"""Starts the command line in 0.03 s instead of 0.6 s: a process that has imported it forks a child for each run.

A child is a process of its own, with its own streams, terminal, signals and exit status, and it runs and ends as the
executable does. It shares with other runs what the imports made. So a test about the start of Python, about an import,
or about a variable that is read then, starts the executable.

This module is both sides: imported, it is the tests' side; run as a script, it is the server.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from functools import cache

_NUMBER = struct.Struct("!i")


# ---- The tests' side


class Child:
    """A child of the server: what `subprocess.Popen` offers of it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid: int = self._receive()
        self.returncode: int | None = None

    def _receive(self) -> int:
        return _NUMBER.unpack(self._connection.recv(_NUMBER.size, socket.MSG_WAITALL))[0]

    def poll(self) -> int | None:
        """Return the exit status, or `None` while the child runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status: negative, if a signal ended the child."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise TimeoutError
            self.returncode = os.waitstatus_to_exitcode(self._receive())
            self._connection.close()
        return self.returncode

    async def ended(self) -> int:
        """Wait for the end beside other tasks."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        if self.returncode is None:
            loop.add_reader(self._connection, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(self._connection)
        return self.wait(0)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the child has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


@cache
def _server(directory: str) -> socket.socket:
    control, theirs = socket.socketpair()
    with theirs:
        words = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(words, cwd=directory, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def stop() -> None:
        control.close()  # the server ends with it
        process.wait()

    atexit.register(stop)
    return control


def fork(
    argv: Sequence[str],
    env: dict[str, str],
    directory: str,
    streams: Sequence[int],
    *,
    session: bool = False,
    first: str = "",
    limits: Mapping[int, int] = {},
) -> Child:
    """Run the command line in a child of the server.

    Args:
        argv: The program, as the child's `sys.argv` names it, and its arguments.
        env: All its variables.
        directory: Where it runs.
        streams: The descriptors of its standard input, output and error. The caller closes its own copies.
        session: Whether it gets a session of its own, whose terminal is its standard input.
        first: Code that it runs first.
        limits: The highest value of each resource (`resource.RLIMIT_...`).
    """
    connection, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_server(directory), [b"x"], [theirs.fileno(), *streams])
    items = {"argv": argv, "env": env, "session": session, "first": first, "limits": list(limits.items())}
    request = json.dumps(items).encode()
    connection.sendall(_NUMBER.pack(len(request)) + request)
    return Child(connection)


# ---- The server


def _serve(control: socket.socket) -> None:
    """Fork a child for each request. Returns in the children only."""
    while True:
        _, descriptors, *_ = socket.recv_fds(control, 1, 4)
        if not descriptors:
            sys.exit()
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection, streams = socket.socket(fileno=descriptors[0]), descriptors[1:]
    child = os.fork()
    if child:  # this process waits for the child, and tells the test
        for descriptor in streams:
            os.close(descriptor)
        connection.sendall(_NUMBER.pack(child))
        connection.sendall(_NUMBER.pack(os.waitpid(child, 0)[1]))
        os._exit(0)
    with connection:
        (length,) = _NUMBER.unpack(connection.recv(_NUMBER.size, socket.MSG_WAITALL))
        request = json.loads(connection.recv(length, socket.MSG_WAITALL))
    sys.argv = request["argv"]
    os.environ.clear()
    os.environ.update(request["env"])
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["session"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number, highest in request["limits"]:
        resource.setrlimit(number, (highest, highest))
    _open_standard_streams()
    exec(request["first"], {})


def _open_standard_streams() -> None:
    """Open the streams as Python does when it starts: one that is a terminal is written line by line."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        stream = open(  # noqa: SIM115 - it is open until the process ends
            number,
            "w" if number else "r",
            encoding=os.environ.get("PYTHONIOENCODING", old.encoding),
            errors=old.errors,
            newline="\n" if number else None,
            closefd=False,
        )
        stream.reconfigure(line_buffering=number == 2 or os.isatty(number))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    from typer.testing import CliRunner

    from dd_sa_tokens.__main__ import main
    from dd_sa_tokens.cli import app

    # Parsing imports pydantic, for example. No loop may run here: uvloop's library crashes in the child of a process
    # in which it has started threads.
    CliRunner().invoke(app, ["list", "sa", "--format", "no such format"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets those that wait, when they end
    gc.freeze()  # so that the collector of a child touches nothing of the parent's memory
    _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
