"""Answers of the fake server before they have headers."""

from __future__ import annotations

import json
from functools import cache
from http import HTTPStatus

Answer = tuple[int, bytes]
"""A status and a body."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {429: "Too many requests"}


class RefusedError(Exception):
    """The server refuses a request and answers with an error.

    Args:
        status: The status of the answer.
        text: The reason; the standard phrase of the status by default.
    """

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status, text)
        self.answer = error(status, text)


@cache
def error(status: int, text: str = "") -> Answer:
    """Return an error in the documented shape, `{"errors": ["..."]}`."""
    return status, encode({"errors": [text or _PHRASES.get(status, f"Error {status}")]})


def encode(document: object) -> bytes:
    """Return a document as JSON in UTF-8, without spaces."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
