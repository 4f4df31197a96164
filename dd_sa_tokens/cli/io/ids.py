"""Token IDs from arguments, files and pipes, one on each line."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from functools import partial

from dd_sa_tokens.cli.exit_codes import CommandError, ExitCode

from .streams import BlockingThread, close, read_chunk

_READ_WHOLE = 16 * 1024 * 1024  # bytes: some 400,000 IDs
_LONGEST_ID = 256  # characters, as in the API
_LONGEST_LINE = 4096  # bytes without a line break, spaces around the ID included
_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
_BEGIN = 2  # bytes that show UTF-16: its byte order mark, or without one an ASCII character, one byte of which is 0

Source = list[str] | AsyncIterator[str]


def open_ids(name: str) -> int:
    """Open a file of IDs; `-` is standard input.

    Returns:
        Its file descriptor.

    Raises:
        CommandError: It cannot be opened.
    """
    try:
        file = os.dup(sys.stdin.fileno()) if name == "-" else os.open(name, os.O_RDONLY)
        if stat.S_ISDIR(os.fstat(file).st_mode):
            os.close(file)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except (OSError, ValueError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no standard input"
        raise _unreadable(f"cannot read {name}: {reason}") from None
    return file


def gather(token_ids: Iterable[str], file: int | None, name: str = "-") -> Source:
    """Return the IDs of the arguments and those of a file.

    Args:
        token_ids: The IDs of the arguments.
        file: The file descriptor of the file, which is closed; `None` for none.
        name: The name of the file, for errors; `-` is standard input.

    Returns:
        A list if the file is a regular one of at most 16 MiB. Then the number of IDs is known, and the client can
        choose to list the tokens instead.

    Raises:
        CommandError: The file cannot be read, is in UTF-16, or has a line that is too long.
    """
    if file is None:
        return list(token_ids)
    about = os.fstat(file)
    if not stat.S_ISREG(about.st_mode) or about.st_size > _READ_WHOLE:
        return _all(token_ids, file, name)
    ids, lines = list(token_ids), _Lines(name)
    try:
        while chunk := _read(file):
            ids += lines.feed(chunk)
    finally:
        os.close(file)
    return [*ids, *lines.end()]


async def _all(token_ids: Iterable[str], file: int, name: str) -> AsyncGenerator[str, None]:
    thread, lines = BlockingThread(), _Lines(name)
    for token_id in token_ids:
        yield token_id
    try:
        while chunk := await thread.run(partial(_read, file)):
            for token_id in lines.feed(chunk):
                yield token_id
        for token_id in lines.end():
            yield token_id
    finally:
        thread.submit(partial(close, file))  # not while the thread reads it


def _read(file: int) -> bytes:
    try:
        return read_chunk(file)
    except OSError as error:
        raise _unreadable(f"cannot read the IDs: {error.strerror}") from None


def _unreadable(message: str) -> CommandError:
    return CommandError(f"--ids-from: {message}", ExitCode.USAGE)


class _Lines:
    """Finds the IDs in the chunks of a file. What it keeps between two chunks is never long."""

    def __init__(self, name: str) -> None:
        self._name = "standard input" if name == "-" else name
        self._begin = b""
        self._number = 0  # of the last whole line
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        if len(self._begin) < _BEGIN:
            self._begin += chunk[: _BEGIN - len(self._begin)]
            if self._begin in _BYTE_ORDER_MARKS or b"\0" in self._begin:
                raise _unreadable(f"{self._name} is in UTF-16, and must be in UTF-8")
        *lines, rest = (self._rest + chunk).split(b"\n")
        yield from self._ids(lines)
        if len(rest) > _LONGEST_LINE:
            rest = rest.lstrip(b"\xef\xbb\xbf \t\r")[:1]
            if rest not in {b"", b"#"}:
                raise self._too_long(self._number + 1)
        self._rest = rest  # a comment and a blank line may be long

    def end(self) -> Iterator[str]:
        return self._ids([self._rest])

    def _ids(self, lines: Iterable[bytes]) -> Iterator[str]:
        for line in lines:
            self._number += 1
            # Bytes that are not UTF-8 stay in the ID. The client refuses that ID, and fetches the others.
            text = line.decode(errors="surrogateescape").removeprefix("\ufeff").strip()
            if not text or text.startswith("#"):
                continue
            if len(text) > _LONGEST_ID:
                raise self._too_long(self._number)
            yield text

    def _too_long(self, number: int) -> CommandError:
        return _unreadable(f"line {number} has more than {_LONGEST_ID} characters, so it is not an ID")
