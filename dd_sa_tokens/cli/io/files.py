"""Where the text of the results goes: standard output, a device or pipe, or a file that is replaced as a whole."""

from __future__ import annotations

import codecs
import os
import stat
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from dd_sa_tokens.cli.exit_codes import CommandError, cannot_write

from .console import Messages
from .partial import is_locked, partial_of, remove, resolve, shortened
from .streams import BlockingThread, close, write_all

STANDARD_OUTPUT = "standard output"

_TEMPORARY = 10  # bytes more that the name of a temporary file has: two dots, and what makes it unique


class Sink(ABC):
    """Takes the text of the results.

    Attributes:
        is_utf8: Whether every character can be written.
        is_terminal: Whether it is a terminal.
        is_pipe: Whether it is a pipe or a socket. Its reader may write to the terminal.
        is_blocked: Whether a write has not returned, because its reader is slow.
    """

    is_utf8: bool = True
    is_terminal: bool = False
    is_pipe: bool = False
    is_blocked: bool = False

    @abstractmethod
    async def write(self, text: str) -> None:
        """Write some text.

        Raises:
            BrokenPipeError: Its reader closed it.
            CommandError: It cannot be written.
        """

    @abstractmethod
    def finish(self) -> None:
        """Complete the output: all text was written.

        Raises:
            CommandError: It cannot be written.
        """

    @abstractmethod
    def abandon(self, *, empty: bool) -> None:
        """Keep what was written although the command failed, unless nothing was."""


class StreamFile(Sink):
    """A file that is written at once and never replaced: standard output, a device or a named pipe.

    A slow reader is waited for in a thread, so that requests continue.

    Args:
        name: Its name, for errors.
        descriptor: Its file descriptor; `None` for one that is not open yet.
        encoding: How its text is encoded.
        pipe: The path of a named pipe, which the thread opens: that takes until there is a reader.
    """

    def __init__(self, name: str, descriptor: int | None, encoding: str = "utf-8", *, pipe: Path | None = None) -> None:
        self._name = name
        self._descriptor = descriptor
        self._pipe = pipe
        self._thread = BlockingThread()
        self.is_blocked: bool = False
        # An incremental encoder writes a byte order mark once.
        self._encoder = codecs.getincrementalencoder(encoding)("backslashreplace")
        self.is_utf8: bool = codecs.lookup(encoding).name.startswith("utf-8")
        if descriptor is not None:
            mode = os.fstat(descriptor).st_mode
            self.is_terminal: bool = os.isatty(descriptor)
            self.is_pipe: bool = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        elif pipe is not None:
            self.is_pipe = True

    async def write(self, text: str) -> None:
        """Write some text. See `Sink.write`."""
        if not text and self._descriptor is not None:
            return  # but a pipe is opened without text as well: its reader waits for an end
        self.is_blocked = True
        try:
            await self._thread.run(partial(self._write, self._encoder.encode(text)))
            self.is_blocked = False
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self._name, error) from None

    def _write(self, data: bytes) -> None:
        if self._descriptor is None and self._pipe is not None:
            self._descriptor = os.open(self._pipe, os.O_WRONLY)
        assert self._descriptor is not None
        write_all(self._descriptor, data)

    def finish(self) -> None:
        """Close it, unless it is standard output."""
        if self._name != STANDARD_OUTPUT and self._descriptor is not None:
            self._thread.submit(partial(close, self._descriptor))  # not while the thread writes to it

    def abandon(self, *, empty: bool) -> None:
        """Close it, unless it is standard output."""
        if empty and self._pipe is not None and self._descriptor is None:
            with suppress(OSError):  # there is no reader that waits for an end
                close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))
        self.finish()


class _Replacement(Sink):
    """A standard output that is an object of Python only, as in a test."""

    async def write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def finish(self) -> None:
        pass

    def abandon(self, *, empty: bool) -> None:
        pass


def open_stdout() -> Sink:
    """Return standard output.

    Raises:
        CommandError: It is closed.
    """
    closed = CommandError(f"cannot write to {STANDARD_OUTPUT}: it is closed")
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - None where it was closed
        raise closed
    try:
        descriptor = sys.stdout.fileno()
    except OSError:
        return _Replacement()
    except ValueError:
        raise closed from None
    return StreamFile(STANDARD_OUTPUT, descriptor, sys.stdout.encoding)


class AtomicFile(Sink):
    """A file that appears, or is replaced, as a whole: a reader finds all of the new text, or the old text.

    Args:
        path: The file.
        messages: Prints what was kept if the command fails.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path, messages: Messages) -> None:
        self._path = resolve(path)
        self._messages = messages
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by finish and abandon
            "w", encoding="utf-8", errors="backslashreplace", newline="",
            dir=self._path.parent, prefix=f".{shortened(self._path.name, _TEMPORARY)}.", delete=False,
        )  # fmt: skip
        self._temporary = Path(self._file.name)

    async def write(self, text: str) -> None:
        """Write to a temporary file. See `Sink.write`."""
        self._checked(lambda: self._file.write(text))

    def finish(self) -> None:
        """Move the temporary file into place. See `Sink.finish`."""
        try:
            self._checked(self._complete)
        except CommandError:
            self._discard()
            raise

    def abandon(self, *, empty: bool) -> None:
        """Move what was written to a file with the suffix .partial: some results must not look like all."""
        if empty:
            self._discard()
            return
        partial_file = partial_of(self._path)
        with suppress(OSError):  # a full disk may have room for a part of what is buffered
            self._file.flush()
        try:
            kept = os.fstat(self._file.fileno()).st_size > 0
            self._close()
            if kept:
                self._move(partial_file)
        except OSError:
            kept = False
        if kept:
            self._messages.say(f"{self._path.name} is unchanged; the results so far are in {partial_file.name}")
        else:
            self._discard()
            self._messages.say(f"{self._path.name} is unchanged; none of the results could be kept")

    def _checked(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def _complete(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        is_growing = is_locked(self._path)  # a run that replaces its lines writes to .partial
        self._move(self._path)
        if not is_growing:
            remove(partial_of(self._path))

    def _move(self, to: Path) -> None:
        self._temporary.chmod(_mode_for(self._path))
        self._temporary.replace(to)

    def _close(self) -> None:
        with suppress(OSError):  # closing writes what is buffered, which may fail again
            self._file.close()

    def _discard(self) -> None:
        self._close()
        self._temporary.unlink(missing_ok=True)


def _mode_for(path: Path) -> int:
    """Return the permissions of a file, or those that a new file gets."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0o022)
    os.umask(mask)
    return 0o666 & ~mask


def open_file(path: Path | None, messages: Messages) -> Sink:
    """Open a file that is replaced as a whole, or standard output, a device or a named pipe.

    Args:
        path: The file; `None` for standard output.
        messages: Prints what was kept if the command fails.

    Raises:
        OSError: It cannot be written.
    """
    if path is None:
        return open_stdout()
    if path.is_fifo():
        return StreamFile(str(path), None, pipe=path)
    if is_stream(path):
        return StreamFile(str(path), os.open(path, os.O_WRONLY))
    return AtomicFile(path, messages)


def is_stream(path: Path) -> bool:
    """Return whether a path is that of a device or a named pipe. What cannot be a file is refused when it is opened."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
