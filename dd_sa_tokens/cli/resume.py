"""A file of JSON lines that grows line by line, and goes on where a run was killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import typer

from .outcome import CommandError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]  # checked before each use

_OUR_BEGINNING = b'{"id": "'


class LinesFile:
    """Results, a JSON object a line, in a file that is appended to.

    Each line is written by itself. So after a kill at any moment it holds whole lines, but for the last one, perhaps;
    that one is mended when the file is opened again.

    Args:
        path: The file; it is made where it does not exist.

    Attributes:
        name: The file's name.
        done: The IDs of the tokens that it holds.
        one_line_each: Whether, in the end, each ID is to have one line only.

    Raises:
        BadParameter: There is something else in it, or another run is writing to it.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.done: set[str] = set()
        self.one_line_each = False
        self._path = path.resolve()  # a link stays one
        self._rewritten = self._path.with_name(f".{self._path.name}.rewritten")
        self._file = self._path.open("a+b")
        try:
            self._lock()
            self._rewritten.unlink(missing_ok=True)  # left by a run that was killed
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:  # pyright: ignore[reportUnnecessaryComparison] - it is on Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise typer.BadParameter(f"another run is writing to {self._path.name}", param_hint="--output") from None
        except OSError:
            pass  # some file systems have no locks: then two runs at a time are the user's to avoid

    def _read(self) -> None:
        """See what is there, and mend the last line."""
        self._file.seek(0)
        good = 0
        for number, line in enumerate(self._file, 1):
            item = _parse(line)
            if not line.endswith(b"\n"):
                self._mend(line, good, number, complete=item is not None)
            elif item is None and line.strip():
                raise self._strange(number)
            good += len(line)
            if item is not None and _is_done(item):
                self.done.add(item["id"])

    def _mend(self, line: bytes, start: int, number: int, *, complete: bool) -> None:
        if complete:
            self._file.write(b"\n")
        elif line.startswith(_OUR_BEGINNING) or _OUR_BEGINNING.startswith(line):
            self._file.truncate(start)
        else:
            raise self._strange(number)
        self._file.flush()

    def _strange(self, number: int) -> typer.BadParameter:
        text = f"line {number} of {self._path.name} is no JSON object, so it is not a file to append results to"
        return typer.BadParameter(text, param_hint="--output")

    async def write(self, text: str) -> None:
        """Append a line, and hand it to the operating system at once.

        Raises:
            CommandError: It cannot be written.
        """
        if not text:
            return
        try:
            self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            raise CommandError(f"cannot write {self._path}: {error.strerror}") from None

    def finish(self) -> None:
        """Close it; where each ID is to have one line only, after seeing to that.

        Raises:
            CommandError: It cannot be written.
        """
        try:
            if self.one_line_each:
                self._keep_one_line_each()
        except OSError as error:
            raise CommandError(f"cannot write {self._path}: {error.strerror}") from None
        finally:
            with suppress(OSError):  # what could not be written cannot be flushed either
                self._file.close()

    def abandon(self, *, empty: bool) -> None:  # noqa: ARG002 - every sink is told
        """Do the same: what there is, is good."""
        with suppress(CommandError):
            self.finish()

    def _keep_one_line_each(self) -> None:
        """Drop the lines that a later one has made obsolete, in one step."""
        kept: dict[str, tuple[bool, int]] = {}
        dropped = False
        for number, item in enumerate(self._items()):
            if item is None or not isinstance(item.get("id"), str):
                continue
            done, before = _is_done(item), kept.get(item["id"])
            dropped = dropped or before is not None
            if before is None or done >= before[0]:
                kept[item["id"]] = (done, number)
        if dropped:
            self._rewrite({number for _, number in kept.values()})

    def _rewrite(self, numbers: set[int]) -> None:
        try:
            with self._rewritten.open("xb") as rewritten:
                shutil.copymode(self._path, self._rewritten)
                self._file.seek(0)
                for number, line in enumerate(self._file):
                    item = _parse(line)
                    if number in numbers or item is None or not isinstance(item.get("id"), str):
                        rewritten.write(line)
                rewritten.flush()
                os.fsync(rewritten.fileno())
            self._rewritten.replace(self._path)
        finally:
            self._rewritten.unlink(missing_ok=True)

    def _items(self) -> Iterable[dict[str, Any] | None]:
        self._file.seek(0)
        return map(_parse, self._file)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line; `None` if there is none."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", item) if isinstance(item, dict) else None


def _is_done(item: dict[str, Any]) -> bool:
    return isinstance(item.get("id"), str) and "error" not in item
