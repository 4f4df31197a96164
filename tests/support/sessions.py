"""Sessions of users who have changed what aiohttp's do: aiohttp warns about subclasses, and they exist."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import aiohttp

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)

    class ReplacedSession(aiohttp.ClientSession):
        """A session that replaces aiohttp's own code: nothing shows whether a request leaves.

        Attributes:
            error: What each request raises; `None` for requests that hang.
            calls: Requests that were made.
        """

        def __init__(self, error: Exception | None) -> None:
            super().__init__()
            self.error = error
            self.calls = 0

        async def _request(self, *_args: Any, **_options: Any) -> aiohttp.ClientResponse:
            self.calls += 1
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
            raise AssertionError

    class OtherTaskSession(aiohttp.ClientSession):
        """A session that sends each request from a task of its own."""

        async def _request(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:
            return await asyncio.create_task(super()._request(*args, **options))
