"""aioresponses, made to fit the aiohttp that is installed."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
from aioresponses import aioresponses as Mocked

__all__ = ["Mocked"]


class _MockedResponse(aiohttp.ClientResponse):
    """aiohttp's response with the argument that aioresponses 0.7.9 does not know about."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters:
    aioresponses.core.ClientResponse = _MockedResponse
