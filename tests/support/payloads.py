"""IDs of tokens, and bodies and headers as the API writes them."""

from __future__ import annotations

from typing import Any

from .keys import ACCOUNT


def names(count: int, first: int = 0) -> list[str]:
    """Return short IDs of tokens."""
    return [f"t{number}" for number in range(first, first + count)]


def resource(token_id: str = "t1", **attributes: Any) -> dict[str, Any]:
    """Return a token as the API describes it."""
    return {
        "id": token_id,
        "type": "service_access_tokens",
        "attributes": {
            "name": f"name of {token_id}",
            "created_at": "2026-05-28T14:36:47.296135Z",
            "expires_at": None,
            "last_used_at": None,
            "public_portion": "ddsat_0KHCgRdjSyb8EMXtz1E5Cp",
            "scopes": ["dashboards_read"],
        }
        | attributes,
        "relationships": {"owned_by": {"data": {"id": ACCOUNT, "type": "service_account"}}},
    }


def rate_limit_headers(limit: int, remaining: int, reset: object, period: object = 10, **more: str) -> dict[str, str]:
    """Return rate-limit headers."""
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Period": str(period),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(reset),
    } | more
