"""What the fast servers answer, and to whom: one token, with the ID that was asked for."""

from __future__ import annotations

import math

SERVICE_ACCOUNT_ID = "3f0c5a52-7f3e-4c6b-9a51-1d2f0e6b8c77"
KEYS = {"api_key": "0" * 32, "app_key": "1" * 40}
SIGNED = {"DD-API-KEY": KEYS["api_key"], "DD-APPLICATION-KEY": KEYS["app_key"], "Accept": "application/json"}
PATH = f"/api/v2/service_accounts/{SERVICE_ACCOUNT_ID}/access_tokens/"
CONTENT_TYPE = "application/vnd.api+json"

LIMITS = {
    "X-RateLimit-Limit": "100000000",
    "X-RateLimit-Period": "60",
    "X-RateLimit-Remaining": "99000000",
    "X-RateLimit-Name": "service_account_access_tokens",
}
"""More quota than any client can spend; `X-RateLimit-Reset` goes with it."""

RESOURCE = (
    '{"id":"<id>","type":"service_access_tokens","attributes":{"created_at":"2026-05-28T14:36:47.296135Z",'
    '"expires_at":"2027-05-28T14:36:47Z","last_used_at":null,"name":"deploy pipeline",'
    '"public_portion":"ddsat_0KHCgRdjSyb8EMXtz1E5Cp","scopes":["dashboards_read","monitors_read"]},'
    '"relationships":{"owned_by":{"data":{"id":"' + SERVICE_ACCOUNT_ID + '","type":"service_account"}}}}'
)
BODY = '{"data":' + RESOURCE + "}"


def token_id(number: int) -> str:
    """Make an ID up."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def token_ids(count: int) -> list[str]:
    """Make IDs up, all different."""
    return [token_id(number) for number in range(count)]


def page(count: int) -> bytes:
    """Return a page of a list."""
    resources = ",".join(RESOURCE.replace("<id>", token_id(number)) for number in range(count))
    return f'{{"data":[{resources}],"meta":{{"page":{{"total_filtered_count":{count}}}}}}}'.encode()


def reset(now: float) -> int:
    """Return the seconds to the next calendar-aligned window, rounded up as the real API does."""
    period = int(LIMITS["X-RateLimit-Period"])
    return math.ceil(period - now % period)
