"""An answer's body, and how large it may be."""

from __future__ import annotations

import aiohttp

LARGEST_BODY = 10 * 1024 * 1024
"""Bytes that an answer's body may have, once decompressed."""


class TooLargeError(Exception):
    """The body is larger than any real answer."""


async def read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body up to `LARGEST_BODY`: compressed, a few bytes can become gigabytes.

    At its end aiohttp gives the connection back to its pool. If the reading ends in any other way, the connection is
    closed.

    Raises:
        TooLargeError: The body is larger.
    """
    content = response.content
    chunks: list[bytes] = []
    size = 0
    try:
        while not content.at_eof():
            # Mostly it is there at once.
            chunk = content.read_nowait() if content.is_eof() else await content.readany()
            size += len(chunk)
            if size > LARGEST_BODY:
                raise TooLargeError
            chunks.append(chunk)
    finally:
        if not response.closed:
            response.close()
    return b"".join(chunks)
