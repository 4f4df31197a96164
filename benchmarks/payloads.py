"""The account that the fast server holds, the bodies that it sends, and the keys that clients sign with."""

from __future__ import annotations

import math
from functools import lru_cache

import attrs

PAGE_SIZE = 100
SERVICE_ACCOUNT_ID = "3f0c5a52-7f3e-4c6b-9a51-1d2f0e6b8c77"
KEYS = {"api_key": "0" * 32, "app_key": "1" * 40}
CONTENT_TYPE = "application/vnd.api+json"

RATE_LIMIT_HEADERS = {
    "X-RateLimit-Limit": "100000000",
    "X-RateLimit-Period": "60",
    "X-RateLimit-Remaining": "99000000",
    "X-RateLimit-Name": "service_account_access_tokens",
}
"""A rate limit that no client can reach; `X-RateLimit-Reset` goes with it."""

RESOURCE = (
    '{"id":"<id>","type":"service_access_tokens","attributes":{"created_at":"2026-05-28T14:36:47.296135Z",'
    '"expires_at":"2027-05-28T14:36:47Z","last_used_at":null,"name":"deploy pipeline",'
    '"public_portion":"ddsat_0KHCgRdjSyb8EMXtz1E5Cp","scopes":["dashboards_read","monitors_read"]},'
    '"relationships":{"owned_by":{"data":{"id":"' + SERVICE_ACCOUNT_ID + '","type":"service_account"}}}}'
)


@attrs.frozen
class Target:
    """A server, and what a client needs to ask it for tokens."""

    url: str
    keys: dict[str, str] = KEYS
    service_account_id: str = SERVICE_ACCOUNT_ID

    @property
    def path(self) -> str:
        """The path of the account's tokens."""
        return f"/api/v2/service_accounts/{self.service_account_id}/access_tokens"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that sign a request."""
        keys = {"DD-API-KEY": self.keys["api_key"], "DD-APPLICATION-KEY": self.keys["app_key"]}
        return keys | {"Accept": "application/json"}


def token_id(number: int) -> str:
    """Return the ID of a token by its number."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def token_ids(count: int) -> list[str]:
    """Return the first IDs."""
    return [token_id(number) for number in range(count)]


def token_body(token_id: str) -> bytes:
    """Return the response body of a get."""
    return f'{{"data":{RESOURCE.replace("<id>", token_id)}}}'.encode()


@lru_cache(maxsize=1_000)
def page_body(number: int, total: int) -> bytes:
    """Return the response body of a page of the list, which is empty beyond the last one."""
    numbers = range(number * PAGE_SIZE, min((number + 1) * PAGE_SIZE, total))
    resources = ",".join(RESOURCE.replace("<id>", token_id(number)) for number in numbers)
    return f'{{"data":[{resources}],"meta":{{"page":{{"total_filtered_count":{total}}}}}}}'.encode()


def reset(now: float) -> int:
    """Return the seconds to the next calendar-aligned window, rounded up as the real API does."""
    period = int(RATE_LIMIT_HEADERS["X-RateLimit-Period"])
    return math.ceil(period - now % period)
