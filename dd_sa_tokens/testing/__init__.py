"""The API on a loopback port, for test suites: a real server, so that what is tested is what runs.

@pytest.fixture
async def datadog():  # with pytest-asyncio in its auto mode
    async with FakeDatadog(tokens=20, rate_limit=(100, 10.0)) as fake:
        yield fake

async def test_survives_an_outage(datadog):
    datadog.fail_next(3, status=503)
    async with TokensClient(base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key) as client:
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids)
    assert tuple(result.tokens.values()) == datadog.tokens
    assert datadog.requests == 4  # three failures, and one page of the list that holds all 20
"""

from __future__ import annotations

from ._fixed_window import FixedWindow
from ._server import FakeDatadog

__all__ = ["FakeDatadog", "FixedWindow"]
