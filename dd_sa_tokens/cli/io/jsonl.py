"""A file of JSON lines that grows line by line, and that a later run can continue after any stop."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from dd_sa_tokens._validation import canonical_id
from dd_sa_tokens.cli.exit_codes import CommandError, ExitCode, cannot_write

from . import partial
from .console import Messages
from .files import Sink

JsonlMode = Literal["replace", "append", "resume"]

_OUR_BEGINNING = b'{"id": "'


class ResumableJsonl(Sink):
    """Results in a file of JSON lines.

    Each line is written on its own, so after a kill at any moment the file holds whole lines and perhaps half of a last
    one. That one is repaired when the file is opened again.

    Lines are added to the file itself, except where old results are to be replaced: then they go to a file beside it,
    with the suffix .partial, which takes its place at the end. An older .partial is removed when the file itself gets
    its first line, or is complete.

    Args:
        path: The file. It is created if it does not exist.
        messages: Prints what was kept if the command fails.
        mode: `"append"` adds lines. `"resume"` adds lines to .partial if there is one that is not older than the file,
            and at the end keeps one line for each ID. `"replace"` begins with no lines.

    Attributes:
        name: The name of the file that lines are added to.
        done: The IDs of the tokens that it holds, in their canonical form.
        is_removed: Whether the file that lines were added to is gone, because no line was written to it.

    Raises:
        CommandError: The file holds something else, or another run is writing to it.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, messages: Messages, mode: JsonlMode) -> None:
        self.done: set[str] = set()
        self.is_removed: bool = False
        self._messages = messages
        self._path = partial.resolve(path)
        self._partial = partial.partial_of(self._path)
        self._one_line_each = mode == "resume"
        is_new = not self._path.exists()
        self._locked = self._path.open("a+b")
        try:
            self._file = self._open_lines(mode)
        except BaseException:
            self._locked.close()
            raise
        self._older_is_removed = False
        self._is_own = is_new or self._is_beside  # and of no use to the user while it is empty
        self.name: str = Path(self._file.name).name
        self._rewritten = self._path.with_name(f".{partial.shortened(self.name, len('..rewritten'))}.rewritten")
        try:
            self._rewritten.unlink(missing_ok=True)  # from a run that was killed
            self._read()
        except BaseException:
            self._close()
            raise

    def _open_lines(self, mode: JsonlMode) -> BinaryIO:
        """Lock the file, and open the one that lines are added to."""
        if not partial.lock(self._locked):
            raise CommandError(f"another run is writing to {self._path.name}", ExitCode.USAGE)
        if mode == "resume" and partial.is_current(self._partial, self._path):
            return self._partial.open("a+b")
        if mode == "replace" and os.fstat(self._locked.fileno()).st_size:
            file = self._partial.open("w+b")
            shutil.copymode(self._path, self._partial)
            return file
        return self._locked

    @property
    def _is_beside(self) -> bool:
        return self._file is not self._locked

    def _read(self) -> None:
        """Read the lines, and repair the last one."""
        self._file.seek(0)
        good = 0
        for number, line in enumerate(self._file, 1):
            item = _parse(line)
            if not line.endswith(b"\n"):
                self._repair(line, good, number, complete=item is not None)
            elif item is None and line.strip():
                raise self._not_ours(number)
            good += len(line)
            if item is not None and _is_done(item):
                self.done.add(canonical_id(item["id"]))

    def _repair(self, line: bytes, start: int, number: int, *, complete: bool) -> None:
        if complete:
            self._file.write(b"\n")
        elif line.startswith(_OUR_BEGINNING) or _OUR_BEGINNING.startswith(line):
            self._file.truncate(start)
        else:
            raise self._not_ours(number)
        self._file.flush()

    def _not_ours(self, number: int) -> CommandError:
        text = f"line {number} of {self.name} is not a JSON object, so results cannot be added to this file"
        return CommandError(text, ExitCode.USAGE)

    async def write(self, text: str) -> None:
        """Add lines, and hand them to the operating system at once. See `Sink.write`."""
        if not text:
            return
        try:
            self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from None
        self._remove_older_partial()

    def _remove_older_partial(self) -> None:
        if not self._is_beside and not self._older_is_removed:
            self._older_is_removed = True
            partial.remove(self._partial)

    def finish(self) -> None:
        """Complete the file: one line for each ID if it was resumed, in its place if it was beside it."""
        try:
            if self._one_line_each:
                self._keep_one_line_each()
            elif self._is_beside:
                os.fsync(self._file.fileno())
                self._replace_by(self._partial)
            self._remove_older_partial()
        except OSError as error:
            raise self._failed(error) from None
        finally:
            self._close()

    def abandon(self, *, empty: bool) -> None:
        """Keep the lines. A run with --resume can continue. A file that was made for lines and has none is removed."""
        try:
            if self._is_own and not os.fstat(self._file.fileno()).st_size:
                Path(self._file.name).unlink(missing_ok=True)
                self.is_removed = True
                if self._is_beside and not empty:
                    self._messages.say(f"{self._path.name} is unchanged; none of the results could be kept")
            elif self._is_beside:
                self._messages.say(f"{self._path.name} is unchanged; the results so far are in {self.name}")
            elif self._one_line_each:
                self._keep_one_line_each()
        except OSError:
            pass  # the lines are still there, some IDs twice
        finally:
            self._close()

    def _failed(self, error: OSError) -> CommandError:
        return cannot_write(self._path.with_name(self.name), error)

    def _close(self) -> None:
        with suppress(OSError):  # closing writes what is buffered, which may fail again
            self._file.close()
        self._locked.close()

    def _keep_one_line_each(self) -> None:
        """Remove the lines that a later line of the same ID replaces, in one step."""
        kept: dict[str, tuple[bool, int]] = {}
        dropped = False
        for number, item in enumerate(self._items()):
            if item is None or not isinstance(item.get("id"), str):
                continue
            key, done = canonical_id(item["id"]), _is_done(item)
            before = kept.get(key)
            dropped = dropped or before is not None
            if before is None or done >= before[0]:
                kept[key] = (done, number)
        if dropped or self._is_beside:
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
            self._replace_by(self._rewritten)
            if self._is_beside:
                self._partial.unlink(missing_ok=True)
        finally:
            self._rewritten.unlink(missing_ok=True)

    def _replace_by(self, other: Path) -> None:
        if not partial.has_locks():
            self._close()  # Windows moves no open file; elsewhere the lock is kept until the file is in place
        other.replace(self._path)

    def _items(self) -> Iterable[dict[str, Any] | None]:
        self._file.seek(0)
        return map(_parse, self._file)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line; `None` if it has none."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", item) if isinstance(item, dict) else None


def _is_done(item: dict[str, Any]) -> bool:
    return isinstance(item.get("id"), str) and "error" not in item
