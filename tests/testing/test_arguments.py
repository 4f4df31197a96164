"""Arguments that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from support.bulk import NoTruth, ReadOnce
from support.plain_client import get

from dd_sa_tokens import AccessToken, ForbiddenError, InvalidArgumentError
from dd_sa_tokens.testing import FakeDatadog


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokens", [-1, True, 1.5, None, "abc", ["id"], [AccessToken(id="")], [AccessToken(id="a")] * 2]),
        (
            "rate_limit",
            [(), (1,), (0, 10.0), (1, 0.0), (1, -1.0), (1.5, 10.0), (True, 1.0), (1, math.nan), 5, "12", (1, math.inf)],
        ),
        ("latency", [-0.1, math.nan, math.inf, "1", True, None]),
        ("seed", [-1, 1.5, "a", None, True]),
        ("reset_rounding", ["", "UP", None, 1]),
        ("clock_offset", [math.nan, math.inf, -math.inf, "1", None, 2e9]),
        ("rate_limit_used", [-1, 1.5, "1", None, True]),
        ("accounts", [0, -1, 1.5, "1", None, True]),
        ("users", [-1, 1.5, "1", None, True]),
        ("permissions", ["user_access_read", ["admin"], [1], [[]], None, 5, b"x"]),
        ("port", [-1, 65536, 1.5, "80", None, True]),
    ],
)
def test_bad_arguments(name: str, values: list[Any]) -> None:
    """An invalid argument is refused at once, by its name."""
    for value in values:
        with pytest.raises(InvalidArgumentError, match=rf"\b{name} must be"):
            FakeDatadog(**{name: value})


@pytest.mark.parametrize("make", [ReadOnce, NoTruth, set])
async def test_permissions_come_from_any_collection(make: Callable[[list[str]], Any]) -> None:
    """Permissions in a cursor or an array are read once, and hold."""
    async with FakeDatadog(tokens=1, permissions=make(["user_access_read"])) as datadog, datadog.client() as client:
        assert len([account async for account in client.list_service_accounts()]) == 1
        with pytest.raises(ForbiddenError):
            await client.get_token(datadog.service_account_id, datadog.token_ids[0])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("one at a time", {}),
        ("one at a time", {"drop": True, "truncate": True}),
        ("one at a time", {"status": 500, "stall": 1.0}),
        ("count", {"count": 0, "drop": True}),
        ("count", {"count": 1.5, "drop": True}),
        ("count", {"count": True, "drop": True}),
        ("status", {"status": 199}),
        ("status", {"status": 600}),
        ("status", {"status": "500"}),
        ("stall", {"stall": -1.0}),
        ("stall", {"stall": math.nan}),
        ("headers and body", {"drop": True, "headers": {"Retry-After": "1"}}),
        ("headers and body", {"stall": 1.0, "body": b""}),
        ("headers", {"status": 429, "headers": [("Retry-After", "1")]}),
        ("headers", {"status": 429, "headers": {"Retry-After": 3}}),
        ("headers", {"status": 429, "headers": {"Retry-After": None}}),
        ("headers", {"status": 429, "headers": {"Retry-After": "3\r\nX: 1"}}),
        ("headers", {"status": 429, "headers": {"X-Control": "a\x01b"}}),
        ("headers", {"status": 429, "headers": {"X-Delete": "a\x7fb"}}),
        ("headers", {"status": 429, "headers": {"X-Lone": "\ud800"}}),
        ("headers", {"status": 429, "headers": {"content-length": "abc"}}),
        ("headers", {"status": 429, "headers": {"Content-Length": ""}}),
        ("headers", {"status": 429, "headers": {"Content-Length": "-1"}}),
        ("headers", {"status": 429, "headers": {"Retry\nAfter": "3"}}),
        ("headers", {"status": 429, "headers": {"": "3"}}),
        ("headers", {"status": 429, "headers": {"Retry-After": "3", 5: "x"}}),
        ("operation", {"drop": True, "operation": "get"}),
        ("operation", {"drop": True, "operation": 5}),
        ("operation", {"drop": True, "operation": []}),
        ("token_id", {"drop": True, "token_id": 5}),
    ],
)
async def test_bad_faults(session: aiohttp.ClientSession, name: str, arguments: dict[str, Any]) -> None:
    """An invalid fault is refused, and no request fails."""
    async with FakeDatadog(tokens=1) as datadog:
        with pytest.raises(InvalidArgumentError, match=name):
            datadog.fail_next(**arguments)
        assert datadog.pending_faults == 0
        assert (await get(session, datadog)).status == 200
