"""aioresponses: where tests send, and what was sent."""

from __future__ import annotations

from typing import Any

from aioresponses import aioresponses
from yarl import URL

from .keys import ACCOUNT

TOKENS = f"/api/v2/service_accounts/{ACCOUNT}/access_tokens"
PATH = f"{TOKENS}/t1"
US1 = f"https://api.datadoghq.com{PATH}"


def sent(mocked: aioresponses) -> list[tuple[str, URL, dict[str, Any]]]:
    """Return what went out: method, URL and options."""
    return [(method, url, call.kwargs) for (method, url), calls in mocked.requests.items() for call in calls]
