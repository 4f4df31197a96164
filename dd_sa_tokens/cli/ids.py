"""Token IDs from arguments, files and pipes, one a line."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

import typer

from .outcome import CommandError

_CHUNK = 65536
_LOOK_EVERY = 0.02  # seconds between looks at a pipe that gives nothing
_READ_WHOLE = 16 * 1024 * 1024  # bytes: some 400,000 IDs

Source = list[str] | AsyncIterator[str]


def open_ids(name: str) -> int:
    """Open a file of IDs; `-` is standard input.

    Raises:
        BadParameter: It cannot be opened.
    """
    try:
        file = os.dup(sys.stdin.fileno()) if name == "-" else os.open(name, os.O_RDONLY)
        if stat.S_ISDIR(os.fstat(file).st_mode):
            os.close(file)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except (OSError, ValueError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no standard input"
        raise typer.BadParameter(f"cannot read {name}: {reason}", param_hint="--ids-from") from None
    return file


def gather(token_ids: Iterable[str], file: int | None) -> Source:
    """Return the IDs of the arguments and those of a file: a list if the file is a regular one and not huge.

    With a list it is known how many there are, so it can be seen whether fewer requests do, too.

    Raises:
        CommandError: The file cannot be read.
    """
    if file is None:
        return list(token_ids)
    about = os.fstat(file)
    if stat.S_ISREG(about.st_mode) and about.st_size <= _READ_WHOLE:
        with os.fdopen(file, "rb") as whole:
            return [*token_ids, *_ids_in(whole.read().split(b"\n"))]
    return _all(token_ids, file)


async def _all(token_ids: Iterable[str], file: int) -> AsyncGenerator[str, None]:
    for token_id in token_ids:
        yield token_id
    rest = b""
    try:
        async for chunk in _chunks(file):
            *lines, rest = (rest + chunk).split(b"\n")
            for token_id in _ids_in(lines):
                yield token_id
        for token_id in _ids_in([rest]):
            yield token_id
    finally:
        os.close(file)


def _ids_in(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        # What is no UTF-8 goes on as it is, to be refused as an ID, with the others left alone.
        text = line.decode(errors="surrogateescape").removeprefix("\ufeff").strip()
        if text and not text.startswith("#"):
            yield text


async def _chunks(file: int) -> AsyncGenerator[bytes, None]:
    """Yield what a file has, as soon as it has something, without ever blocking the loop for a pipe.

    The loop's own readers would switch the file to non-blocking mode, for the shell, too, that shares it.
    """
    poll = select.poll()
    poll.register(file, select.POLLIN | select.POLLHUP)
    while True:
        while not poll.poll(0):  # noqa: ASYNC110 - a pipe tells nobody but who asks
            await asyncio.sleep(_LOOK_EVERY)
        try:
            chunk = os.read(file, _CHUNK)
        except OSError as error:
            raise CommandError(f"cannot read the IDs: {error.strerror}") from None
        if not chunk:
            return
        yield chunk
