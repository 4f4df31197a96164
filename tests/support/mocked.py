"""aioresponses, made to fit the aiohttp that is installed."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import Mock

import aiohttp
from aioresponses import aioresponses, core
from yarl import URL

from .keys import ACCOUNT


class _MockedResponse(aiohttp.ClientResponse):
    """aiohttp's response with the argument that aioresponses 0.7.9 does not know about."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


def fit_to_aiohttp() -> None:
    """Let aioresponses make the responses that the installed aiohttp wants."""
    if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters:
        core.ClientResponse = _MockedResponse


TOKENS = f"/api/v2/service_accounts/{ACCOUNT}/access_tokens"
PATH = f"{TOKENS}/t1"
US1 = f"https://api.datadoghq.com{PATH}"


def sent(mocked: aioresponses) -> list[tuple[str, URL, dict[str, Any]]]:
    """Return what went out: method, URL and options."""
    return [(method, url, call.kwargs) for (method, url), calls in mocked.requests.items() for call in calls]
