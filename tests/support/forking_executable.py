"""Puts a `dd-sa-tokens` on the PATH of a shell that starts in 0.03 s, through the fork server.

The executable hands its arguments, environment, directory and streams to a thread of the test, and exits as the child
of the fork server does.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .command_line import EXECUTABLE
from .fork_server import fork

_SCRIPT = """#!{python} -IS
import json, os, socket, struct, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    call = json.dumps([[{executable!r}, *sys.argv[1:]], dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(connection, [struct.pack("!i", len(call))], [0, 1, 2])
    connection.sendall(call)
    sys.exit(struct.unpack("!i", connection.recv(4, socket.MSG_WAITALL))[0])
"""


@contextmanager
def forking_executable(directory: Path) -> Iterator[None]:
    """Write the executable into a directory, and answer it until the end of the context."""
    address = str(directory / "socket")
    executable = directory / Path(EXECUTABLE).name
    executable.write_text(_SCRIPT.format(python=sys.executable, address=address, executable=EXECUTABLE), "utf-8")
    executable.chmod(0o755)
    with socket.create_server(address, family=socket.AF_UNIX) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)  # ends the thread


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_run, args=(connection,), daemon=True).start()


def _run(connection: socket.socket) -> None:
    with connection:
        length, streams, *_ = socket.recv_fds(connection, 4, 3)
        argv, env, directory = json.loads(connection.recv(struct.unpack("!i", length)[0], socket.MSG_WAITALL))
        child = fork(argv, env, directory, streams)
        for descriptor in streams:
            os.close(descriptor)
        connection.sendall(struct.pack("!i", child.wait()))
