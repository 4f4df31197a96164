"""Fixtures of the client."""

from __future__ import annotations

from typing import Any

import pytest
from support.calls import ONCE
from support.keys import KEYS

from dd_sa_tokens import (
    TokensClient,
)


@pytest.fixture
async def client() -> Any:
    async with TokensClient(**KEYS, retry=ONCE) as client:
        yield client
