"""An answer's body, and how large it may be."""

from __future__ import annotations

import aiohttp

LARGEST_BODY = 10 * 1024 * 1024
"""Bytes that an answer's body may have, once decompressed."""


class TooLargeError(Exception):
    """The body is larger than any real answer."""


async def read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, as far as it may go: compressed, a few bytes can become gigabytes."""
    chunks: list[bytes] = []
    size = 0
    while not response.content.at_eof():
        chunk = await response.content.readany()
        size += len(chunk)
        if size > LARGEST_BODY:
            raise TooLargeError
        chunks.append(chunk)
    return b"".join(chunks)
