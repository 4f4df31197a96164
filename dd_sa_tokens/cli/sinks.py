"""What takes the text of the results: standard output, a device, or a file that is replaced as a whole."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from .console import Messages
from .outcome import CommandError

_LOOK_EVERY = 0.02  # seconds between looks at a pipe that is full


class Sink(Protocol):
    """Takes the text."""

    async def write(self, text: str) -> None:
        """Take some of it."""
        ...

    def finish(self) -> None:
        """Take note that this was all."""
        ...

    def abandon(self, *, empty: bool) -> None:
        """Keep what there is, unless that is nothing, although there should have been more."""
        ...


class Stdout:
    """Standard output. A reader who is slow is waited for without holding up the requests that are under way."""

    def __init__(self) -> None:
        self._poll: select.poll | None = None
        with suppress(OSError, ValueError, AttributeError):  # a test's stand-in, or closed
            about = os.fstat(sys.stdout.fileno()).st_mode
            if stat.S_ISFIFO(about) or stat.S_ISSOCK(about) or stat.S_ISCHR(about):
                self._poll = select.poll()
                self._poll.register(sys.stdout.fileno(), select.POLLOUT)

    async def write(self, text: str) -> None:
        """Write and flush.

        Raises:
            BrokenPipeError: Nobody reads it any more.
            CommandError: It cannot be written.
        """
        if not text:
            return
        # The loop's own writers would switch the file to non-blocking mode, for the shell, too, that shares it.
        while self._poll is not None and not self._poll.poll(0):  # noqa: ASYNC110 - a pipe tells nobody but who asks
            await asyncio.sleep(_LOOK_EVERY)
        write_stdout(text)

    def finish(self) -> None:
        """Do nothing: all is written."""

    def abandon(self, *, empty: bool) -> None:
        """Do nothing: all is written."""


def write_stdout(text: str) -> None:
    """Write to standard output at once.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        CommandError: It cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is closed"
        raise CommandError(f"cannot write to standard output: {reason}") from None


class Device:
    """A file that must not be replaced: a device, or a named pipe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")

    async def write(self, text: str) -> None:
        """Write and flush.

        Raises:
            BrokenPipeError: Nobody reads it any more.
            CommandError: It cannot be written.
        """
        try:
            self._file.write(text)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CommandError(f"cannot write {self._path}: {error.strerror}") from None

    def finish(self) -> None:
        """Close it."""
        self._file.close()

    def abandon(self, *, empty: bool) -> None:  # noqa: ARG002 - every sink is told
        """Close it."""
        with suppress(OSError):
            self._file.close()


class ReplacedFile:
    """A file that appears, or is replaced, as a whole: whoever looks sees all of it or what was there before."""

    def __init__(self, path: Path, messages: Messages) -> None:
        self._path = path.resolve()  # a link stays one
        self._messages = messages
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by finish and abandon
            "w", encoding="utf-8", errors="backslashreplace", newline="",
            dir=self._path.parent, prefix=f".{self._path.name}.", delete=False,
        )  # fmt: skip
        self._temporary = Path(self._file.name)

    async def write(self, text: str) -> None:
        """Write to the file that is to take the other one's place.

        Raises:
            CommandError: It cannot be written.
        """
        try:
            self._file.write(text)
        except OSError as error:
            raise CommandError(f"cannot write {self._path}: {error.strerror}") from None

    def finish(self) -> None:
        """Put it in its place.

        Raises:
            CommandError: It cannot be written.
        """
        try:
            self._move(self._path)
        except OSError as error:
            self._discard()
            raise CommandError(f"cannot write {self._path}: {error.strerror}") from None

    def abandon(self, *, empty: bool) -> None:
        """Put what there is beside its place: half of the results must not look like all."""
        if empty:
            self._discard()
            return
        beside = self._path.with_name(f"{self._path.name}.partial")
        try:
            self._move(beside)
        except OSError:
            self._discard()
        else:
            self._messages.say(f"{self._path.name} is left as it was; what had come before is in {beside.name}")

    def _move(self, to: Path) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        os.fchmod(self._file.fileno(), _mode_for(self._path))
        self._file.close()
        self._temporary.replace(to)

    def _discard(self) -> None:
        with suppress(OSError):  # what could not be written cannot be flushed either
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _mode_for(path: Path) -> int:
    """Return the permissions that a file has, or that a new one would be given."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0o022)
    os.umask(mask)
    return 0o666 & ~mask
