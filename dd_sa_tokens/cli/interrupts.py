"""Ctrl-C, SIGTERM and SIGHUP: each ends a command in the same orderly way.

While a command's coroutine runs, a signal cancels its task: the coroutine says what holds, and files are completed or
removed. At any other time a signal raises `KeyboardInterrupt`. Python's own handler may raise it inside the event loop
as well, between the answer of a request and the code that handles the answer. A new token's secret would be lost there.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_new_loop: Callable[[], asyncio.AbstractEventLoop] | None
try:
    from uvloop import new_event_loop as _new_loop
except ImportError:
    _new_loop = None


@attrs.define
class _State:
    """What the signal handler knows.

    Attributes:
        cancel: Cancels the command's coroutine; `None` while none runs.
        received: Whether a signal has come.
    """

    cancel: Callable[[], object] | None = None
    received: bool = False


_state = _State()


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    again, _state.received = _state.received, True
    if _state.cancel is not None:
        _state.cancel()
    elif not again:  # the command ends already, and must keep its exit code
        raise KeyboardInterrupt


@contextmanager
def handled_signals() -> Generator[None, None, None]:
    """Handle the signals until the context ends. A signal that is ignored, as under `nohup`, stays ignored."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = [number for number, handler in handlers.items() if handler != signal.SIG_IGN]
    _state.received = False
    for number in ours:
        signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_IGN if _state.received else handlers[number])


def ignore_signals() -> None:
    """Ignore the signals until the process has ended: Python would print a traceback, and the exit code is decided."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end, under uvloop if it is installed.

    Raises:
        KeyboardInterrupt: A signal ended it.
    """
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        try:
            return runner.run(_cancellable(main))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _cancellable(main: Coroutine[Any, Any, T]) -> T:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    # A handler runs between two instructions of the loop, so it must not touch the loop's own lists.
    _state.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
    try:
        return await main
    finally:
        _state.cancel = None
