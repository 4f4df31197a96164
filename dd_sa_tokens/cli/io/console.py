"""Messages on standard error: one line at a time, without anything that a terminal would obey."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from io import StringIO
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from dd_sa_tokens.cli.exit_codes import NAME

from .printable import printable

# Columns. With less, rich raises IndexError or prints nothing. With a billion, it would fill the memory.
LEAST_WIDTH, MOST_WIDTH = 40, 1000


class PipedConsole(Console):
    """rich's console, with limits for its width, and with an exception if the reader of its output is gone.

    rich itself would end the process.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)
        width = min(max(self.width, LEAST_WIDTH), MOST_WIDTH)
        if width != self.width:  # otherwise it stays free to follow the terminal
            self.width = width

    def on_broken_pipe(self) -> None:
        """Raise the error again. rich calls this from its except block."""
        self.quiet = True
        raise  # noqa: PLE0704 - see above


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a standard stream is a terminal. It is `None` where it was closed."""
    # rich's own is_terminal also reads FORCE_COLOR and TTY_COMPATIBLE. They say what to print, not what is there.
    return stream is not None and stream.isatty()


class StandardOutputBuffer(StringIO):
    """A file in memory that a console takes for standard output, so that it draws what standard output can show.

    What is drawn is written later, by a `Sink`, which reports a full disk.
    """

    @property
    def encoding(self) -> str:  # type: ignore[override]  # it has none of its own
        """The encoding of standard output."""
        return getattr(sys.stdout, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether standard output is a terminal."""
        return is_terminal(sys.stdout)


class Messages:
    """Prints messages to standard error.

    Attributes:
        console: The one console of standard error, so that a progress bar knows what is printed above it.
    """

    def __init__(self) -> None:
        self.console: PipedConsole = PipedConsole(stderr=True)

    @property
    def can_redraw(self) -> bool:
        """Whether standard error is a terminal that can move its cursor."""
        return is_terminal(sys.stderr) and self.console.is_interactive

    @property
    def can_ask(self) -> bool:
        """Whether a user can see a question on standard error, and answer it on standard input."""
        return is_terminal(sys.stdin) and is_terminal(sys.stderr)

    def say(self, text: str, style: str = "") -> None:
        """Print one line, however long. A standard error that cannot be written does not stop the command."""
        with suppress(OSError):
            self.console.print(Text(printable(text), style=style), soft_wrap=True)

    def fail(self, text: str) -> None:
        """Print one line that says what went wrong."""
        self.say(f"{NAME}: {text}", style="red")


class LogLines(logging.Handler):
    """Prints log records to standard error, above the progress bar if there is one."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self._messages.say(self.format(record), style="dim")


def log_to(messages: Messages, verbosity: int) -> None:
    """Print the library's log.

    Args:
        messages: Prints it.
        verbosity: 0 for nothing, 1 for retries and waits for the rate limit, 2 for requests as well.
    """
    if not verbosity:
        return
    handler = LogLines(messages)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("dd_sa_tokens")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
