"""What the server answers, before it has headers."""

from __future__ import annotations

import json
from functools import cache
from http import HTTPStatus

Answer = tuple[int, bytes]
"""A status and a body."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {429: "Too many requests"}


class RefusedError(Exception):
    """A request is answered with an error instead of being carried out.

    Args:
        status: The answer's.
        text: What is wrong, in words that are the same each time; the status's own by default.
    """

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status, text)
        self.answer = error(status, text)


@cache
def error(status: int, text: str = "") -> Answer:
    """Return an error in the documented shape."""
    return status, json.dumps({"errors": [text or _PHRASES.get(status, f"Error {status}")]}).encode()
