"""What is said to people goes to stderr, through here: one line at a time, and nothing that a terminal would obey."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from .printable import printable

NAME = "dd-sa-tokens"


class PipedConsole(Console):
    """rich's console, except that a reader who went away is an exception like any other, not the end of the process."""

    def on_broken_pipe(self) -> None:
        """Raise it again: this is called where it is handled."""
        self.quiet = True
        raise  # noqa: PLE0704 - rich calls this from its except block


class Messages:
    """Says things on stderr.

    Attributes:
        console: The one console for stderr, so that a progress bar knows what is printed over it.
    """

    def __init__(self) -> None:
        self.console = PipedConsole(stderr=True, highlight=False)

    @property
    def can_redraw(self) -> bool:
        """Whether stderr is a terminal that can move its cursor."""
        # FORCE_COLOR makes rich take a pipe for a terminal, but a bar that redraws itself is of no use there.
        return sys.stderr is not None and sys.stderr.isatty() and self.console.is_interactive  # pyright: ignore[reportUnnecessaryComparison] - it is None where it was closed

    @property
    def can_ask(self) -> bool:
        """Whether somebody can see a question on stderr, and answer it on stdin."""
        return sys.stdin is not None and sys.stdin.isatty() and self.console.is_terminal  # pyright: ignore[reportUnnecessaryComparison] - it is None where it was closed

    def say(self, text: str, style: str = "") -> None:
        """Print one line, however long; a stderr that nobody reads is no reason to stop."""
        with suppress(OSError):
            self.console.print(Text(printable(text), style=style), soft_wrap=True)

    def fail(self, text: str) -> None:
        """Say in one line what went wrong."""
        self.say(f"{NAME}: {text}", style="red")


class LogLines(logging.Handler):
    """Shows log records as lines on stderr, above the progress bar if there is one."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self._messages.say(f"{self.format(record)}", style="dim")


def log_to(messages: Messages, verbosity: int) -> None:
    """Show the library's log on stderr.

    Args:
        messages: Where.
        verbosity: 0 for nothing, 1 for retries and waits for quota, 2 for requests, too.
    """
    if not verbosity:
        return
    handler = LogLines(messages)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("dd_sa_tokens")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
