"""Blocking reads and writes of pipes, terminals and devices, in a thread beside the event loop.

The loop's own readers and writers would switch the file to non-blocking mode. That mode belongs to the open file, which
the shell and other processes share.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_CHUNK = 65536  # bytes


class BlockingThread:
    """A daemon thread that makes blocking calls, one at a time, while the event loop continues.

    `asyncio.to_thread` does not fit: Python waits for its threads at exit, and a read or a write of a pipe may never
    return.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in the thread. If this is cancelled, a call that has begun still runs to its end, or forever.

        Returns:
            What the function returns.

        Raises:
            Exception: What the function raises.
        """
        called: Future[T] = Future()

        def call() -> None:
            if not called.set_running_or_notify_cancel():
                return
            try:
                called.set_result(function())
            except Exception as error:  # noqa: BLE001 - raised again where it is awaited
                called.set_exception(error)

        self.submit(call)
        return await asyncio.wrap_future(called)

    def submit(self, function: Callable[[], None]) -> None:
        """Call a function in the thread after the calls before it, without waiting. It must not raise."""
        self._calls.put(function)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            self._calls.get()()


def close(descriptor: int) -> None:
    """Close a file descriptor. An error is ignored: all data was written before."""
    with suppress(OSError):
        os.close(descriptor)


def read_chunk(descriptor: int) -> bytes:
    """Read what a file has, and wait until it has something.

    Returns:
        At most 64 KiB; nothing at the end.

    Raises:
        OSError: It cannot be read.
    """
    while True:
        try:
            return os.read(descriptor, _CHUNK)
        except BlockingIOError:  # another process switched the file to non-blocking mode
            select.select([descriptor], [], [])


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the data, however long its reader takes.

    Raises:
        OSError: It cannot be written.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # as above
            select.select([], [descriptor], [])
