"""What the server answers, before it has headers."""

from __future__ import annotations

import json
from functools import cache
from http import HTTPStatus

Answer = tuple[int, bytes]
"""A status and a body."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {429: "Too many requests"}


@cache
def error(status: int, text: str = "") -> Answer:
    return status, json.dumps({"errors": [text or _PHRASES.get(status, f"Error {status}")]}).encode()
