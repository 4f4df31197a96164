"""A fake Datadog server on a loopback port, for test suites: a real server, asked by a real client.

@pytest.fixture
def datadog():
    with FakeDatadog(tokens=20, rate_limit=(100, 10.0)) as fake:
        yield fake

async def test_survives_an_outage(datadog):  # with pytest-asyncio in its auto mode
    datadog.fail_next(3, status=503)
    async with datadog.client() as client:
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids)
    assert tuple(result.tokens.values()) == datadog.tokens
    assert datadog.requests == 4  # three failures, and one page of the list that holds all 20
"""

from __future__ import annotations

from ._fixed_window import FixedWindow
from ._received import Received
from ._server import FakeDatadog

__all__ = ["FakeDatadog", "FixedWindow", "Received"]
